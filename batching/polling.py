"""When a batch is looked at, and how: many in one listing, one by itself, none while the provider is silent.

Looks are often at first, when most refusals show, and rarer the longer a batch runs; all times are spread a
little, so that batches of one moment are not asked about in one moment for ever. ``collection`` asks here and
decides what an answer means. A provider that does not answer changes no batch: its account is asked by one
batch at a time, ever more rarely, and all of its batches are looked at as soon as it answers again.
"""

from __future__ import annotations

import logging
import random
import time
from datetime import datetime, timedelta
from itertools import islice
from typing import Final, Protocol

from batching.lifecycle import BatchState
from batching.models import Account, Batch
from batching.models.batches import BatchQuerySet
from batching.overrides import effective
from batching.providers.base import Provider, ProviderError, RemoteBatch, Status, Trouble

logger = logging.getLogger(__name__)

_FIRST: Final = timedelta(seconds=15)
_SHARE: Final = 0.1
"""The pause before the next look, as a share of the time that the batch has run."""
_SPREAD: Final = 0.1
_LISTED_FROM: Final = 3
"""So many batches of one account are looked at by a listing."""
_FRESH_S: Final = 60.0
"""A listing older than this is no look any more."""
_OLDER: Final = timedelta(hours=1)
"""What the provider's clock may be behind ours, with room to spare."""
_SILENT_FIRST, _SILENT_LONGEST = timedelta(seconds=5), timedelta(minutes=5)


class Jitter(Protocol):
    """The part of ``random`` that spreads times; tests pass a ``random.Random``."""

    def uniform(self, a: float, b: float, /) -> float:
        """Return a number between two."""


def at_provider() -> BatchQuerySet:
    """Return the batches that can be looked at."""
    held = Batch.objects.filter(state__in=(BatchState.PROCESSING, BatchState.CANCELLING))
    return held.exclude(provider_batch_id="")


def pace(account: Account) -> timedelta:
    """Return the usual pause between two looks: the account's own, else the setting's."""
    return timedelta(seconds=account.poll_seconds or effective("BATCHER_POLL_SECONDS"))


def first_poll(batch: Batch, now: datetime) -> datetime:
    """Return when to look at a batch that was just accepted. Reads its lane's account."""
    return now + min(pace(batch.lane.account), _FIRST)


def next_look(
    batch: Batch, now: datetime, *, status: Status = Status.IN_PROGRESS, rng: Jitter = random
) -> datetime:
    """Return when to look again: a share of its age from now, within the pace of its account.

    A batch about to end is looked at as often as a new one, and every one when its window closes.
    """
    usual = pace(batch.lane.account)
    often, slow = min(usual, _FIRST), usual * effective("BATCHER_POLL_SLOWDOWN")
    age = now - (batch.create_started_at or batch.state_changed_at)
    pause = often if status is Status.FINALIZING else min(max(age * _SHARE, often), slow)
    at = now + _spread(pause, rng)
    closes = batch.provider_expires_at
    return min(at, closes + often) if closes and closes > now else at


def _spread(pause: timedelta, rng: Jitter) -> timedelta:
    return pause * rng.uniform(1 - _SPREAD, 1 + _SPREAD)


class Sweep:
    """The looks of one sweep: keeps listings, and knows which accounts answered."""

    def __init__(self, now: datetime) -> None:
        self._now = now
        self._listings: dict[int, tuple[float, dict[str, RemoteBatch]]] = {}
        self._answered = set[int]()

    def look(self, batch: Batch, provider: Provider) -> RemoteBatch:
        """Return the batch as its provider shows it now. Raises ProviderError. Call for a claimed batch."""
        account = batch.lane.account
        if account.pk not in self._listings and account.silent_since is None:
            self._listings[account.pk] = time.monotonic(), self._listing(batch, provider)
        taken_at, listing = self._listings.get(account.pk, (0.0, {}))
        remote = listing.get(batch.provider_batch_id)
        if remote is None or time.monotonic() - taken_at > _FRESH_S:
            remote = provider.retrieve(batch.provider_batch_id)
        self._answered.add(account.pk)
        return remote

    def is_about_account(self, batch: Batch, error: ProviderError) -> bool:
        """Tell whether a failed look says something of every batch of the account, not of this one alone.

        A batch that failed before, while its provider was not silent, fails by itself.
        """
        if error.trouble is Trouble.REFUSED or batch.lane.account_id in self._answered:
            return False
        is_known = batch.lane.account.silent_since is not None
        return is_known or not batch.tries or not _is_silence(error)

    def _listing(self, batch: Batch, provider: Provider) -> dict[str, RemoteBatch]:
        """Return the due batches of the account by the provider's id; none when they are few.

        It never takes more calls than a look at each by itself would.
        """
        due = at_provider().filter(
            lane__account_id=batch.lane.account_id, next_attempt_at__lte=self._now
        )
        wanted = dict(due.values_list("provider_batch_id", "create_started_at"))
        wanted[batch.provider_batch_id] = batch.create_started_at
        if len(wanted) < _LISTED_FROM:
            return {}
        oldest = min(at or batch.created_at for at in wanted.values())
        most = len(wanted) * provider.traits.listed_at_once
        found: dict[str, RemoteBatch] = {}
        try:
            for remote in islice(provider.list_batches(since=oldest - _OLDER), most):
                if remote.id in wanted:
                    found[remote.id] = remote
                if len(found) == len(wanted):
                    break
        except ProviderError as error:  # each is asked for by itself, and shows what is wrong
            facts = {"account": batch.lane.account.name, "error": str(error)[:200]}
            logger.info("batches could not be listed", extra=facts)
        return found


