"""An account's health for people: how its last calls went, what its provider holds, and what it can do.

Read by the list of accounts and their pages; decides nothing.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any

from django.db.models import Count, Q, Sum

from batching.admin import shown
from batching.limits import flight_limits
from batching.models import Account, Batch
from batching.models.batches import IN_LINE, PROVIDER_HOLDS
from batching.providers.registry import limits_for, traits_for

_HOUR = timedelta(hours=1)


@dataclass(frozen=True, kw_only=True)
class Use:
    """What an account has at its provider, and what waits."""

    batches: int
    most_batches: int | None
    requests: int
    in_line: int

    @property
    def batches_in_words(self) -> str:
        """``3 of 5``; without a limit ``3``."""
        return (
            f"{self.batches:,} of {self.most_batches:,}"
            if self.most_batches
            else f"{self.batches:,}"
        )


def use_of(accounts: Sequence[Account]) -> Mapping[int, Use]:
    """Return what accounts use, by number; one query, along the index on lane and state."""
    is_held = Q(state__in=PROVIDER_HOLDS)
    rows = Batch.objects.filter(
        lane__account__in=[account.pk for account in accounts],
        state__in=(*PROVIDER_HOLDS, *IN_LINE),
    )
    sums = (
        rows.order_by()
        .values("lane__account")
        .annotate(
            at_provider=Count("pk", filter=is_held),
            lines=Sum("request_count", filter=is_held, default=0),
            waiting=Count("pk", filter=~is_held),
        )
    )
    found = {
        row["lane__account"]: (row["at_provider"], row["lines"], row["waiting"]) for row in sums
    }
    used = {}
    for account in accounts:
        held, lines, waiting = found.get(account.pk, (0, 0, 0))
        most = account.max_batches_in_flight
        used[account.pk] = Use(batches=held, most_batches=most, requests=lines, in_line=waiting)
    return used


def health_of(account: Account, now: datetime) -> dict[str, Any]:
    """Return what an account's page shows above its form."""
    use, limits = use_of([account])[account.pk], flight_limits(account)
    created = Batch.objects.filter(lane__account=account, create_started_at__gt=now - _HOUR).count()
    return {
        "account": account,
        "sentence": _sentence(account),
        "uses": (
            ("Batches at the provider", use.batches_in_words),
            ("Requests in them", _of(use.requests, limits.requests_in_flight)),
            ("Batches in line", shown.number(use.in_line)),
            ("Created within the hour", _of(created, limits.creates_per_hour)),
        ),
        "abilities": _abilities(account),
        "lanes_url": shown.list_of("batching.lane", account__id__exact=account.pk),
        "batches_url": shown.list_of("batching.batch", lane__account__id__exact=account.pk),
    }


def _of(used: int, limit: int | None) -> str:
    return f"{used:,} of {limit:,}" if limit else f"{used:,}"


def _sentence(account: Account) -> str:
    """Say what happened, what Batcher does and what one can do."""
    if not account.is_enabled:
        return "It is off: nothing is routed to it. What its provider holds is still finished and delivered."
    if account.silent_since:
        return (
            "Its provider does not answer. Batcher asks again by itself, at longer and longer pauses; look at the "
            "provider's status page and at the base URL."
        )
    if account.last_error:
        return "Its provider refuses it, so its batches wait. Mend it there, or rotate the key; then check the connection."
    if account.paused_at:
        return f"Paused {account.pause_reason}. No batch is started; what the provider holds is finished."
    if account.last_success_at is None:
        return "Nothing was asked of its provider yet. “Check connection” asks one question that costs nothing."
    return "It works."


def _abilities(account: Account) -> list[tuple[str, str]]:
    limits, traits = limits_for(account.kind), traits_for(account.kind)
    webhook = "not offered"
    if traits.tags_batches:
        webhook = (
            "on: batches are looked at as soon as it says so" if account.webhook_secret else "off"
        )
    return [
        ("Endpoints", ", ".join(sorted(limits.endpoints))),
        ("Requests in one batch", f"{account.max_requests or limits.max_requests:,}"),
        ("Bytes of one batch", shown.size(account.max_bytes or limits.max_bytes)),
        ("Bytes of one request", shown.size(limits.max_line_bytes)),
        (
            "Tells batches apart by",
            "our mark on them" if traits.tags_batches else "size, time and answers",
        ),
        ("Webhook of the provider", webhook),
    ]
