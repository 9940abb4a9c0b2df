"""Sending many results again in the background: chosen by a filter, at a pace, with progress and a stop.

The API and the admin call ``start`` and ``stop``, the clock ``step_due``. A replay first counts what it means, once,
then makes those results due in chunks by rising request id. A chunk and the place that it reached are one
transaction under the replay's own lock, so a worker that dies in between leaves it exactly where it was, and no
replay sends a result twice. All work is bounded windows of ids: the size of the table costs time, never a long query.
What may be sent again is `redelivery`'s to say; sending is `dispatch`'s.
"""

from __future__ import annotations

import logging
import math
from collections.abc import Mapping
from datetime import datetime, timedelta
from typing import Annotated, Any, Final, Literal

import msgspec
from django.db import transaction
from django.db.models import Q, QuerySet
from msgspec import Meta

from batching import walks
from batching.lifecycle import Actor
from batching.models import Batch, Destination, Lane, Project, Request, Submission
from batching.steering import Refused
from delivery.models import Replay
from delivery.redelivery import ENDED, redeliver_chosen

logger = logging.getLogger(__name__)

SLOWEST: Final = 0.1
FASTEST: Final = 1_000.0
USUAL_PER_SECOND: Final = 50.0
MOST_RUNNING: Final = 20
"""Replays of one project at once; each costs every tick a little."""
_WINDOWS_AT_ONCE: Final = 5
"""Looked through for one chunk, so that few results in a big table do not take a tick each."""
_CHUNK_S: Final = 4.0
"""A chunk is what may go in this time, twice the clock's step; more is never caught up on."""
_MOST_AT_ONCE: Final = 1_000
NO_CAUSE: Final = "unknown"
"""How a filter says that nothing tells why."""

Text = Annotated[str, Meta(max_length=512)]
Moment = Annotated[datetime, Meta(tz=True)]


class Which(
    msgspec.Struct,
    frozen=True,
    kw_only=True,
    omit_defaults=True,
    forbid_unknown_fields=True,
    rename={"from_": "from"},
):
    """Which requests are meant: those that all members fit."""

    state: (
        Literal["processed", "delivered", "delivery_failed", "failed", "expired", "cancelled"]
        | None
    ) = None
    batch: Text | None = None
    """Key (`bat_…`)."""
    submission: Text | None = None
    """Key (`sub_…`)."""
    destination: Text | None = None
    """Key (`dst_…`) or name: where the request leads by now."""
    model: Text | None = None
    custom_id: Text | None = None
    q: Text | None = None
    """How the custom_id begins."""
    cause: Text | None = None
    """How the last try ended, of those that were given up: `timeout`, `http_status:503`; `unknown` when that is not known."""
    from_: Moment | None = None
    """Settled or given up then or later."""
    to: Moment | None = None
    """Settled or given up before then."""

    def __str__(self) -> str:
        members = {name: value for name, value in msgspec.to_builtins(self).items() if value}
        return ", ".join(f"{name} {value}" for name, value in members.items()) or "everything"


class Unknown(ValueError):
    """A filter names what is not there. ``member`` is the filter's, ``detail`` for people."""

    def __init__(self, member: str, detail: str) -> None:
        super().__init__(detail)
        self.member, self.detail = member, detail


def which_of(replay: Replay) -> Which:
    """Return a replay's filter."""
    return msgspec.convert(replay.filter, Which)


def matching(which: Which, *, project: Project | None, only_failed: bool) -> QuerySet[Request]:
    """Return the ended requests with a destination that a filter means. Raises Unknown.

    ``only_failed``: of them those whose delivery was given up.
    """
    for member, value in msgspec.to_builtins(which).items():
        if "\0" in value:
            raise Unknown(member, f"{member} must not hold NUL")
    rows = Request.objects.filter(destination__isnull=False, state__in=ENDED)
    rows = rows.filter(**_named(which, project))
    if project is not None:
        rows = rows.filter(project=project)
    if only_failed or which.cause:
        rows = rows.given_up()
    if which.q:
        rows = rows.custom_id_begins(which.q)
    span = {"gte": which.from_, "lt": which.to}
    return rows.filter(_within("settled_at", span) | _within("dead_at", span))


