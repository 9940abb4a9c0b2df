"""Every fault the sandbox knows: the rules a scenario is made of.

The types below are the format of ``rules`` in a scenario; whatever they don't know is refused by
name. Which rule strikes when is decided in rules.py; what then happens, in calls.py (calls), in
lifecycle.py and objects.py (batches) and in results.py (lines).
"""

from __future__ import annotations

from typing import Annotated, Any, ClassVar, Literal

import msgspec

Seconds = Annotated[float, msgspec.Meta(ge=0)]
Share = Annotated[float, msgspec.Meta(ge=0, le=1)]
Ordinal = Annotated[int, msgspec.Meta(ge=1)]
Quantity = Annotated[int, msgspec.Meta(ge=0)]


class Match(
    msgspec.Struct, kw_only=True, frozen=True, forbid_unknown_fields=True, omit_defaults=True
):
    """What a rule strikes. All members given must fit; none given fits everything."""

    route: str | list[str] | None = None
    """Call, such as ``batches.create`` or ``files.*``."""
    model: str | None = None
    """Model as sent, ``*`` and ``?`` allowed."""
    endpoint: str | None = None
    """Such as ``/v1/responses``."""
    metadata: dict[str, str] | None = None
    """Pairs that the batch's metadata must hold."""
    custom_id: str | None = None
    """Regular expression, found anywhere in the line's custom_id."""
    body: str | None = None
    """Regular expression, found anywhere in the raw JSON of the body."""
    line: Ordinal | list[Ordinal] | None = None
    """Number of the input line, from 1."""
    nth: Ordinal | list[Ordinal] | None = None
    """Only the nth time that the rest fits, from 1."""
    every: Ordinal | None = None
    """Only each nth time that the rest fits."""


class Rule(
    msgspec.Struct, kw_only=True, frozen=True, tag_field="fault", forbid_unknown_fields=True
):
    """What all rules have in common."""

    match: Match = Match()
    times: Quantity | None = None
    """How often it strikes at most; without it, always."""
    rate: Share = 1.0
    """Share of what fits that is struck, seeded."""


class CallRule(Rule, kw_only=True, frozen=True):
    """Strikes one HTTP call; the first that fits wins."""

    only: ClassVar[tuple[str, ...]] = ()
    """The calls that this fault makes sense for; empty for all."""


class BatchRule(Rule, kw_only=True, frozen=True):
    """Strikes one batch, drawn when it is created; the first of each fault wins."""


class LineRule(Rule, kw_only=True, frozen=True):
    """Strikes one line of a batch; all that fit are applied, in their order."""


# --- calls ---------------------------------------------------------------------------------------


class RateLimit(CallRule, kw_only=True, frozen=True, tag="rate_limit"):
    """429, with Retry-After when ``retry_after_s`` is given."""

    retry_after_s: Seconds | None = 1.0
    code: str = "rate_limit_exceeded"
    message: str = "Rate limit reached (sandbox)."


class HttpError(CallRule, kw_only=True, frozen=True, tag="http_error"):
    """Any status, with a JSON error, a proxy's HTML page, an empty or a broken body."""

    status: Annotated[int, msgspec.Meta(ge=200, le=599)] = 500
    style: Literal["json", "html", "empty", "malformed"] = "json"
    message: str = "The server had an error while processing your request."
    error_type: str = "server_error"
    code: str | None = None
    param: str | None = None
    retry_after_s: Seconds | None = None
    after_effect: bool = False
    """Do what was asked first, and say no all the same."""


class TokenLimitAtCreation(CallRule, kw_only=True, frozen=True, tag="token_limit_at_creation"):
    """``POST /v1/batches`` answers 400 token_limit_exceeded at once."""

    only: ClassVar[tuple[str, ...]] = ("batches.create",)


class Hang(CallRule, kw_only=True, frozen=True, tag="hang"):
    """Say nothing for real seconds, then answer or drop the connection."""

    seconds: Seconds = 60.0
    then: Literal["answer", "drop"] = "drop"
    after_effect: bool = False
    """Do what was asked before hanging."""


class DropConnection(CallRule, kw_only=True, frozen=True, tag="drop_connection"):
    """Close the connection without a reply, after doing what was asked (or before)."""

    after_effect: bool = True


class TruncateDownload(CallRule, kw_only=True, frozen=True, tag="truncate_download"):
    """Send fewer bytes of a file's content than Content-Length says."""

    only: ClassVar[tuple[str, ...]] = ("files.content", "messages.batches.results")
    keep: Share = 0.5
    """Share of the bytes that is sent."""


# --- batches -------------------------------------------------------------------------------------


class Expire(BatchRule, kw_only=True, frozen=True, tag="expire"):
    """End as expired with this many lines answered, without waiting for the window's end."""

    after_answers: Quantity = 0


class CancelByProvider(BatchRule, kw_only=True, frozen=True, tag="cancel_by_provider"):
    """End as cancelled though nobody asked, with this many lines answered."""

    after_answers: Quantity = 0


