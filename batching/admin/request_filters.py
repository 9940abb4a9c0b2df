"""The filters of the list of requests, and what a list that they narrowed means to a replay.

An index serves each of them. ``which_listed`` turns a list's address into the filter of a replay; what it can't
say exactly it refuses, so that never more is sent again than was seen.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

import msgspec
from django.db.models import Count, Max, Min
from django.utils import timezone
from unfold.contrib.filters.admin import DropdownFilter, TextFilter

from batching.admin import searching
from batching.admin.keyset import PLACE
from batching.models import Batch, Destination, Project, Request, Submission
from batching.models.requests import GIVEN_UP
from batching.steering import Refused
from delivery import standing
from delivery.redelivery import ENDED
from delivery.replays import NO_CAUSE, Which

if TYPE_CHECKING:
    from collections.abc import Mapping

    from django.db.models import Q, QuerySet
    from django.http import HttpRequest

_KEY_LENGTH: Final = 36
_STATUS_DIGITS: Final = 3
_MOST_NAMED: Final = 100
"""Batches or submissions that the beginning of a key may mean."""
_PLACE_OF_LIST: Final = frozenset({"p", "all", "o", "_changelist_filters", *PLACE})
"""Parameters of a list's address that say where one looks, not what is listed."""


def _some(rows: QuerySet[Any], named: Q | None) -> list[int]:
    """Return the numbers of the rows that are named: told apart, so that the index leads and nothing is joined."""
    return (
        [] if named is None else list(rows.filter(named).values_list("pk", flat=True)[:_MOST_NAMED])
    )


class BatchFilter(TextFilter):  # type: ignore[misc]  # the theme carries no types
    """Requests of one batch, by its number or key."""

    title = "batch (number or key)"
    parameter_name = "batch"

    def queryset(self, request: HttpRequest, queryset: QuerySet[Request]) -> QuerySet[Request]:
        """Keep the requests of the batch that was named; none when it is no batch's name."""
        term = (self.value() or "").strip()
        if not term:
            return queryset
        named = searching.number_is(term) or searching.key_is(term, "bat")
        return _of_batches(queryset, _some(Batch.objects.all(), named))


def _of_batches(rows: QuerySet[Request], batches: list[int]) -> QuerySet[Request]:
    """Keep the requests of these batches; of a single one, say between which ids they are as well.

    Else PostgreSQL, asked for the newest few, may walk down the primary key until it comes to an old batch. The
    count keeps it from doing the same for the highest id.
    """
    rows = rows.filter(batch_id__in=batches)
    if len(batches) != 1:
        return rows
    ids = Request.objects.filter(batch_id=batches[0]).order_by()
    ends = ids.aggregate(low=Min("pk"), high=Max("pk"), count=Count("pk"))
    return rows.filter(pk__gte=ends["low"], pk__lte=ends["high"]) if ends["count"] else rows


class SubmissionFilter(TextFilter):  # type: ignore[misc]  # the theme carries no types
    """Requests of one submission, by its key."""

    title = "submission (key)"
    parameter_name = "submission"

    def queryset(self, request: HttpRequest, queryset: QuerySet[Request]) -> QuerySet[Request]:
        """Keep the requests of the submission that was named."""
        term = (self.value() or "").strip()
        if not term:
            return queryset
        named = searching.key_is(term, "sub")
        found = _some(Submission.objects.all(), named)
        rows = queryset.filter(submission_id__in=found)
        if len(found) != 1:
            return rows
        low, high = Request.objects.span_of_submission(found[0])  # as of a batch, below
        return rows.filter(pk__gte=low, pk__lte=high)


class GivenUpFilter(TextFilter):  # type: ignore[misc]  # the theme carries no types
    """Requests whose delivery to one destination was given up."""

    title = "given up at (destination's key or name)"
    parameter_name = "given_up_at"

    def queryset(self, request: HttpRequest, queryset: QuerySet[Request]) -> QuerySet[Request]:
        """Keep the dead letters of the destination that was named."""
        term = (self.value() or "").strip()
        if not term:
            return queryset
        named = searching.key_is(term, "dst", "key")
        places = (
            Destination.objects.filter(named) if named else Destination.objects.filter(name=term)
        )
        ids = list(places.values_list("pk", flat=True))
        return queryset.filter(GIVEN_UP, destination_id__in=ids)


class DueFilter(DropdownFilter):  # type: ignore[misc]  # the theme carries no types
    """Requests whose result is to be sent, or was given up."""

    title = "delivery"
    parameter_name = "due"

    def lookups(self, request: HttpRequest, model_admin: object) -> list[tuple[str, str]]:
        """Offer what the indexes on due and dead ones serve."""
        return [
            ("now", "due now"),
            ("later", "due later"),
            ("never", "given up"),
            ("discarded", "given up, and discarded"),
        ]

    def queryset(self, request: HttpRequest, queryset: QuerySet[Request]) -> QuerySet[Request]:
        """Keep the requests that are due at that time."""
        if self.value() == "now":
            return queryset.filter(due_at__lte=timezone.now())
        if self.value() == "later":
            return queryset.filter(due_at__gt=timezone.now())
        if self.value() == "never":
            return queryset.filter(GIVEN_UP)
        if self.value() == "discarded":
            return queryset.filter(discarded_at__isnull=False)
        return queryset


