"""Short ways to drive a sandbox through the official SDK: upload, run to the end, read the rows."""

from __future__ import annotations

import json
import threading
import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Any, TypeVar

from openai import OpenAI
from openai.types import Batch

T = TypeVar("T")
CHAT = "/v1/chat/completions"
FINAL = {"completed", "failed", "expired", "cancelled"}


def chat_line(custom_id: str, text: str = "Say hi", **body: Any) -> dict[str, Any]:
    messages = [{"role": "user", "content": text}]
    return line(custom_id, CHAT, {"model": "gpt-4o-mini", "messages": messages, **body})


def line(custom_id: str, url: str, body: dict[str, Any]) -> dict[str, Any]:
    return {"custom_id": custom_id, "method": "POST", "url": url, "body": body}


def chat_lines(count: int) -> list[dict[str, Any]]:
    return [chat_line(f"row-{number}", f"Say {number}") for number in range(1, count + 1)]


def jsonl(lines: Iterable[dict[str, Any] | bytes]) -> bytes:
    encoded = (part if isinstance(part, bytes) else json.dumps(part).encode() for part in lines)
    return b"\n".join(encoded) + b"\n"


def until(question: Callable[[], T | None], *, timeout: float = 60) -> T:
    """Return the first true answer, asking again and again until the deadline."""
    deadline, pause = time.monotonic() + timeout, threading.Event()
    while time.monotonic() < deadline:
        if answer := question():
            return answer
        pause.wait(0.01)
    raise AssertionError(f"not within {timeout} s")


@dataclass(frozen=True)
class Driver:
    """Drives one sandbox."""

    client: OpenAI

    def upload(self, lines: Iterable[dict[str, Any] | bytes]) -> str:
        file = self.client.files.create(file=("in.jsonl", jsonl(lines)), purpose="batch")
        return file.id

    def create(
        self, lines: Iterable[dict[str, Any] | bytes], endpoint: str = CHAT, **more: Any
    ) -> Batch:
        more.setdefault("completion_window", "24h")
        file_id = self.upload(lines)
        return self.client.batches.create(input_file_id=file_id, endpoint=endpoint, **more)

    def run(
        self, lines: Iterable[dict[str, Any] | bytes], endpoint: str = CHAT, **more: Any
    ) -> Batch:
        return self.end(self.create(lines, endpoint, **more))

    def end(self, batch: Batch) -> Batch:
        """Return the batch once nothing happens to it any more."""

        def ended() -> Batch | None:
            found = self.client.batches.retrieve(batch.id)
            return found if found.status in FINAL else None

        return until(ended)

    def raw(self, file_id: str | None) -> bytes:
        return b"" if file_id is None else self.client.files.content(file_id).read()

    def rows(self, file_id: str | None) -> list[dict[str, Any]]:
        return [json.loads(row) for row in self.raw(file_id).split(b"\n") if row]

    def answers(self, batch: Batch) -> dict[str, dict[str, Any]]:
        """Return the output file's rows by custom_id."""
        return {row["custom_id"]: row for row in self.rows(batch.output_file_id)}
