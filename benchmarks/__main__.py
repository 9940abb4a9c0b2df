"""Measure the hot paths as ratios to a yardstick taken in the same run.

    make bench                              # SQLite
    DATABASE_URL=postgresql://… make bench  # PostgreSQL; a test database is made and dropped
    make bench ARGS="--count 50000 --rounds 3"

Absolute times drift with the machine, so read the ratio: the yardstick is a bare bulk load (executemany on
SQLite, COPY on PostgreSQL) of as many rows of the same bytes, without logs, checks or indexes.
The other files here drive a running Batcher: mixed, front_door, rabbitmq_intake, troubled, and crowded, which
plays a full lane through an outage, expiries, a poison line and a bounce, and fails when a promise was broken.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import sys
import time
from collections.abc import Callable
from pathlib import Path

import django

os.environ["DJANGO_SETTINGS_MODULE"] = "tests.settings"
django.setup()

from django.db import connection, transaction  # noqa: E402  # after the set-up
from django.utils import timezone  # noqa: E402

from batching import inputfile, intake, packing, settling  # noqa: E402
from batching.gateway import connect  # noqa: E402
from batching.lifecycle import move_many  # noqa: E402
from batching.models import Account, Batch, Project, Request  # noqa: E402
from batching.wire import Line, read_line  # noqa: E402

_CHUNK = 2_000
_ANSWER = {"status_code": 200, "request_id": "r", "body": {"output": "x" * 1_000}}


def _post(number: int) -> bytes:
    body = {"model": "gpt-5-mini", "input": f"{number} " + "y" * 540}
    request = {
        "custom_id": f"row-{number}",
        "url": "/v1/responses",
        "method": "POST",
        "body": body,
        "delivery_config": {"type": "none"},
    }
    return json.dumps(request).encode()


def _timed(work: Callable[[], object]) -> float:
    began = time.perf_counter()
    work()
    return time.perf_counter() - began


def _bare(rows: list[tuple[str, bytes]]) -> float:
    """Return the seconds of the yardstick: rows of a key and some bytes into a bare table, durable."""
    blob = "bytea" if connection.vendor == "postgresql" else "blob"
    with connection.cursor() as cursor:
        cursor.execute(f"CREATE TABLE IF NOT EXISTS bench_bare (place text, line {blob})")

    def load() -> None:
        with transaction.atomic(), connection.cursor() as cursor:
            if connection.vendor != "postgresql":
                cursor.executemany("INSERT INTO bench_bare (place, line) VALUES (%s, %s)", rows)
                return
            with cursor.copy("COPY bench_bare (place, line) FROM STDIN") as copy:
                for row in rows:
                    copy.write_row(row)

    return _timed(load)


def _answers(path: Path) -> list[tuple[str, bytes]]:
    """Write an output file for every request that is processing; return its rows."""
    rows = []
    with path.open("wb") as file:
        for key in Request.objects.filter(state="processing").values_list("key", flat=True):
            line = {"id": "b", "custom_id": key, "response": _ANSWER, "error": None}
            rows.append((key, json.dumps(line).encode()))
            file.write(rows[-1][1] + b"\n")
    return rows


def _settle(path: Path) -> None:
    now = timezone.now()
    for batch in Batch.objects.select_related("lane__account"):
        provider = connect(batch.lane.account)
        for chunk in settling.chunks(provider.read_answers(path)):
            with transaction.atomic():
                settling.settle(batch, chunk, now)


def _accept(project: Project, posts: list[bytes]) -> None:
    lines: list[Line] = [read_line(post) for post in posts]
    for start in range(0, len(lines), _CHUNK):
        intake.accept(project, lines[start : start + _CHUNK], now=timezone.now())


def _build() -> None:
    for batch in Batch.objects.select_related("lane__account"):
        inputfile.write(batch, connect(batch.lane.account)).path.unlink()


def measure(count: int, folder: Path) -> dict[str, float]:
    """Take ``count`` requests along the road once; return the ratio of each part to its yardstick."""
    project = Project.objects.create(name="bench")
    Account.objects.create(name="bench", kind="sandbox", base_url="http://127.0.0.1:9/v1")
    posts = [_post(number) for number in range(count)]
    in_bare = _bare([(f"row-{n}", post) for n, post in enumerate(posts)])
    ratios = {"bulk intake": in_bare / _timed(lambda: _accept(project, posts))}
    ratios["packing"] = in_bare / _timed(lambda: packing.pack(timezone.now()))
    ratios["file building"] = in_bare / _timed(_build)
    sending = _timed(lambda: move_many(Request.objects.all(), "submitted", reason="bench"))
    ratios["moving a set, logged"] = in_bare / sending
    path = folder / "answers.jsonl"
    out_bare = _bare(_answers(path))
    ratios["settling"] = out_bare / _timed(lambda: _settle(path))
    unsettled = Request.objects.exclude(state="processed").count()
    if unsettled:
        raise RuntimeError(f"{unsettled} requests were not settled: the figures mean nothing")
    return ratios


def main() -> None:
    """Read the command line, make a test database for each round, and print the median ratios."""
    parser = argparse.ArgumentParser(description="Ratios of the hot paths to a bare bulk load.")
    parser.add_argument("--count", type=int, default=20_000)
    parser.add_argument("--rounds", type=int, default=3)
    options = parser.parse_args()
    rounds = []
    for _ in range(options.rounds):
        name = connection.creation.create_test_db(verbosity=0, autoclobber=True)
        try:
            rounds.append(measure(options.count, Path(os.environ["DATA_DIR"])))
        finally:
            connection.creation.destroy_test_db(name, verbosity=0)
    sys.stdout.write(f"{connection.vendor}, {options.count:,} requests, {options.rounds} rounds\n")
    for part in rounds[0]:
        ratio = statistics.median(r[part] for r in rounds)
        sys.stdout.write(f"{part:>22}: {ratio:.2f} of a bare bulk load\n")


if __name__ == "__main__":
    main()
