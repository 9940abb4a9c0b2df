"""What a submission's page shows of its requests: how many stand where, how far that is, its files.

Few requests are counted at once. Many are counted in windows, for some seconds at most, once the page is there.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

from django.urls import reverse

from batching import walks
from batching.admin import shown
from batching.lifecycle import RequestState
from batching.models import ClientFile, Request, Submission

if TYPE_CHECKING:
    from collections.abc import Mapping

    from django.utils.safestring import SafeString

MOST_AT_ONCE: Final = 5_000
"""Requests that are counted while the page is made."""
_OPEN: Final = frozenset({RequestState.PENDING, RequestState.PROCESSING})


@dataclass(frozen=True, kw_only=True)
class Share:
    """Requests of a submission in one state."""

    state: str
    count: str
    url: str


@dataclass(frozen=True, kw_only=True)
class Standing:
    """How far a submission is."""

    shares: tuple[Share, ...]
    total: int
    ended: int
    is_all: bool
    """Off: counting took too long, and there are more."""

    @property
    def is_over(self) -> bool:
        """True when each of its requests has an end."""
        return self.is_all and self.ended == self.total


def standing_of(row: Submission) -> Standing:
    """Count a submission's requests by state."""
    rows = Request.objects.filter(submission=row)
    first, top = Request.objects.span_of_submission(row.pk)
    look = walks.look(rows, first=first, top=top)
    shares = tuple(
        Share(
            state=str(state),
            count=f"{look.by_state[state]:,}{'' if look.is_all else '+'}",
            url=shown.list_of("batching.request", submission=row.key, state__exact=str(state)),
        )
        for state in RequestState
        if look.by_state[state]
    )
    still_open = sum(look.by_state[state] for state in _OPEN)
    ended = look.matched - still_open
    return Standing(shares=shares, total=look.matched, ended=ended, is_all=look.is_all)


def is_final(row: Submission, standing: Standing) -> bool:
    """Return whether nothing more happens to a submission by itself."""
    if row.kind != Submission.Kind.UPLOAD:
        return row.is_final
    return row.finished_at is not None and standing.is_over


def surroundings(row: Submission, *, counts: bool) -> dict[str, Any]:
    """Return what the page's templates show; ``counts``: with the requests counted."""
    standing = standing_of(row) if counts else None
    final = standing is not None and is_final(row, standing)
    return {
        "row": row,
        "standing": standing,
        "is_final": final,
        "sentence": _sentence(row, standing),
        "facts": _facts(row),
        "files": _files(row),
        "requests_url": shown.list_of("batching.request", submission=row.key),
        "export_url": f"{reverse('admin:batching_request_export')}?submission={row.key}",
        "page": shown.page_of(row),
    }


def _sentence(row: Submission, standing: Standing | None) -> str:
    if row.failed_at:
        return "It was refused as a whole: none of its requests was taken."
    if row.kind == Submission.Kind.UPLOAD and row.finished_at is None:
        return "It is being read, or its upload broke off: what was stored before is under way all the same."
    if standing is None:
        return "Its requests are being counted."
    if not standing.total:
        return "None of its requests was new."
    if standing.is_over:
        return f"Each of its {standing.total:,} requests has an end."
    left = standing.total - standing.ended
    more = "" if standing.is_all else " at least"
    stop = (
        " Those that wait are being taken back." if row.cancelling_at and not row.is_final else ""
    )
    return f"{standing.ended:,} of{more} {standing.total:,} requests have an end, {left:,} are open.{stop}"


def _facts(row: Submission) -> list[tuple[str, SafeString | str]]:
    """Return its figures, with names."""
    stored, ended = row.finished_at or row.in_progress_at, row.ended_at
    return [
        ("Accepted", shown.number(row.accepted)),
        ("Duplicates", shown.number(row.duplicates)),
        ("Rejected", shown.number(row.rejected)),
        ("Came", shown.moment(row.created_at)),
        ("Stored within", shown.duration(stored - row.created_at) if stored else shown.NOTHING),
        ("Ended after", shown.duration(ended - row.created_at) if ended else shown.NOTHING),
    ]


def _files(row: Submission) -> list[Mapping[str, str]]:
    """Return its input and its output files: what each is, its name, size and page."""
    named = [("Input", row.input_file)] if row.input_file else []
    named += [
        (file.get_side_display().capitalize(), file)
        for file in ClientFile.objects.filter(submission=row)
    ]
    return [
        {
            "what": what,
            "name": str(file),
            "size": shown.size(file.size_bytes),
            "url": shown.page_of(file),
            "gone": "deleted" if file.deleted_at else "",
        }
        for what, file in named
    ]
