"""``manage.py sandbox`` becomes the sandbox: same words, same exit code, same process."""

from __future__ import annotations

import os
import selectors
import socket
import subprocess
import sys
from pathlib import Path

from tests.sandbox_process import ROOT


def spawn(folder: Path, *arguments: str) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, str(ROOT / "manage.py"), "sandbox", *arguments],
        cwd=folder,
        env={
            **os.environ,
            "DJANGO_SETTINGS_MODULE": "batcher.settings",
            "DATA_DIR": str(folder / "data"),
        },
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def test_it_serves_until_it_is_told_to_stop(tmp_path):
    with spawn(tmp_path, "--port", "0") as process:
        with selectors.DefaultSelector() as selector:
            selector.register(process.stdout, selectors.EVENT_READ)
            assert selector.select(timeout=30)
        said = process.stdout.readline()
        process.terminate()
        _rest, errors = process.communicate(timeout=10)

    assert said.startswith("sandbox ready on http://127.0.0.1:")
    assert (process.returncode, errors) == (0, "")
    assert (tmp_path / "data" / "sandbox" / "sandbox.sqlite3").exists()


def test_a_port_in_use_is_one_clear_line(tmp_path):
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        with spawn(tmp_path, f"--port={port}") as process:
            _said, errors = process.communicate(timeout=30)

    assert process.returncode == 1
    assert errors == f"sandbox: can't listen on 127.0.0.1:{port}: the port is in use\n"
