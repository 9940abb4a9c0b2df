"""Results leased to clients that pull: each to one consumer of a group at a time, until it is acknowledged.

Decides who gets which result next. A group reads the project's results without a destination behind its own
cursor; what it took is a Lease row until it is acknowledged, which is final for the group. A lease that ran out or was
given back is handed out before anything new. At least once: a consumer that is slower than its lease
finds another one's token on the row, and its word counts no more.

Called by the API. One group's calls run one after the other, on the group's row; groups never wait for
each other.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta

from django.db import transaction
from django.db.models import F

from batching.models import Project, Request
from batching.models.keys import new_key
from delivery.models import Lease, PullGroup
from delivery.results import place_of, settled_after


@dataclass(frozen=True, kw_only=True)
class Leased:
    """What one call got."""

    token: str
    until: datetime
    rows: list[Request]
    """Ended requests, oldest first as far as they are new."""
    counts: dict[int, int]
    """How often each was leased by this group, by row id."""


@dataclass(frozen=True, kw_only=True)
class Settled:
    """What became of acknowledging or giving back, by the requests' public keys."""

    done: list[str]
    lost: list[str]
    """Leased to another one meanwhile."""
    unknown: list[str]
    """Not leased by this group: acknowledged before, or never handed out."""


def lease(
    project: Project, group_name: str, *, most: int, visibility: timedelta, now: datetime
) -> Leased:
    """Lease up to ``most`` results; makes the group when it is new."""
    PullGroup.objects.get_or_create(project=project, name=group_name)
    token, until = new_key("lse"), now + visibility
    with transaction.atomic():
        group = PullGroup.objects.select_for_update().get(project=project, name=group_name)
        leases = _free(group, most, now)
        for row in leases:
            row.token, row.free_at, row.leased_count = token, until, row.leased_count + 1
        Lease.objects.bulk_update(leases, ["token", "free_at", "leased_count"])
        leases += _new(project, group, most - len(leases), token, until, now)
    return Leased(
        token=token,
        until=until,
        rows=[row.request for row in leases],
        counts={row.request_id: row.leased_count for row in leases},
    )


def _free(group: PullGroup, most: int, now: datetime) -> list[Lease]:
    """Return what may be leased again; what has another end coming is dropped, for it comes as new."""
    free = group.leases.filter(free_at__lte=now).order_by("free_at", "pk")
    found = list(free.select_related("request")[:most])
    stale = [row.pk for row in found if not _is_current(row)]
    if stale:
        Lease.objects.filter(pk__in=stale).delete()
    return [row for row in found if _is_current(row)]


def _is_current(row: Lease) -> bool:
    return row.request.settled_at is not None and row.request.attempt == row.attempt


def _new(
    project: Project, group: PullGroup, most: int, token: str, until: datetime, now: datetime
) -> list[Lease]:
    """Lease what nobody of the group had yet, and move the cursor behind it."""
    if most <= 0:
        return []
    after = (group.settled_at, group.request_id) if group.settled_at else None
    requests = settled_after(project, after, now=now).filter(destination__isnull=True)[:most]
    rows = [
        Lease(group=group, request=each, attempt=each.attempt, token=token, free_at=until)
        for each in requests
    ]
    if rows:
        # One that ended again may still have the lease of its first end.
        group.leases.filter(request__in=[row.request_id for row in rows]).delete()
        Lease.objects.bulk_create(rows)
        group.settled_at, group.request_id = place_of(rows[-1].request)
        group.save(update_fields=["settled_at", "request_id"])
    return rows


def acknowledge(project: Project, group_name: str, token: str, keys: Sequence[str]) -> Settled:
    """Be done with results for good. No ``keys``: with all that the token still holds."""
    with transaction.atomic():
        mine, settled = _told_apart(project, group_name, token, keys)
        Lease.objects.filter(pk__in=mine, token=token).delete()
    return settled


def give_back(
    project: Project,
    group_name: str,
    token: str,
    keys: Sequence[str],
    *,
    after: timedelta,
    now: datetime,
) -> Settled:
    """Let results be leased again, ``after`` some time. No ``keys``: all that the token still holds."""
    with transaction.atomic():
        mine, settled = _told_apart(project, group_name, token, keys)
        # No token any more: a late word of the one who gave it back must not count.
        Lease.objects.filter(pk__in=mine, token=token).update(free_at=now + after, token="")
    return settled


def _told_apart(
    project: Project, group_name: str, token: str, keys: Sequence[str]
) -> tuple[list[int], Settled]:
    """Return the leases that the token still holds, and what it is told of each key."""
    group = PullGroup.objects.select_for_update().filter(project=project, name=group_name).first()
    leases = Lease.objects.filter(group=group) if group else Lease.objects.none()
    leases = leases.filter(request__key__in=keys) if keys else leases.filter(token=token)
    found = list(leases.annotate(key=F("request__key")).values_list("pk", "key", "token"))
    mine = {key: pk for pk, key, holder in found if holder == token}
    known = {key for _, key, _ in found}
    keys = keys or list(mine)
    return list(mine.values()), Settled(
        done=[key for key in keys if key in mine],
        lost=[key for key in keys if key in known and key not in mine],
        unknown=[key for key in keys if key not in known],
    )
