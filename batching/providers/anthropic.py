"""Anthropic's Message Batches (anthropic SDK 2.11 and Anthropic's batch guide, 2026).

Decides how Anthropic's objects become our values. It takes no file: the requests are the body of the
call that creates the batch. It keeps nothing of ours on a batch, neither metadata nor a file's id, so
a batch whose creation is in doubt is told by size, time and answers: docs/decisions/0005. Made by
``registry.provider_for``. It never retries and never decides what happens next.
"""

from __future__ import annotations

import logging
from collections.abc import Iterator, Mapping
from datetime import datetime
from pathlib import Path
from typing import Any

import msgspec

from batching.providers import anthropic_lines, listing, tolerant
from batching.providers.base import (
    AnswerLine,
    Counts,
    Limits,
    NotFound,
    ProviderError,
    RemoteBatch,
    Source,
    Status,
    Traits,
    Trouble,
)
from batching.providers.http import Http, Timeouts, path_of

logger = logging.getLogger(__name__)

VERSION = "2023-06-01"
_BATCHES = "/v1/messages/batches"
_PER_PAGE = 1000
_RUNNING = {"in_progress": Status.IN_PROGRESS, "canceling": Status.CANCELLING}
_COUNTS = ("processing", "succeeded", "errored", "canceled", "expired")


class Anthropic:
    """One account (workspace) at Anthropic. Its base URL has no ``/v1``."""

    # Anthropic's batch guide, 2026: 100,000 requests or 256 MB, whichever comes first.
    limits = Limits(
        max_requests=100_000,
        max_bytes=256_000_000,
        max_line_bytes=256_000_000,
        endpoints=frozenset({"/v1/messages"}),
        # The lowest tier (Anthropic's rate-limit page, 2026); the operator sets a higher one.
        max_requests_in_flight=200_000,
    )
    traits = Traits(tags_batches=False, answers_every_request=True, listed_at_once=_PER_PAGE)

    def __init__(self, *, base_url: str, api_key: str, timeouts: Timeouts | None = None) -> None:
        key = {"x-api-key": api_key} if api_key else {}
        self._http = Http(
            base_url,
            headers={"anthropic-version": VERSION, **key},
            secret=api_key,
            timeouts=timeouts or Timeouts(),
        )

    def check(self) -> None:
        """Ask for one batch, which every key that may make them may see."""
        self._http.get(_BATCHES, params={"limit": 1})

    def create(self, *, source: Source, endpoint: str, metadata: Mapping[str, str]) -> RemoteBatch:
        """Start a batch with the lines on disk; there is no place for ``metadata``."""
        if source.path is None:
            raise ProviderError("there are no lines to send", trouble=Trouble.REFUSED)
        with anthropic_lines.Envelope(source.path) as body:
            answer = self._http.post_stream(_BATCHES, body)
        return batch_of(answer, doubt=Trouble.UNKNOWN)

    def retrieve(self, batch_id: str) -> RemoteBatch:
        """Show one batch."""
        return _listed(self._http.get(_BATCHES + path_of(batch_id)))

    def list_batches(self, *, since: datetime) -> Iterator[RemoteBatch]:
        """Yield batches created at or after ``since``, newest first."""
        pages = listing.pages(self._http, _BATCHES, cursor="after_id", per_page=_PER_PAGE)
        return listing.recent(pages, since=since, read=_listed)

    def cancel(self, batch_id: str) -> RemoteBatch:
        """Ask to stop a batch; what runs may still finish."""
        answer = self._http.post(_BATCHES + path_of(batch_id, "cancel"))
        return batch_of(answer, doubt=Trouble.UNKNOWN)

    def download(self, file_id: str, *, into: Path) -> int:
        """Stream the results of the batch of this id.

        Below our base URL, wherever ``results_url`` points: the key goes to no other host.
        """
        return self._http.download(_BATCHES + path_of(file_id, "results"), into=into)

    def delete_file(self, file_id: str) -> None:
        """Delete the batch of this id, which is how its results go; safe to repeat."""
        try:
            self._http.delete(_BATCHES + path_of(file_id))
        except NotFound:
            logger.debug("batch was already gone", extra={"provider_batch": file_id})

    def ask(self, *, custom_id: str, endpoint: str, body: bytes) -> AnswerLine:
        """Ask the endpoint itself."""
        answer = self._http.post_bytes(endpoint, body)
        return anthropic_lines.read_answer(
            b'{"custom_id":%b,"result":{"type":"succeeded","message":%b}}'
            % (msgspec.json.encode(custom_id), answer)
        )

    def render_line(self, *, custom_id: str, endpoint: str, body: bytes) -> bytes:
        """See anthropic_lines."""
        return anthropic_lines.render_line(custom_id=custom_id, body=body)

    def read_answers(self, path: Path) -> Iterator[AnswerLine]:
        """See anthropic_lines."""
        return anthropic_lines.read_answers(path)


def batch_of(value: object, *, doubt: Trouble) -> RemoteBatch:
    """Translate a MessageBatch; ``doubt`` is the trouble when it cannot be one.

    The id of its results is its own, once ``results_url`` is there.
    """
    found = tolerant.mapping(value)
    batch_id = tolerant.key(found.get("id"))
    if batch_id is None:
        raise ProviderError("the answer holds no batch", trouble=doubt)
    word = tolerant.text(found.get("processing_status"), limit=100)
    counts = tolerant.mapping(found.get("request_counts"))
    return RemoteBatch(
        id=batch_id,
        status=_status(word, counts, batch_id),
        raw_status=word,
        output_file_id=batch_id if tolerant.key(found.get("results_url")) else None,
        counts=_counted(counts),
        created_at=tolerant.moment(found.get("created_at")),
        expires_at=tolerant.moment(found.get("expires_at")),
        raw=found,
    )


def _listed(value: object) -> RemoteBatch:
    return batch_of(value, doubt=Trouble.RETRY)


def _status(word: str, counts: Mapping[str, Any], batch_id: str) -> Status:
    """Tell by the counts how a batch ended: Anthropic says only that it did."""
    if word == "ended":
        if tolerant.count(counts.get("expired")):
            return Status.EXPIRED
        return Status.CANCELLED if tolerant.count(counts.get("canceled")) else Status.COMPLETED
    status = _RUNNING.get(word, Status.UNKNOWN)
    if status is Status.UNKNOWN:
        logger.warning(
            "unknown provider batch status", extra={"provider_batch": batch_id, "raw_status": word}
        )
    return status


def _counted(counts: Mapping[str, Any]) -> Counts:
    """Return the counts; all of them together are the batch's size, at any time."""
    figures = [tolerant.count(counts.get(name)) for name in _COUNTS]
    known = [each for each in figures if each is not None]
    return Counts(
        total=sum(known) if len(known) == len(_COUNTS) else None,
        completed=tolerant.count(counts.get("succeeded")),
        failed=tolerant.count(counts.get("errored")),
    )
