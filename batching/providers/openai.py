"""OpenAI's batch API and every server that speaks it: Groq, DeepInfra, DashScope, our sandbox.

Decides how OpenAI's objects become our values: the status table, counts, times and errors, with the
liberties that compatible servers take (Title-case statuses, ISO times, null counts; seen 2026-09).
Made by ``registry.provider_for``. It never retries and never decides what happens next.
"""

from __future__ import annotations

import logging
import re
from collections.abc import Iterator, Mapping
from datetime import datetime
from pathlib import Path
from typing import Any

import msgspec

from batching.providers import listing, openai_lines, tolerant
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
from batching.providers.http import Http, Timeouts, path_of

logger = logging.getLogger(__name__)

STATUSES: Mapping[str, Status] = {
    "validating": Status.VALIDATING,
    "inprogress": Status.IN_PROGRESS,
    "finalizing": Status.FINALIZING,
    "completed": Status.COMPLETED,
    "failed": Status.FAILED,
    "expired": Status.EXPIRED,
    "cancelling": Status.CANCELLING,
    "canceling": Status.CANCELLING,
    "cancelled": Status.CANCELLED,
    "canceled": Status.CANCELLED,
}
"""The provider's word, small letters only → ours. Any other word is Status.UNKNOWN."""

_BATCHES_PER_PAGE = 100
_FILES_PER_PAGE = 1000


class OpenAI:
    """One account at OpenAI or at a server that speaks its batch API.

    A server that differs in a point is a child that overrides that point.
    """

    # OpenAI API reference, 2026-11: 50,000 requests, 200 MB; nothing smaller is said of one line.
    limits = Limits(
        max_requests=50_000,
        max_bytes=200_000_000,
        max_line_bytes=200_000_000,
        max_creates_per_hour=2_000,
        endpoints=frozenset(
            {
                "/v1/responses",
                "/v1/chat/completions",
                "/v1/embeddings",
                "/v1/completions",
                "/v1/moderations",
                "/v1/images/generations",
                "/v1/images/edits",
                "/v1/videos",
            }
        ),
    )
    traits = Traits(
        tags_batches=True, answers_every_request=False, listed_at_once=_BATCHES_PER_PAGE
    )
    completion_window = "24h"

    def __init__(self, *, base_url: str, api_key: str, timeouts: Timeouts | None = None) -> None:
        self._http = Http(
            base_url,
            headers=self.auth_headers(api_key) if api_key else {},
            secret=api_key,
            timeouts=timeouts or Timeouts(),
        )

    @staticmethod
    def auth_headers(api_key: str) -> dict[str, str]:
        """Return the headers that carry the key."""
        return {"Authorization": f"Bearer {api_key}"}

    def check(self) -> None:
        """Ask for the list of models, which every key may read."""
        self._http.get("/models")

    def upload(self, path: Path, *, filename: str) -> RemoteFile:
        """Send the input file, read from disk while it is sent."""
        answer = self._http.post_file(
            "/files", path, filename=filename, fields={"purpose": "batch"}
        )
        return _file(answer, doubt=Trouble.UNKNOWN)

    def find_file(self, filename: str) -> RemoteFile | None:
        """Find the newest usable input file of that name."""
        asked = {"purpose": "batch", "order": "desc"}
        for page in listing.pages(
            self._http, "/files", cursor="after", per_page=_FILES_PER_PAGE, **asked
        ):
            found = [each for each in page if each.get("filename") == filename]
            found = [each for each in found if each.get("status") != "error"]
            if found:
                return _file(found[0], doubt=Trouble.RETRY)
        return None

    def create(self, *, source: Source, endpoint: str, metadata: Mapping[str, str]) -> RemoteBatch:
        """Start a batch; OpenAI takes no idempotency key here (its SDK 3.52 sends none)."""
        wanted = {
            "input_file_id": source.file_id,
            "endpoint": endpoint,
            "completion_window": self.completion_window,
            "metadata": dict(metadata),
        }
        return batch_of(self._http.post("/batches", wanted), doubt=Trouble.UNKNOWN)

    def retrieve(self, batch_id: str) -> RemoteBatch:
        """Show one batch."""
        return batch_of(self._http.get(path_of("batches", batch_id)), doubt=Trouble.RETRY)

    def list_batches(self, *, since: datetime) -> Iterator[RemoteBatch]:
        """Yield batches created at or after ``since``; a page of older ones only is the last one."""
        pages = listing.pages(self._http, "/batches", cursor="after", per_page=_BATCHES_PER_PAGE)
        return listing.recent(pages, since=since, read=_listed)

    def cancel(self, batch_id: str) -> RemoteBatch:
        """Ask to stop a batch; it goes on as cancelling for up to ten minutes."""
        return batch_of(
            self._http.post(path_of("batches", batch_id, "cancel")), doubt=Trouble.UNKNOWN
        )

    def download(self, file_id: str, *, into: Path) -> int:
        """Stream a file's content to ``into``."""
        return self._http.download(path_of("files", file_id, "content"), into=into)

    def delete_file(self, file_id: str) -> None:
        """Delete a file; safe to repeat."""
        try:
            self._http.delete(path_of("files", file_id))
        except NotFound:
            logger.debug("file was already gone", extra={"file_id": file_id})

    def ask(self, *, custom_id: str, endpoint: str, body: bytes) -> AnswerLine:
        """Ask the endpoint itself; the base URL has its ``/v1`` already."""
        answer = self._http.post_bytes(endpoint.removeprefix("/v1"), body)
        return openai_lines.read_answer(
            b'{"id":%b,"custom_id":%b,"response":{"status_code":200,"request_id":null,"body":%b},"error":null}'
            % (b'"direct"', msgspec.json.encode(custom_id), answer)
        )

    def render_line(self, *, custom_id: str, endpoint: str, body: bytes) -> bytes:
        """See openai_lines."""
        return openai_lines.render_line(custom_id=custom_id, endpoint=endpoint, body=body)

    def read_answers(self, path: Path) -> Iterator[AnswerLine]:
        """See openai_lines."""
        return openai_lines.read_answers(path)