def put_off(batch: Batch, error: ProviderError, now: datetime, *, rng: Jitter = random) -> datetime:
    """Look at no batch of the account for a while, and say on each why; return when to go on.

    The batch that was asked about comes after the others then, so one that its provider chokes on can't
    pass for an outage again. Its own row is the caller's to write.
    """
    account = batch.lane.account
    fell_silent(account, error, now)
    at = now + max(_silence(account, now, rng), timedelta(seconds=error.after_s or 0))
    due = at_provider().filter(lane__account=account, next_attempt_at__lte=now)
    due.update(next_attempt_at=at, wait_reason=held_up(account, error))
    facts = {"account": account.name, "until": at.isoformat(), "error": str(error)[:200]}
    logger.warning("provider can't be asked", extra=facts)
    return at + timedelta(seconds=1)


def fell_silent(account: Account, error: ProviderError, now: datetime) -> None:
    """Note since when the provider does not answer, if that is what a failed call says."""
    if _is_silence(error):
        account.silent_since = account.silent_since or now
        Account.objects.filter(pk=account.pk, silent_since=None).update(silent_since=now)


def silence_of(account: Account) -> str:
    """Say since when the provider is silent; empty when it is not, or when nothing of ours would ask it again."""
    if account.silent_since is None:
        return ""
    if _in_doubt(account).exists() or at_provider().filter(lane__account=account).exists():
        return f"the provider has not answered since {account.silent_since:%Y-%m-%d %H:%M} UTC"
    return ""


def _in_doubt(account: Account) -> BatchQuerySet:
    """Return the account's batches of which nobody knows whether they were created; they are looked for."""
    called = Batch.objects.filter(state__in=(BatchState.SUBMITTING, BatchState.CANCELLING))
    return called.filter(lane__account=account, provider_batch_id="")


def held_up(account: Account, error: ProviderError) -> str:
    """Return why no batch of the account can be looked at."""
    if error.trouble is Trouble.CREDENTIALS:
        return f"the provider refuses the account {account.name}: {error}"[:300]
    if account.silent_since is None:
        return f"the provider takes no calls of the account {account.name} for now: {error}"[:300]
    return f"the provider has not answered since {account.silent_since:%Y-%m-%d %H:%M} UTC"


def _is_silence(error: ProviderError) -> bool:
    return error.trouble in (Trouble.RETRY, Trouble.UNKNOWN) and (
        error.status is None or error.status >= 500
    )


def _silence(account: Account, now: datetime, rng: Jitter) -> timedelta:
    """Return the pause before a silent provider is asked again: the longer it is silent, the longer."""
    so_far = now - account.silent_since if account.silent_since else timedelta()
    return _spread(min(max(so_far / 4, _SILENT_FIRST), _SILENT_LONGEST), rng)


def answered(batch: Batch, now: datetime) -> None:
    """The provider answers: when it was silent, look at everything that waited for it."""
    account = batch.lane.account
    if account.silent_since is None:
        return
    Account.objects.filter(pk=account.pk).update(silent_since=None)
    waited = at_provider().filter(lane__account=account, next_attempt_at__gt=now)
    count = waited.exclude(wait_reason="").exclude(pk=batch.pk).update(next_attempt_at=now)
    doubtful = _in_doubt(account).filter(doubtful_since__isnull=False, next_attempt_at__gt=now)
    doubtful.exclude(pk=batch.pk).update(next_attempt_at=now)
    facts = {"account": account.name, "since": account.silent_since.isoformat(), "batches": count}
    logger.info("provider answers again", extra=facts)
    account.silent_since = None


def wake(account: Account, provider_batch_id: str, now: datetime) -> bool:
    """Make a batch due for a look, for its provider says that it ended; False when we have none such."""
    named = at_provider().filter(lane__account=account, provider_batch_id=provider_batch_id)
    return bool(named.update(next_attempt_at=now))