class CauseFilter(TextFilter):  # type: ignore[misc]  # the theme carries no types
    """Requests whose delivery was given up for one cause."""

    title = "given up because (timeout, http_status:503)"
    parameter_name = "given_up_because"

    def queryset(self, request: HttpRequest, queryset: QuerySet[Request]) -> QuerySet[Request]:
        """Keep the dead letters whose last try ended so; ``unknown``: whose attempts are not kept any more."""
        term = (self.value() or "").strip()
        if not term:
            return queryset
        outcome, _, status = term.partition(":")
        if status and not (status.isdecimal() and len(status) <= _STATUS_DIGITS):
            return queryset.none()
        outcome = "" if outcome == NO_CAUSE else outcome
        stored = standing.stored_cause(outcome, int(status) if status else None)
        return queryset.filter(GIVEN_UP, dead_cause=stored)


def given_up_because(cause: standing.Cause) -> str:
    """Return the term that CauseFilter takes for this cause."""
    status = "" if cause.status is None else f":{cause.status}"
    return f"{cause.outcome or NO_CAUSE}{status}"


@dataclass(frozen=True, kw_only=True)
class Listed:
    """What a list of requests shows, as a replay understands it."""

    which: Which
    project: Project | None
    """None: of every project."""
    only_failed: bool
    """The list shows nothing but what was given up."""


def which_listed(asked: Mapping[str, str]) -> Listed:
    """Return what the list with these parameters shows. Refused when a replay can't mean just that."""
    given = {name: term.strip() for name, term in asked.items() if name not in _PLACE_OF_LIST}
    given = {name: term for name, term in given.items() if term}
    project = _project(given.pop("project__id__exact", ""))
    is_dead = _is_given_up(given.pop("due", ""))
    place, cause = given.pop("given_up_at", ""), given.pop("given_up_because", "")
    members: dict[str, str] = {
        **_searched(given.pop("q", ""), project),
        **_state(given.pop("state__exact", "")),
        **_batch(given.pop("batch", "")),
        **_whole_key("submission", "sub", given.pop("submission", "")),
        **({"destination": place} if place else {}),
        **({"cause": cause} if cause else {}),
        **_named(given, "destination", "model"),
    }
    if given:
        raise Refused("unknown_filter", f"the list is narrowed by {', '.join(sorted(given))} too")
    try:
        which = msgspec.convert(members, Which)
    except msgspec.ValidationError as problem:
        raise Refused("unknown_filter", str(problem)) from problem
    return Listed(which=which, project=project, only_failed=is_dead or bool(place or cause))


def _project(term: str) -> Project | None:
    if not term:
        return None
    number = searching.number_is(term)
    found = Project.objects.filter(number).first() if number is not None else None
    if found is None:
        raise Refused("unknown_project", f"there is no project {term}")
    return found


def _is_given_up(term: str) -> bool:
    if term in ("now", "later"):
        raise Refused("nothing_to_do", "what is due is sent by itself")
    if term == "discarded":
        raise Refused("unknown_filter", "take back first what was discarded")
    return term == "never"


def _state(term: str) -> dict[str, str]:
    if term and term not in ENDED:
        raise Refused("nothing_to_do", f"a request that is {term} has no result to be sent again")
    return {"state": term} if term else {}


def _batch(term: str) -> dict[str, str]:
    number = searching.number_is(term)
    if term and number is not None:
        key = Batch.objects.filter(number).values_list("key", flat=True).first()
        if key is None:
            raise Refused("unknown_batch", f"there is no batch {term}")
        return {"batch": key}
    return _whole_key("batch", "bat", term)


def _named(given: dict[str, str], *members: str) -> dict[str, str]:
    """Take out of ``given`` what a replay names as the list does; ``none`` is no destination."""
    named = [member for member in members if given.get(member, "none") != "none"]
    return {member: given.pop(member) for member in named}


def _whole_key(member: str, prefix: str, term: str) -> dict[str, str]:
    """Take a key; the list takes the beginning of one for all that begin so."""
    if term and (not term.startswith(f"{prefix}_") or len(term) != _KEY_LENGTH):
        raise Refused("unknown_filter", f"name the {member} by its whole key ({prefix}_…)")
    return {member: term} if term else {}


def _searched(term: str, project: Project | None) -> dict[str, str]:
    """Take what was searched for as the list does: a key, a custom_id, or the beginning of one."""
    if not term:
        return {}
    named = searching.key_is(term, "req")
    if named is not None and Request.objects.filter(named).exists():
        raise Refused("unknown_filter", "one request is redelivered on its own page")
    if not term.endswith("*"):
        return {"custom_id": term}
    if term == "*":
        return {}
    return {"q": term[:-1]}


__all__ = [
    "BatchFilter", "CauseFilter", "DueFilter", "GivenUpFilter", "Listed", "SubmissionFilter", "given_up_because",
    "which_listed",
]  # fmt: skip