def batch_of(value: object, *, doubt: Trouble) -> RemoteBatch:
    """Translate a batch object; ``doubt`` is the trouble when it cannot be one."""
    found = tolerant.mapping(value)
    batch_id = tolerant.key(found.get("id"))
    if batch_id is None:
        raise ProviderError("the answer holds no batch", trouble=doubt)
    word = tolerant.text(found.get("status"), limit=100)
    counts = tolerant.mapping(found.get("request_counts"))
    return RemoteBatch(
        id=batch_id,
        status=_status(word, batch_id),
        raw_status=word,
        input_file_id=tolerant.key(found.get("input_file_id")),
        output_file_id=tolerant.key(found.get("output_file_id")),
        error_file_id=tolerant.key(found.get("error_file_id")),
        counts=Counts(**{name: tolerant.count(counts.get(name)) for name in _COUNTS}),
        usage=openai_lines.usage_of(found.get("usage")),
        errors=tuple(_errors(found)),
        metadata=_metadata(found.get("metadata")),
        created_at=tolerant.moment(found.get("created_at")),
        expires_at=tolerant.moment(found.get("expires_at")),
        raw=found,
    )


def _listed(value: object) -> RemoteBatch:
    return batch_of(value, doubt=Trouble.RETRY)


_COUNTS = ("total", "completed", "failed")


def _status(word: str, batch_id: str) -> Status:
    status = STATUSES.get(re.sub("[^a-z]", "", word.lower()), Status.UNKNOWN)
    if status is Status.UNKNOWN:
        logger.warning(
            "unknown provider batch status", extra={"provider_batch": batch_id, "raw_status": word}
        )
    return status


def _errors(found: Mapping[str, Any]) -> Iterator[RemoteError]:
    """Yield the errors of a batch: a list object, a bare list, one object or one string."""
    given = found.get("errors") or found.get("error") or []
    if isinstance(given, dict) and isinstance(given.get("data"), list):
        given = given["data"]
    for each in given if isinstance(given, list) else [given]:
        if isinstance(each, str):
            yield RemoteError(message=tolerant.text(each))
        if isinstance(each, dict):
            yield RemoteError(
                code=tolerant.text(each.get("code"), limit=100),
                message=tolerant.text(each.get("message")),
                param=tolerant.text(each.get("param")) or None,
                line=tolerant.count(each.get("line")),
            )


def _metadata(value: object) -> Mapping[str, str]:
    return {name: each for name, each in tolerant.mapping(value).items() if isinstance(each, str)}


def _file(value: object, *, doubt: Trouble) -> RemoteFile:
    found = tolerant.mapping(value)
    file_id = tolerant.key(found.get("id"))
    if file_id is None:
        raise ProviderError("the answer holds no file", trouble=doubt)
    return RemoteFile(
        id=file_id,
        filename=tolerant.text(found.get("filename")),
        size_bytes=tolerant.count(found.get("bytes"), ceiling=2**53),
        expires_at=tolerant.moment(found.get("expires_at")),
    )
