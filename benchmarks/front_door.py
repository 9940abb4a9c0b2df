"""Send one big file through the OpenAI door of a running Batcher, with the official SDK, and check all of it.

    python -m benchmarks.front_door --url http://127.0.0.1:8000 --key bm_live_… --count 120000 \\
        --first 12000 --pid $(pgrep -f 'manage.py run$')

The file has three models and lines of about 2.2 KB (120,000 of them are some 260 MB): one upload, one batch,
one download. Prints how long each step took, whether the output has every line once and in the file's order,
and the peak memory of each process, as a ratio to the one with 12,000 lines of the same size.
"""

from __future__ import annotations

import argparse
import json
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import IO, Any

import openai

from benchmarks import memory

_MODELS = ("gpt-5-mini", "gpt-4.1-mini", "gpt-5-nano")
_SAY = sys.stdout.write


def _write(file: IO[bytes], count: int, text_bytes: int) -> None:
    text = ("All happy families are alike. " * (text_bytes // 30 + 1))[:text_bytes]
    for number in range(count):
        body = {"model": _MODELS[number % 3], "input": f"{number}: {text}"}
        line = {
            "custom_id": f"line-{number}",
            "method": "POST",
            "url": "/v1/responses",
            "body": body,
        }
        file.write(json.dumps(line).encode() + b"\n")
    file.flush()


class Clock:
    """Tells how long each step took."""

    def __init__(self) -> None:
        self._began = self._last = time.monotonic()

    def say(self, what: str) -> None:
        """Print a step that just ended."""
        now = time.monotonic()
        _SAY(f"{now - self._began:7.1f} s  {what} ({now - self._last:.1f} s)\n")
        sys.stdout.flush()
        self._last = now


def drive(options: argparse.Namespace) -> int:
    """Run the drive; returns 0 when every line came back once and in order."""
    client = openai.OpenAI(base_url=f"{options.url}/v1", api_key=options.key, timeout=600)
    with tempfile.NamedTemporaryFile(suffix=".jsonl") as file:
        _write(file, options.count, options.text_bytes)
        megabytes = Path(file.name).stat().st_size / 1e6
        clock = Clock()
        sent = client.files.create(file=Path(file.name), purpose="batch")
        clock.say(f"uploaded {options.count:,} lines, {megabytes:.0f} MB")
    batch = client.batches.create(
        input_file_id=sent.id, endpoint="/v1/responses", completion_window="24h"
    )
    clock.say("created")
    batch = _followed(client, batch, clock, options.seconds)
    if batch.status != "completed":
        _SAY(f"the batch is {batch.status}: {batch.request_counts}\n")
        return 1
    with client.files.with_streaming_response.content(batch.output_file_id) as answer:
        came = list(_custom_ids(answer.iter_bytes(1024 * 1024)))
    clock.say("downloaded")
    is_right = came == [f"line-{number}" for number in range(options.count)]
    _SAY(f"{len(came):,} of {options.count:,} lines, {'all' if is_right else 'NOT'} in order;")
    _SAY(f" {batch.request_counts.failed:,} failed\n")
    return 0 if is_right else 1


def _followed(client: openai.OpenAI, batch: Any, clock: Clock, seconds: float) -> Any:
    """Ask how the batch is until it has ended."""
    until, status = time.monotonic() + seconds, batch.status
    while time.monotonic() < until and status not in ("completed", "failed", "cancelled"):
        time.sleep(1)
        batch = client.batches.retrieve(batch.id)
        if batch.status != status:
            status = batch.status
            clock.say(f"{status}: {batch.request_counts}")
    return batch


def _custom_ids(pieces: Iterator[bytes]) -> Iterator[str]:
    held = b""
    for piece in pieces:
        *lines, held = (held + piece).split(b"\n")
        yield from (json.loads(line)["custom_id"] for line in lines)
    if held:
        yield json.loads(held)["custom_id"]


def main() -> None:
    """Read the command line and drive."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n", 1)[0])
    parser.add_argument("--url", default="http://127.0.0.1:8000")
    parser.add_argument("--key", required=True)
    parser.add_argument("--count", type=int, default=120_000)
    parser.add_argument("--text-bytes", type=int, default=2_050, help="length of each prompt")
    parser.add_argument("--seconds", type=float, default=3_600, help="give up after so long")
    memory.add_options(parser)
    sys.exit(memory.measured(drive, parser.parse_args()))


if __name__ == "__main__":
    main()
