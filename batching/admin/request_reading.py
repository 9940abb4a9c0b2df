"""Which filters of the list of requests an index serves, newest first; and filters by lane and by time.

``requests`` names these; `keyset` reads what is not served in windows of ids. A time range becomes a span of ids:
ids rise with time, but for uploads that take a while to be stored.
"""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Any, Final, cast

from django.core.exceptions import PermissionDenied
from django.db.models import Q
from django.http import HttpResponse, HttpResponseRedirect
from django.template.response import TemplateResponse
from django.utils.dateparse import parse_datetime
from django.views.decorators.http import require_safe
from unfold.contrib.filters.admin import DropdownFilter, TextFilter
from unfold.contrib.filters.forms import SearchForm
from unfold.widgets import UnfoldAdminTextInputWidget

from batching.admin import keyset, searching, shown
from batching.admin.rows import MOST_COUNTED, ROWS_ALONE, count_up_to
from batching.lifecycle import BAD_ENDS, RequestState
from batching.models import Destination, Lane, Request, Submission

if TYPE_CHECKING:
    from collections.abc import Mapping

    from django.db.models import QuerySet
    from django.http import HttpRequest

    from batching.admin.keyset import Place
    from batching.admin.requests import RequestAdmin

FROM, TO = "from", "to"
_SERVED_ALONE: Final = frozenset(
    {"state__exact", "project__id__exact", "submission", "due", "given_up_at", "given_up_because"}
)
"""Filters that an index of their own serves in the list's order, or that mean few rows."""
_FEW: Final = frozenset({"delivered", "ended"})
"""Filters that mean the newest ten thousand rows at most, whatever stands beside them (`request_times`)."""
_SLOWEST_STORING: Final = timedelta(hours=1)
"""A row may have an id that was given out this long after its ``created_at``."""
_OUTCOMES: Final[dict[str, tuple[str, ...]]] = {
    "open": (RequestState.PENDING, RequestState.PROCESSING),
    "succeeded": (
        RequestState.PROCESSED, RequestState.DELIVERING, RequestState.DELIVERED, RequestState.DELIVERY_FAILED,
    ),
    **{str(end): (end,) for end in sorted(BAD_ENDS)},
}  # fmt: skip


def is_served(given: Mapping[str, str], query: str, rows: QuerySet[Request]) -> bool:
    """Return whether an index finds these rows newest first, or finds so few that sorting them is nothing."""
    if "batch" in given and searching.is_whole(given["batch"], "bat"):
        return True
    if _FEW & set(given):
        return True
    if query and not query.strip().endswith("*"):
        return True
    if query:
        return count_up_to(rows, MOST_COUNTED + 1) <= MOST_COUNTED if not given else False
    is_end = given.get("outcome") in {str(end) for end in BAD_ENDS}
    return len(given) <= 1 and (set(given) <= _SERVED_ALONE or is_end)


def span_of(given: Mapping[str, str], place: Place) -> tuple[int, int]:
    """Return the lowest and the highest id between which rows with these filters can be."""
    low, high = 1, place.top
    if key := given.get("submission"):
        ends = [Request.objects.span_of_submission(pk) for pk in _submissions(key)]
        low = min((first for first, _ in ends), default=1)
        high = min(high, max((last for _, last in ends), default=0))
    begin, end = moment_in(given.get(FROM, "")), moment_in(given.get(TO, ""))
    if low == 1:
        low = Request.objects.order_by("pk").values_list("pk", flat=True).first() or 1
    if begin:
        low = _first_since(begin - _SLOWEST_STORING, low, high)
    if end:
        high = min(high, _first_since(end + _SLOWEST_STORING, low, high))
    return low, high


@require_safe
def new_view(request: HttpRequest, request_admin: RequestAdmin) -> HttpResponse:
    """Tell how many requests came since the list at this address was opened; to anyone but htmx, show them."""
    if not request_admin.has_view_permission(request):
        raise PermissionDenied
    refresh = f"?{_without_place(request)}"
    if not getattr(request, "htmx", False):
        return HttpResponseRedirect(f"{shown.list_of('batching.request')}{refresh}")
    query = f"?{request.GET.urlencode()}"
    top = keyset.Place.of(request.GET.dict(), 0).top
    request.META[ROWS_ALONE] = True
    rows = request_admin.get_changelist_instance(request).queryset
    counted = keyset.count_new(rows, top)
    count = f"{keyset.MOST_NEW:,}+" if counted > keyset.MOST_NEW else f"{counted:,}"
    context = {"query": query, "refresh": refresh, "count": count if counted else ""}
    return TemplateResponse(request, "batcher/admin/_requests_new.html", context)


def _without_place(request: HttpRequest) -> str:
    given = request.GET.copy()
    for name in keyset.PLACE:
        given.pop(name, None)
    return given.urlencode()


def _submissions(key: str) -> list[int]:
    named = searching.key_is(key, "sub")
    return (
        []
        if named is None
        else list(Submission.objects.filter(named).values_list("pk", flat=True)[:100])
    )


def _first_since(moment: datetime, low: int, high: int) -> int:
    """Return about the first id whose row came at ``moment`` or later: halving, so some twenty looks at the key."""
    while low < high:
        middle = (low + high) // 2
        row = (
            Request.objects.filter(pk__gte=middle)
            .order_by("pk")
            .values_list("pk", "created_at")
            .first()
        )
        if row is None or row[0] > high or row[1] >= moment:
            high = middle
        else:
            low = row[0] + 1
    return low