class FailValidation(BatchRule, kw_only=True, frozen=True, tag="fail_validation"):
    """End as failed with this entry in ``errors``."""

    code: str = "invalid_request"
    message: str = "The batch was refused (sandbox)."
    param: str | None = None
    line: int | None = None


class TokenLimitExceeded(BatchRule, kw_only=True, frozen=True, tag="token_limit_exceeded"):
    """End as failed because the model's queue of tokens is full."""

    limit: Quantity = 2_000_000


class Slow(BatchRule, kw_only=True, frozen=True, tag="slow"):
    """Other durations for this batch; whatever is not given stays."""

    validating_s: Seconds | None = None
    in_progress_s: Seconds | None = None
    finalizing_s: Seconds | None = None
    cancelling_s: Seconds | None = None


class ListLag(BatchRule, kw_only=True, frozen=True, tag="list_lag"):
    """Show the batch in ``GET /v1/batches`` only after a while; by id it is there at once."""

    seconds: Seconds = 5.0


class UnknownStatus(BatchRule, kw_only=True, frozen=True, tag="unknown_status"):
    """Show a word nobody knows in place of a status."""

    status: str = "pondering"
    during: str = "in_progress"


class NoOutput(BatchRule, kw_only=True, frozen=True, tag="no_output"):
    """Completed, counts and all, with neither output nor error file."""


class NoBatchUsage(BatchRule, kw_only=True, frozen=True, tag="no_batch_usage"):
    """Never show the batch's own usage."""


class BadCounts(BatchRule, kw_only=True, frozen=True, tag="bad_counts"):
    """Show anything at all as request_counts."""

    counts: Any = msgspec.field(
        default_factory=lambda: {"total": "nine", "completed": -1, "failed": None}
    )
    during: str | None = None
    """One status only; without it, always."""


# --- lines ---------------------------------------------------------------------------------------


class RefuseLine(LineRule, kw_only=True, frozen=True, tag="refuse_line"):
    """Validation stops at this line and the whole batch fails."""

    code: str = "invalid_request"
    message: str = "This line was refused (sandbox)."
    param: str | None = "body"
    is_named: bool = True
    """Say which line it was."""


class FailLine(LineRule, kw_only=True, frozen=True, tag="fail_line"):
    """Answer the line with an HTTP failure (or with a 200 that holds an error)."""

    status: int = 500
    message: str = "The server had an error while processing your request."
    error_type: str | None = None
    """Without it, by the status: server_error, rate_limit_error or invalid_request_error."""
    code: str | None = None
    param: str | None = None
    file: Literal["error", "output"] = "error"


class LineError(LineRule, kw_only=True, frozen=True, tag="line_error"):
    """Give the row a top-level ``error`` of any shape: an object, a string, a list."""

    error: Any = msgspec.field(
        default_factory=lambda: {"code": "request_timeout", "message": "Timed out (sandbox)."}
    )
    file: Literal["error", "output"] = "error"
    keep_response: bool = False
    """Leave the response in the row as well."""


class DropLine(LineRule, kw_only=True, frozen=True, tag="drop_line"):
    """Answered and counted, but in neither file."""


class DuplicateLine(LineRule, kw_only=True, frozen=True, tag="duplicate_line"):
    """Write the row twice; ``conflicting`` makes the second a failure."""

    conflicting: bool = False


class UnknownLine(LineRule, kw_only=True, frozen=True, tag="unknown_line"):
    """Add a row whose custom_id nobody sent."""

    custom_id: str = "nobody-sent-this"


class NoCustomId(LineRule, kw_only=True, frozen=True, tag="no_custom_id"):
    """Leave custom_id out of the row."""


class InvalidJson(LineRule, kw_only=True, frozen=True, tag="invalid_json"):
    """Cut the row in its middle, in its own place or as one more row."""

    instead: bool = False


class BlankLine(LineRule, kw_only=True, frozen=True, tag="blank_line"):
    """Add an empty line after the row."""


class CrlfEnding(LineRule, kw_only=True, frozen=True, tag="crlf_ending"):
    r"""End the row with ``\r\n``."""


class OddText(LineRule, kw_only=True, frozen=True, tag="odd_text"):
    """Put characters into the answer's text that careless readers break on."""

    kind: Literal["u2028", "nul", "lone_surrogate", "crlf", "all"] = "all"


class BigAnswer(LineRule, kw_only=True, frozen=True, tag="big_answer"):
    """Lengthen the answer's text by this many bytes."""

    size_bytes: Quantity = 1_000_000


class NoUsage(LineRule, kw_only=True, frozen=True, tag="no_usage"):
    """Leave usage out of the answer's body."""


AnyRule = (
    RateLimit | HttpError | TokenLimitAtCreation | Hang | DropConnection | TruncateDownload
    | Expire | CancelByProvider | FailValidation | TokenLimitExceeded | Slow | ListLag
    | UnknownStatus | NoOutput | NoBatchUsage | BadCounts
    | RefuseLine | FailLine | LineError | DropLine | DuplicateLine | UnknownLine | NoCustomId
    | InvalidJson | BlankLine | CrlfEnding | OddText | BigAnswer | NoUsage
)  # fmt: skip
