"""What Batcher asks of a provider: the Protocol, its values and its errors.

This file decides the words both sides use. A provider translates its wire format into these values
and nothing else; it never touches the database, retries a call, or decides what happens next.
How to write one: docs/adding-a-provider.md.
"""

from __future__ import annotations

import enum
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from datetime import datetime
from pathlib import Path
from typing import Any, Protocol, runtime_checkable


class Status(enum.StrEnum):
    """A provider batch's status in our words. The provider's own word is kept beside it."""

    VALIDATING = "validating"
    IN_PROGRESS = "in_progress"
    FINALIZING = "finalizing"
    COMPLETED = "completed"
    """Final; says nothing about how many requests succeeded."""
    FAILED = "failed"
    """Final; refused at validation, nothing was run and nothing is billed."""
    EXPIRED = "expired"
    """Final; finished requests have answers, the rest were not run."""
    CANCELLING = "cancelling"
    CANCELLED = "cancelled"
    """Final; finished requests have answers."""
    UNKNOWN = "unknown"
    """A word we do not know: treated as still running, shown and logged."""

    @property
    def is_final(self) -> bool:
        return self in _FINAL

    @property
    def may_be_cancelled(self) -> bool:
        """True while the provider works on it and nobody has stopped it."""
        return self in _WORKING


_WORKING = frozenset({Status.VALIDATING, Status.IN_PROGRESS})
_FINAL = frozenset({Status.COMPLETED, Status.FAILED, Status.EXPIRED, Status.CANCELLED})


class Kind(enum.StrEnum):
    """How one answer line is to be read."""

    SUCCEEDED = "succeeded"
    """A 2xx response without an error inside."""
    FAILED = "failed"
    """The provider ran it (or refused it) and says no."""
    NOT_RUN = "not_run"
    """It never ran (batch_expired, batch_cancelled, request_timeout): not billed, may be sent again."""
    MALFORMED = "malformed"
    """Not JSON, or without a usable custom_id: belongs to nobody."""


@dataclass(frozen=True, kw_only=True)
class Limits:
    """What one provider batch may hold. Checked at intake and packing."""

    max_requests: int
    max_bytes: int
    max_line_bytes: int
    """One line longer than this can never be sent."""
    endpoints: frozenset[str]
    """Request paths that the batch API takes, such as ``/v1/responses``."""
    max_creates_per_hour: int | None = None
    max_requests_in_flight: int | None = None
    """In all batches of an account together."""


@dataclass(frozen=True, kw_only=True)
class Traits:
    """In which points the APIs differ that whoever calls them must know."""

    tags_batches: bool
    """A batch shows what we wrote on it, or its input file, so that it is found again for certain. Where
    it does not, one is told from another by size, time and answers (docs/decisions/0005)."""
    answers_every_request: bool
    """However a batch ends, its answers have a line for each of its requests."""
    listed_at_once: int
    """Batches that one call of its listing shows; 0: it has none worth asking."""


@dataclass(frozen=True, kw_only=True)
class Source:
    """The requests of a new batch."""

    file_id: str = ""
    """The input file that the provider holds, where it takes files."""
    path: Path | None = None
    """The lines on our disk, where it does not."""


@dataclass(frozen=True, kw_only=True)
class Usage:
    """Tokens of one answer, or of a whole batch. Every field may be unknown."""

    input_tokens: int | None = None
    cached_tokens: int | None = None
    output_tokens: int | None = None
    reasoning_tokens: int | None = None
    written_tokens: int | None = None
    """Part of the input that went to a cache, where the provider bills that."""
    written_long_tokens: int | None = None
    """Part of those: kept for an hour, which costs more."""


@dataclass(frozen=True, kw_only=True)
class Counts:
    """The provider's progress figures; a missing or malformed one is None."""

    total: int | None = None
    completed: int | None = None
    failed: int | None = None


@dataclass(frozen=True, kw_only=True)
class RemoteError:
    """Why the provider refused a batch; ``line`` is 1-based."""

    code: str = ""
    message: str = ""
    param: str | None = None
    line: int | None = None


@dataclass(frozen=True, kw_only=True)
class RemoteFile:
    """A file that the provider holds."""

    id: str
    filename: str = ""
    size_bytes: int | None = None
    expires_at: datetime | None = None


@dataclass(frozen=True, kw_only=True)
class RemoteBatch:
    """A batch as the provider shows it. Everything but id and status is optional."""

    id: str
    status: Status
    raw_status: str
    """The provider's own word, as it came."""
    input_file_id: str | None = None
    output_file_id: str | None = None
    error_file_id: str | None = None
    counts: Counts = Counts()
    usage: Usage | None = None
    errors: tuple[RemoteError, ...] = ()
    metadata: Mapping[str, str] = field(default_factory=dict)
    created_at: datetime | None = None
    expires_at: datetime | None = None
    raw: Mapping[str, Any] = field(default_factory=dict)
    """The whole object as received, for the operator."""

    @property
    def is_queue_full(self) -> bool:
        """True when it was refused only because the provider's token queue is full."""
        return self.status is Status.FAILED and any(
            e.code == "token_limit_exceeded" for e in self.errors
        )

    @property
    def has_answers(self) -> bool:
        """True when it has ended and answers may be there: of a failed one only if it shows some."""
        if self.status is not Status.FAILED:
            return self.status.is_final
        ran = (self.counts.completed or 0) + (self.counts.failed or 0)  # Azure: an empty error file
        return self.output_file_id is not None or (self.error_file_id is not None and ran > 0)


