"""A worker's dispatch in a process of its own: sends what is due, again and again, until it is killed."""

from __future__ import annotations

import threading

import django

if __name__ == "__main__":
    django.setup()
    from delivery import dispatch

    pause = threading.Event()
    while True:
        dispatch.send_due()
        pause.wait(0.05)
