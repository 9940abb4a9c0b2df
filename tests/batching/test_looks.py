"""How often batches are looked at, how many at once, and what becomes of them while nobody answers."""

from __future__ import annotations

import random
from datetime import timedelta

import pytest

from batching import collection, polling
from batching.models import Account, Batch
from batching.providers.base import Counts, Status, Trouble
from tests.batching.fake_provider import trouble
from tests.batching.rows import NOW, a_batch, a_batch_at_provider, a_lane, an_account

pytestmark = pytest.mark.django_db

SECOND, MINUTE, HOUR = timedelta(seconds=1), timedelta(minutes=1), timedelta(hours=1)
DOWN = trouble(Trouble.RETRY, "connection refused")


class NoJitter:
    def uniform(self, a, b):
        return (a + b) / 2


@pytest.fixture
def batches(provider):
    return [running(provider) for _ in range(5)]


def running(provider, account="sandbox"):
    """Return a batch that the provider holds for a minute."""
    lane = a_lane(account=an_account(account))
    facts = {"size": 1, "lane": lane, "create_started_at": NOW - MINUTE}
    return a_batch_at_provider(provider, **facts)[0]


def again(row):
    return type(row).objects.get(pk=row.pk)


def every(field):
    return set(Batch.objects.values_list(field, flat=True))


# How often


@pytest.mark.parametrize(
    ("age", "pause"),
    [(0 * MINUTE, 15), (MINUTE, 15), (10 * MINUTE, 60), (30 * MINUTE, 180), (9 * HOUR, 300)],
    ids=["new", "young", "usual", "older", "old"],
)
def test_a_batch_is_looked_at_more_rarely_the_longer_it_runs(age, pause, settings):
    settings.BATCHER_POLL_SECONDS, settings.BATCHER_POLL_SLOWDOWN = 60, 5
    batch = a_batch(state="processing", create_started_at=NOW - age)

    assert polling.next_look(batch, NOW, rng=NoJitter()) == NOW + pause * SECOND


def test_a_slowdown_of_one_keeps_the_pace(settings):
    settings.BATCHER_POLL_SECONDS, settings.BATCHER_POLL_SLOWDOWN = 60, 1
    batch = a_batch(state="processing", create_started_at=NOW - 9 * HOUR)

    assert polling.next_look(batch, NOW, rng=NoJitter()) == NOW + MINUTE


def test_a_batch_about_to_end_is_looked_at_often():
    batch = a_batch(state="processing", create_started_at=NOW - 9 * HOUR)

    at = polling.next_look(batch, NOW, status=Status.FINALIZING, rng=NoJitter())

    assert at == NOW + 15 * SECOND


def test_a_batch_is_looked_at_when_its_window_closes():
    closes = NOW + 20 * SECOND
    batch = a_batch(
        state="processing", create_started_at=NOW - 24 * HOUR, provider_expires_at=closes
    )

    assert polling.next_look(batch, NOW, rng=NoJitter()) == closes + 15 * SECOND


def test_looks_are_spread():
    batch, rng = a_batch(state="processing", create_started_at=NOW - HOUR), random.Random(1)  # noqa: S311  # no secret

    pauses = {polling.next_look(batch, NOW, rng=rng) - NOW for _ in range(50)}

    assert len(pauses) > 40
    assert 270 * SECOND <= min(pauses) < max(pauses) <= 330 * SECOND


# How many at once


@pytest.mark.usefixtures("batches")
def test_many_batches_of_an_account_are_looked_at_in_one_call(provider):
    for remote_id in list(provider.batches):
        provider.say(remote_id, raw_status="in_progress", counts=Counts(total=1, completed=1))

    assert collection.poll_due(NOW) == 5

    assert (provider.count("list_batches"), provider.count("retrieve")) == (1, 0)
    assert (every("provider_status"), every("provider_completed")) == ({"in_progress"}, {1})


def test_a_few_batches_are_looked_at_one_by_one(provider):
    for _ in range(2):
        running(provider)

    collection.poll_due(NOW)

    assert (provider.count("list_batches"), provider.count("retrieve")) == (0, 2)


@pytest.mark.usefixtures("batches")
def test_a_batch_that_the_listing_does_not_show_is_asked_for(provider):
    provider.hidden.add("batch_1")

    collection.poll_due(NOW)

    assert (provider.count("list_batches"), provider.count("retrieve")) == (1, 1)
    assert every("polled_at") == {NOW}