@dataclass(frozen=True, kw_only=True)
class AnswerLine:
    """One line of an output or error file, read but not re-encoded."""

    kind: Kind
    raw: bytes
    """The line exactly as it came, without its newline."""
    custom_id: str | None = None
    """The id that we sent, None when the line is malformed."""
    status_code: int | None = None
    error_code: str = ""
    error_message: str = ""
    """Short, for people; at most 500 characters."""
    is_retryable: bool = False
    """True when the same request may succeed in another batch (server_error, rate limit, not run)."""
    usage: Usage | None = None


class Trouble(enum.StrEnum):
    """What a failed call tells about the effect it may have had."""

    RETRY = "retry"
    """Nothing happened, or nothing that the same call made again could spoil: it may work later
    (429, 5xx on a read or a deletion, refused connection)."""
    REFUSED = "refused"
    """Nothing happened and the same call will never work (4xx)."""
    CREDENTIALS = "credentials"
    """Nothing happened; the key is wrong, revoked or out of funds: a person is needed."""
    UNKNOWN = "unknown"
    """It may have happened: look before calling again (timeout, reset, 5xx on a call with effects)."""


class ProviderError(Exception):
    """A call to the provider failed.

    ``after_s`` is the provider's own wish (Retry-After) in seconds, ``status`` the HTTP status and
    ``code`` the provider's error code, each None or empty when there was none.
    """

    def __init__(
        self,
        message: str,
        *,
        trouble: Trouble,
        after_s: float | None = None,
        status: int | None = None,
        code: str = "",
    ) -> None:
        super().__init__(message)
        self.trouble = trouble
        self.after_s = after_s
        self.status = status
        self.code = code


class NotFound(ProviderError):
    """The provider does not know that file or batch."""

    def __init__(self, message: str, *, code: str = "") -> None:
        super().__init__(message, trouble=Trouble.REFUSED, status=404, code=code)


class QueueFull(ProviderError):
    """The provider's queue of enqueued tokens is full (token_limit_exceeded at creation)."""

    def __init__(
        self, message: str, *, status: int | None = None, after_s: float | None = None
    ) -> None:
        super().__init__(
            message,
            trouble=Trouble.RETRY,
            after_s=after_s,
            status=status,
            code="token_limit_exceeded",
        )


class Provider(Protocol):
    """One account at one provider. Every call has a deadline and is made exactly once.

    Each method but the two line functions raises ProviderError (or a child); besides it, only an
    OSError of the local disk passes through.
    """

    limits: Limits
    traits: Traits

    def check(self) -> None:
        """Ask the cheapest question that proves the key works."""

    def create(self, *, source: Source, endpoint: str, metadata: Mapping[str, str]) -> RemoteBatch:
        """Start a batch. This is the call that costs money: never repeat it blindly.

        Without files it sends the lines itself, streamed from disk; memory stays flat.
        """

    def retrieve(self, batch_id: str) -> RemoteBatch:
        """Show one batch. Raises NotFound."""

    def list_batches(self, *, since: datetime) -> Iterator[RemoteBatch]:
        """Yield batches created at or after ``since``, newest first, over all pages."""

    def cancel(self, batch_id: str) -> RemoteBatch:
        """Ask the provider to stop a batch. Raises NotFound."""

    def download(self, file_id: str, *, into: Path) -> int:
        """Stream a file's content to ``into``; returns its size in bytes.

        Raises ProviderError(RETRY) when fewer bytes came than were announced.
        """

    def delete_file(self, file_id: str) -> None:
        """Delete a file; one that is already gone is no error."""

    def render_line(self, *, custom_id: str, endpoint: str, body: bytes) -> bytes:
        r"""Return one input line ending in ``\n``; ``body`` is spliced in, never re-encoded."""

    def read_answers(self, path: Path) -> Iterator[AnswerLine]:
        r"""Yield every non-blank line of a downloaded file, split on ``\n`` bytes only."""


@runtime_checkable
class AnswersNow(Protocol):
    """A provider with an ordinary endpoint: one request, answered at once and at its full price."""

    def ask(self, *, custom_id: str, endpoint: str, body: bytes) -> AnswerLine:
        """Ask, and return the answer as a batch's output would tell it; ``body`` goes as it came.

        This costs money, and leaves no trace that could be looked for: never repeat it blindly.
        """


@runtime_checkable
class TakesFiles(Protocol):
    """A provider that is given the requests as a file first, and then makes a batch of it."""

    def upload(self, path: Path, *, filename: str) -> RemoteFile:
        """Send the input file from disk, streamed; memory stays flat."""

    def find_file(self, filename: str) -> RemoteFile | None:
        """Find an input file that we uploaded under this name, newest first."""