def _within(field: str, span: Mapping[str, datetime | None]) -> Q:
    return Q(**{f"{field}__{bound}": moment for bound, moment in span.items() if moment})


def _named(which: Which, project: Project | None) -> dict[str, Any]:
    """Return the conditions that name rows, by their numbers: no join in any window. Raises Unknown."""
    found: dict[str, Any] = {}
    if which.state:
        found["state"] = which.state
    if which.cause:
        found["dead_cause"] = None if which.cause == NO_CAUSE else which.cause
    if which.custom_id:
        found["custom_id"] = which.custom_id
    if which.model:
        lanes = Lane.objects.filter(model=which.model)
        found["lane_id__in"] = _some(lanes, "model", which.model)
    if which.batch:
        batches = Batch.objects.of_project(project.pk) if project else Batch.objects.all()
        found["batch_id__in"] = _some(batches.filter(key=which.batch), "batch", which.batch)
    of_project = {"project": project} if project else {}
    if which.submission:
        submissions = Submission.objects.filter(key=which.submission, **of_project)
        found["submission_id__in"] = _some(submissions, "submission", which.submission)
    if which.destination:
        named = Q(key=which.destination) | Q(name=which.destination)
        places = Destination.objects.present().filter(named, **of_project)
        found["destination_id__in"] = _some(places, "destination", which.destination)
    return found


def _some(rows: QuerySet[Any], member: str, value: str) -> list[int]:
    """Return the numbers of these rows. Raises Unknown when there are none."""
    ids: list[int] = list(rows.values_list("pk", flat=True))
    if not ids:
        raise Unknown(member, f"there is no {member} {value!r}")
    return ids


def look(which: Which, *, project: Project | None, only_failed: bool) -> walks.Look[Request]:
    """Count what a filter means, window by window, for some seconds at most.

    Raises Unknown. Refused when everything ever delivered is asked for.
    """
    _demand_bounds(which, only_failed=only_failed)
    chosen = matching(which, project=project, only_failed=only_failed)
    first, top = _bounds(which, chosen, only_failed=only_failed)
    return walks.look(chosen.select_related("destination"), first=first, top=top)


def start(
    which: Which,
    *,
    project: Project | None,
    only_failed: bool,
    per_second: float,
    by: Actor,
    reason: str,
    now: datetime,
) -> Replay:
    """Order a replay; it begins with the clock's next tick. ``project`` None: requests of every project.

    Raises Unknown. Refused when everything ever delivered is asked for, and when enough replays run already.
    """
    _demand_bounds(which, only_failed=only_failed)
    chosen = matching(which, project=project, only_failed=only_failed)
    running = Replay.objects.filter(project=project, state=Replay.State.RUNNING)
    if running.count() >= MOST_RUNNING:
        detail = f"{MOST_RUNNING} replays run already; wait for one, or stop one"
        raise Refused("too_many_replays", detail)
    lowest, highest = _bounds(which, chosen, only_failed=only_failed)
    replay = Replay.objects.create(
        project=project,
        who=by.name,
        user_id=by.user_id,
        reason=reason[:300],
        filter=msgspec.to_builtins(which),
        only_failed=only_failed,
        per_second=per_second,
        first_id=lowest,
        top_id=highest,
        cursor=lowest - 1,
        next_step_at=now,
        created_at=now,
    )
    logger.info("replay started", extra={"replay": replay.key, "by": by.name})
    return replay


def _demand_bounds(which: Which, *, only_failed: bool) -> None:
    if not only_failed and which == Which():
        raise Refused(
            "filter_missing", "say which results: all that were ever delivered is too much"
        )