def moment_in(text: str) -> datetime | None:
    """Return the moment that a form or an address names, UTC unless it says otherwise; None when it is none."""
    try:
        found = parse_datetime(text)
    except ValueError:
        return None
    return found.replace(tzinfo=UTC) if found and found.tzinfo is None else found


class _MomentForm(SearchForm):  # type: ignore[misc]  # the theme carries no types
    def __init__(self, name: str, label: str, *args: Any, **kwargs: Any) -> None:
        super().__init__(name, label, *args, **kwargs)
        self.fields[name].widget = UnfoldAdminTextInputWidget(attrs={"step": 1})
        self.fields[name].widget.input_type = "datetime-local"


class _TimeFilter(TextFilter):  # type: ignore[misc]  # the theme carries no types
    form_class = _MomentForm
    lookup = ""

    def value(self) -> str | None:
        """Return the moment as the form's input writes it, UTC; what is none as it came."""
        given: str | None = super().value()
        moment = moment_in((given or "").strip())
        return f"{moment.astimezone(UTC):%Y-%m-%dT%H:%M:%S}" if moment else given

    def queryset(self, request: HttpRequest, queryset: QuerySet[Request]) -> QuerySet[Request]:
        """Keep the requests that came then; none when the address names no moment."""
        term = (self.value() or "").strip()
        moment = moment_in(term)
        if not term:
            return queryset
        return queryset.filter(**{self.lookup: moment}) if moment else queryset.none()


class FromFilter(_TimeFilter):
    """Requests that came then or later."""

    title, parameter_name, lookup = "time of intake, from (UTC)", FROM, "created_at__gte"


class ToFilter(_TimeFilter):
    """Requests that came before then."""

    title, parameter_name, lookup = "time of intake, before (UTC)", TO, "created_at__lt"


class OutcomeFilter(DropdownFilter):  # type: ignore[misc]  # the theme carries no types
    """Requests by the word that their client is told."""

    title, parameter_name = "outcome", "outcome"

    def lookups(self, request: HttpRequest, model_admin: object) -> list[tuple[str, str]]:
        """Offer the client's words, and open."""
        return [(word, word) for word in _OUTCOMES]

    def queryset(self, request: HttpRequest, queryset: QuerySet[Request]) -> QuerySet[Request]:
        """Keep those with this outcome."""
        word = self.value()
        return queryset.filter(state__in=_OUTCOMES.get(word, ())) if word else queryset


class DestinationFilter(TextFilter):  # type: ignore[misc]  # the theme carries no types
    """What goes to one destination, told by its number: no join."""

    title, parameter_name = "destination (key or name; none: pulled)", "destination"

    def queryset(self, request: HttpRequest, queryset: QuerySet[Any]) -> QuerySet[Any]:
        """Keep what leads there by now."""
        term = (self.value() or "").strip()
        if not term:
            return queryset
        if term == "none":
            return queryset.filter(destination__isnull=True)
        named = searching.key_is(term, "dst", "key") or Q(name=term)
        ids = list(Destination.objects.filter(named).values_list("pk", flat=True)[:100])
        return queryset.filter(destination_id__in=ids)


def _lanes(request: HttpRequest) -> list[Lane]:
    """Return all lanes with their accounts, looked up once for all filters of a page."""
    if "batcher.lanes" not in request.META:
        rows = Lane.objects.select_related("account").order_by("model", "endpoint", "account__name")
        request.META["batcher.lanes"] = list(rows)
    return cast("list[Lane]", request.META["batcher.lanes"])


class _OfLanes(DropdownFilter):  # type: ignore[misc]  # the theme carries no types
    """Filters that mean some of the lanes, told by their numbers: no join."""

    def names(self, lane: Lane) -> tuple[str, str]:
        """Return the value that means this lane, and its words."""
        raise NotImplementedError

    def lookups(self, request: HttpRequest, model_admin: object) -> list[tuple[str, str]]:
        """Offer each once."""
        return sorted({self.names(lane) for lane in _lanes(request)}, key=lambda pair: pair[1])

    def queryset(self, request: HttpRequest, queryset: QuerySet[Request]) -> QuerySet[Request]:
        """Keep the requests of the lanes that are meant."""
        term = self.value()
        if not term:
            return queryset
        ids = [lane.pk for lane in _lanes(request) if self.names(lane)[0] == term]
        return queryset.filter(lane_id__in=ids)


class LaneFilter(_OfLanes):
    """Requests of one lane."""

    title, parameter_name = "lane", "lane"

    def names(self, lane: Lane) -> tuple[str, str]:
        """Its number; model, endpoint and account."""
        return str(lane.pk), str(lane)


class ModelFilter(_OfLanes):
    """Requests of one model."""

    title, parameter_name = "model", "model"

    def names(self, lane: Lane) -> tuple[str, str]:
        """Its model."""
        return lane.model, lane.model


class AccountFilter(_OfLanes):
    """Requests of one account."""

    title, parameter_name = "account", "account"

    def names(self, lane: Lane) -> tuple[str, str]:
        """Its account's number and name."""
        return str(lane.account_id), lane.account.name
