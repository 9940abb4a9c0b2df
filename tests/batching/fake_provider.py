"""A provider in memory that does what its test scripted: the real Protocol, the real line formats, no wire."""

from __future__ import annotations

import dataclasses
import itertools
import json
from collections import defaultdict
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from datetime import datetime
from pathlib import Path

from batching.providers import openai_lines
from batching.providers.base import (
    AnswerLine,
    Counts,
    Limits,
    NotFound,
    ProviderError,
    RemoteBatch,
    RemoteError,
    RemoteFile,
    Source,
    Status,
    Traits,
    Trouble,
)
from batching.providers.registry import limits_for, traits_for
from tests.batching.rows import NOW


def trouble(kind: Trouble, message: str = "no luck", **facts) -> ProviderError:
    return ProviderError(message, trouble=kind, **facts)


@dataclass
class FakeProvider:
    """Holds files and batches; fails a call before or after its effect when told to."""

    limits: Limits = field(default_factory=lambda: limits_for("sandbox"))
    traits: Traits = field(default_factory=lambda: traits_for("sandbox"))
    files: dict[str, tuple[str, bytes]] = field(default_factory=dict)
    batches: dict[str, RemoteBatch] = field(default_factory=dict)
    calls: list[str] = field(default_factory=list)
    clock: datetime = NOW
    keeps_metadata: bool = True
    answers: dict[str, bytes] = field(default_factory=dict)
    """What it answers when it is asked directly, by our id; else something good."""
    hidden: set[str] = field(default_factory=set)
    """Batches that its listing leaves out."""
    _before: dict[str, list[BaseException]] = field(default_factory=lambda: defaultdict(list))
    _after: dict[str, list[BaseException]] = field(default_factory=lambda: defaultdict(list))
    _ids: Iterator[int] = field(default_factory=lambda: itertools.count(1))

    # What a test says.

    def refuse(self, call: str, error: BaseException, *, times: int = 1) -> None:
        """Raise ``error`` in place of the next calls of this name."""
        self._before[call] += [error] * times

    def break_after(self, call: str, error: BaseException) -> None:
        """Do the next call of this name, and raise ``error`` all the same."""
        self._after[call].append(error)

    def finish(self, batch_id: str, *, status: Status = Status.COMPLETED, **facts) -> None:
        """End a batch with ``output`` and ``errors``: lists of lines, each bytes."""
        for name in ("output", "errors"):
            lines = facts.pop(name, None)
            if lines is not None:
                file_id = self._keep(f"{name}.jsonl", b"".join(line + b"\n" for line in lines))
                facts[{"output": "output_file_id", "errors": "error_file_id"}[name]] = file_id
        self.say(batch_id, status=status, raw_status=facts.pop("raw_status", status.value), **facts)

    def say(self, batch_id: str, **facts) -> None:
        """Change what the provider shows of a batch."""
        self.batches[batch_id] = dataclasses.replace(self.batches[batch_id], **facts)

    def refuse_batch(self, batch_id: str, code: str) -> None:
        """Fail a batch at validation."""
        errors = (RemoteError(code=code, message="no"),)
        self.say(batch_id, status=Status.FAILED, raw_status="failed", errors=errors)

    def only_batch(self) -> RemoteBatch:
        (batch,) = self.batches.values()
        return batch

    def count(self, call: str) -> int:
        return self.calls.count(call)

    # What Batcher calls.

    def check(self) -> None:
        self._begin("check")

    def upload(self, path: Path, *, filename: str) -> RemoteFile:
        self._begin("upload")
        file_id = self._keep(filename, path.read_bytes())
        self._end("upload")
        return RemoteFile(id=file_id, filename=filename)

    def find_file(self, filename: str) -> RemoteFile | None:
        self._begin("find_file")
        found = [file_id for file_id, (name, _) in self.files.items() if name == filename]
        return RemoteFile(id=found[-1], filename=filename) if found else None

    def create(self, *, source: Source, endpoint: str, metadata: Mapping[str, str]) -> RemoteBatch:
        self._begin("create")
        batch = RemoteBatch(
            id=f"batch_{next(self._ids)}",
            status=Status.VALIDATING,
            raw_status="validating",
            input_file_id=source.file_id,
            metadata=dict(metadata) if self.keeps_metadata else {},
            created_at=self.clock,
        )
        self.batches[batch.id] = dataclasses.replace(batch, raw={"id": batch.id})
        self._end("create")
        return self.batches[batch.id]

    def retrieve(self, batch_id: str) -> RemoteBatch:
        self._begin("retrieve")
        return self._known(batch_id)

    def list_batches(self, *, since: datetime) -> Iterator[RemoteBatch]:
        self._begin("list_batches")
        shown = [b for b in reversed(self.batches.values()) if b.id not in self.hidden]
        yield from [b for b in shown if b.created_at >= since]

    def cancel(self, batch_id: str) -> RemoteBatch:
        self._begin("cancel")
        self._known(batch_id)
        self.say(batch_id, status=Status.CANCELLING, raw_status="cancelling")
        return self.batches[batch_id]

    def download(self, file_id: str, *, into: Path) -> int:
        self._begin("download")
        if file_id not in self.files:
            raise NotFound("no such file")
        return into.write_bytes(self.files[file_id][1])

    def delete_file(self, file_id: str) -> None:
        self._begin("delete_file")
        self.files.pop(file_id, None)

    def ask(self, *, custom_id: str, endpoint: str, body: bytes) -> AnswerLine:
        self._begin("ask")
        self._end("ask")
        return openai_lines.read_answer(self.answers.get(custom_id) or good(custom_id))

    def render_line(self, *, custom_id: str, endpoint: str, body: bytes) -> bytes:
        return openai_lines.render_line(custom_id=custom_id, endpoint=endpoint, body=body)

    def read_answers(self, path: Path) -> Iterator[AnswerLine]:
        return openai_lines.read_answers(path)

    def _known(self, batch_id: str) -> RemoteBatch:
        if batch_id not in self.batches:
            raise NotFound("no such batch")
        return self.batches[batch_id]

    def _keep(self, filename: str, content: bytes) -> str:
        file_id = f"file_{next(self._ids)}"
        self.files[file_id] = (filename, content)
        return file_id

    def _begin(self, call: str) -> None:
        self.calls.append(call)
        if self._before[call]:
            raise self._before[call].pop(0)

    def _end(self, call: str) -> None:
        if self._after[call]:
            raise self._after[call].pop(0)


def good(key: str, text: str = "yes") -> bytes:
    """Return an answer line of a request that went well."""
    usage = {"input_tokens": 3, "output_tokens": 5}
    body = {"output": text, "usage": usage}
    return _line(key, {"status_code": 200, "request_id": "r", "body": body}, None)


def bad(key: str, status: int = 400, code: str = "invalid_request") -> bytes:
    """Return an answer line of a request that the provider ran and refused."""
    body = {"error": {"code": code, "message": f"said {code}"}}
    return _line(key, {"status_code": status, "request_id": "r", "body": body}, None)


def broken(key: str) -> bytes:
    """Return an answer line of a request that may go well another time."""
    return bad(key, 500, "server_error")


def not_run(key: str, code: str = "batch_expired") -> bytes:
    """Return an answer line of a request that the provider never ran."""
    return _line(key, None, {"code": code, "message": "never ran"})


def _line(key: str, response: object, error: object) -> bytes:
    line = {"id": f"line-{key[-6:]}", "custom_id": key, "response": response, "error": error}
    return json.dumps(line, separators=(",", ":")).encode()


__all__ = ["Counts", "FakeProvider", "bad", "broken", "good", "not_run", "trouble"]