@pytest.mark.usefixtures("batches")
def test_a_provider_without_a_listing_is_asked_for_each(provider):
    provider.refuse("list_batches", trouble(Trouble.REFUSED, "no such path", status=404))

    collection.poll_due(NOW)

    assert provider.count("retrieve") == 5
    assert (every("tries"), every("polled_at")) == ({0}, {NOW})


def test_each_account_has_a_listing_of_its_own(batches, provider):
    for _ in range(3):
        running(provider, "other")

    collection.poll_due(NOW)

    assert (provider.count("list_batches"), provider.count("retrieve")) == (2, 0)


def test_the_listing_goes_back_to_the_oldest_batch(batches, provider, monkeypatch):
    Batch.objects.filter(pk=batches[0].pk).update(create_started_at=NOW - 23 * HOUR)
    asked = []
    monkeypatch.setattr(provider, "list_batches", lambda *, since: asked.append(since) or iter(()))

    collection.poll_due(NOW)

    assert asked == [NOW - 24 * HOUR]


# While nobody answers


@pytest.mark.usefixtures("batches")
def test_a_silent_provider_is_asked_once_and_no_batch_changes(provider):
    provider.refuse("list_batches", DOWN)
    provider.refuse("retrieve", DOWN, times=9)

    collection.poll_due(NOW)

    assert provider.count("retrieve") == 1
    assert every("state") == {"processing"}
    assert every("wait_reason") == {
        "the provider has not answered since 2026-11-21 12:00 UTC",
    }
    assert all(at > NOW for at in every("next_attempt_at"))


@pytest.mark.usefixtures("batches")
def test_an_outage_of_hours_changes_no_state_and_asks_ever_more_rarely(provider):
    provider.refuse("list_batches", DOWN, times=9_999)
    provider.refuse("retrieve", DOWN, times=9_999)

    asked = 0
    for minutes in range(0, 6 * 60, 4):
        asked += collection.poll_due(NOW + minutes * MINUTE)

    assert 40 < asked < 60
    assert every("state") == {"processing"}
    assert "since 2026-11-21 12:00 UTC" in every("wait_reason").pop()


def test_all_batches_are_looked_at_as_soon_as_the_provider_answers_again(batches, provider):
    provider.refuse("list_batches", DOWN)
    provider.refuse("retrieve", DOWN)
    collection.poll_due(NOW)

    collection.poll_due(NOW + 7 * SECOND)

    assert (every("wait_reason"), every("polled_at")) == ({""}, {NOW + 7 * SECOND})
    assert every("tries") == {0}
    assert Account.objects.get().silent_since is None


def test_one_batch_that_the_provider_chokes_on_holds_up_no_other(batches, provider, monkeypatch):
    provider.hidden.add("batch_1")
    retrieve = provider.retrieve

    def choke(batch_id):
        if batch_id == "batch_1":
            raise trouble(Trouble.RETRY, "boom", status=500)
        return retrieve(batch_id)

    monkeypatch.setattr(provider, "retrieve", choke)
    for seconds in (0, 6, 12, 24):
        collection.poll_due(NOW + seconds * SECOND)

    assert again(batches[0]).tries > 0
    assert all(again(batch).polled_at for batch in batches[1:])
    assert Account.objects.get().silent_since is None


@pytest.mark.usefixtures("batches")
@pytest.mark.parametrize(
    ("error", "said"),
    [
        (trouble(Trouble.CREDENTIALS, "key revoked", status=401), "refuses the account sandbox"),
        (trouble(Trouble.RETRY, "slow down", status=429, after_s=90), "takes no calls"),
    ],
    ids=["key", "too-many-calls"],
)
def test_what_concerns_the_account_puts_all_its_batches_off(provider, error, said):
    provider.refuse("list_batches", error)
    provider.refuse("retrieve", error, times=9)

    collection.poll_due(NOW)

    assert provider.count("retrieve") == 1
    assert said in every("wait_reason").pop()
    assert min(every("next_attempt_at")) >= NOW + (error.after_s or 4) * SECOND
    assert Account.objects.get().silent_since is None


def test_another_account_is_not_held_up(batches, provider):
    provider.refuse("list_batches", DOWN)
    provider.refuse("retrieve", DOWN)
    other = running(provider, "other")

    collection.poll_due(NOW)

    assert (again(other).polled_at, again(other).wait_reason) == (NOW, "")
