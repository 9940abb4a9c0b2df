"""`python manage.py setup`: bring the database up to date and print the first credentials, then end.

Decides nothing beyond `run`'s own set-up; for installations that start their processes one by one.
Safe to repeat: what is there stays as it is.
"""

from __future__ import annotations

import sys
from typing import Any

from django.conf import settings
from django.core.management.base import BaseCommand

from batcher import start


class Command(BaseCommand):
    """Make the database and what a first request needs."""

    help = (
        "Migrate, and make the admin user, the default project, its first API key and the accounts."
    )
    requires_system_checks = []

    def handle(self, **_options: Any) -> None:
        """Do it; leave with code 1 and one line when something outside must be put right first."""
        from batching.bootstrap import bootstrap

        try:
            start.refuse_wrong_settings()
            with start.only_one_start(settings.DATA_DIR):
                start.migrate()
                greeting = bootstrap(sandbox_url=None)
        except start.CannotStart as problem:
            sys.stderr.write(f"batcher: {problem}\n")
            sys.exit(1)
        for line in greeting:
            sys.stdout.write(f"{line}\n")
