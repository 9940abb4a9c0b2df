"""A claim is kept while its step runs, and ends by itself when its worker is gone."""

from __future__ import annotations

import threading
from datetime import timedelta

import pytest
from django.db import OperationalError
from django.db.models import QuerySet

from batching import claims
from batching.claims import LEASE, Stale, claim, hold
from batching.models import Batch
from tests.batching.rows import NOW, a_batch


@pytest.fixture
def short_lease(monkeypatch):
    monkeypatch.setattr(claims, "LEASE", timedelta(seconds=0.3))


def claimed(batch, now=NOW):
    return claim(Batch.objects.filter(pk=batch.pk), now=now)


@pytest.mark.django_db(transaction=True)
def test_a_claim_is_renewed_while_its_step_runs(short_lease):
    batch = a_batch(next_attempt_at=NOW)
    seen = []

    def step(held, now):
        deadline = threading.Event()
        for _ in range(200):
            deadline.wait(0.05)
            seen.append(Batch.objects.get(pk=held.pk).next_attempt_at)
            if seen[-1] > seen[0]:
                return

    rows = Batch.objects.filter(pk=batch.pk, next_attempt_at=NOW)
    assert claims.each(rows, step, now=NOW) == 1
    assert seen[-1] > seen[0]


@pytest.mark.django_db(transaction=True)
def test_what_a_step_says_is_next_is_not_renewed_over(short_lease):
    batch = a_batch(next_attempt_at=NOW)
    waited = threading.Event()

    def step(held, now):
        claims.note(held, next_attempt_at=None)
        waited.wait(0.5)

    claims.each(Batch.objects.filter(pk=batch.pk, next_attempt_at=NOW), step, now=NOW)

    assert Batch.objects.get(pk=batch.pk).next_attempt_at is None


def until_renewed(held, now):
    """Be a step that takes until its claim was renewed."""
    for _ in range(200):
        threading.Event().wait(0.05)
        if Batch.objects.get(pk=held.pk).next_attempt_at > held.next_attempt_at:
            return
    raise AssertionError("never renewed")


@pytest.mark.django_db(transaction=True)
def test_a_renewal_that_fails_once_is_tried_again(short_lease, monkeypatch):
    batch = a_batch(next_attempt_at=NOW)
    update, failures = QuerySet.update, []

    def busy_at_first(rows, **changes):
        if threading.current_thread().daemon and not failures:
            failures.append(changes)
            raise OperationalError("database is locked")
        return update(rows, **changes)

    monkeypatch.setattr(QuerySet, "update", busy_at_first)
    rows = Batch.objects.filter(pk=batch.pk, next_attempt_at=NOW)
    claims.each(rows, until_renewed, now=NOW)

    assert failures
    assert Batch.objects.get().last_error == ""


@pytest.mark.django_db
def test_a_claim_ends_by_itself_and_the_next_one_overtakes_it():
    batch = a_batch(next_attempt_at=NOW)
    first = claimed(batch)
    assert first.next_attempt_at == NOW + LEASE

    second = claimed(batch, NOW + LEASE)

    assert second.fence == first.fence + 1
    hold(second)
    with pytest.raises(Stale):
        hold(first)