def facts_of(replay: Replay) -> dict[str, Any]:
    """Return what the audit log keeps of an order."""
    return {
        "filter": replay.filter,
        "only_failed": replay.only_failed,
        "per_second": replay.per_second,
    }


def _bounds(which: Which, chosen: QuerySet[Request], *, only_failed: bool) -> tuple[int, int]:
    """Return the lowest and highest request id to look at, as narrow as an index tells at once."""
    an_index_knows = which.batch or which.submission or (which.destination and only_failed)
    return walks.bounds(chosen) if an_index_knows else walks.bounds_of_all(Request)


def stop(replay: Replay, *, by: Actor, reason: str, now: datetime) -> Replay:
    """End a replay where it is; what it made due already is delivered. Refused when it has ended."""
    return walks.stop(replay, by=by, reason=reason, now=now)


def step_due(now: datetime) -> int:
    """Take chunks of the replays that are due, in turns, for some seconds; return how many results are due by that."""
    return walks.step_due(Replay.objects.due, _step, now=now, hopeless=(Unknown,))


def _step(replay: Replay, now: datetime) -> int:
    return _count(replay, now) if replay.matched is None else _send(replay.pk, now)


def _meant_by(replay: Replay) -> QuerySet[Request]:
    """Return what a replay means, as it was when it began: what was settled or given up since is not meant."""
    which = which_of(replay)
    rows = matching(which, project=replay.project, only_failed=replay.only_failed)
    began = replay.created_at
    return (
        rows.exclude(dead_at__gt=began)
        if replay.only_failed
        else rows.exclude(settled_at__gt=began)
    )


def _count(replay: Replay, now: datetime) -> int:
    """Count the next window. Two workers at once: the first one's figure stands."""
    window, end = walks.window_of(replay, _meant_by(replay))
    walks.note_counted(replay, window.count(), end=end, now=now)
    return 0


@transaction.atomic
def _send(pk: int, now: datetime) -> int:
    """Make the next chunk due and note how far that is, or neither; return how many."""
    rows = Replay.objects.due(now).select_for_update(skip_locked=True, of=("self",))
    replay = rows.filter(pk=pk, matched__isnull=False).first()
    if replay is None:
        return 0
    ids = _next_ids(replay)
    by = Actor(name=replay.who, user_id=replay.user_id)
    why = f"{replay.reason} [{replay.key}]"
    done = redeliver_chosen(ids, by=by, reason=why, now=now) if ids else 0
    replay.done += done
    replay.skipped += len(ids) - done
    # From when it was due, not from now: a clock that is late now and then takes nothing from the pace.
    from_ = max(replay.next_step_at, now - timedelta(seconds=_CHUNK_S))
    replay.next_step_at = from_ + timedelta(seconds=done / replay.per_second)
    replay.tries, replay.error = 0, ""
    if replay.cursor >= replay.top_id:
        _end(replay, now)
    replay.save()
    return done


def _next_ids(replay: Replay) -> list[int]:
    """Return the requests of the next chunk and move the cursor behind what was looked at."""
    most = min(_MOST_AT_ONCE, max(1, math.floor(replay.per_second * _CHUNK_S)))
    rows = _meant_by(replay).order_by("pk").values_list("pk", flat=True)
    ids: list[int] = []
    for _ in range(_WINDOWS_AT_ONCE):
        end = min(replay.cursor + walks.WINDOW, replay.top_id)
        ids += rows.filter(pk__gt=replay.cursor, pk__lte=end)[: most - len(ids)]
        replay.cursor = ids[-1] if len(ids) == most else end
        if len(ids) == most or end == replay.top_id:
            break
    return ids


def _end(replay: Replay, now: datetime) -> None:
    """Note that all were looked at; those that were counted and fit no more by their turn were skipped too."""
    replay.state, replay.ended_at = Replay.State.DONE, now
    replay.skipped = max(replay.skipped, (replay.matched or 0) - replay.done)
    facts = {"replay": replay.key, "done": replay.done, "skipped": replay.skipped}
    logger.info("replay done", extra=facts)
