"""Processes tell that they live, what they did last, and goodbye."""

from __future__ import annotations

import pytest
from django.db import Error as DatabaseError

from batcher import beats
from batching.models import Beat

pytestmark = pytest.mark.django_db


@pytest.fixture
def heart(monkeypatch):
    monkeypatch.setattr(beats.connection, "close", lambda: None)
    return beats.Heart("worker")


def test_a_beat_tells_who_lives_and_what_was_done_last(heart):
    heart.beat()
    heart.note("batching.tasks.pack")
    heart.beat()

    row = Beat.objects.get()
    assert (row.kind, row.host, row.pid) == ("worker", heart.host, heart.pid)
    assert row.progress == "batching.tasks.pack"
    assert row.started_at <= row.progress_at <= row.seen_at
    assert row.memory_bytes > 10**7


def test_a_process_that_ends_in_peace_leaves_no_row(heart):
    heart.beat()

    heart.stop()

    assert not Beat.objects.exists()


def test_a_database_that_is_away_ends_nothing(heart, monkeypatch):
    def away(**_facts):
        raise DatabaseError

    monkeypatch.setattr(Beat.objects, "update_or_create", away)

    heart.beat()

    assert not Beat.objects.exists()


def test_the_version_is_the_projects():
    assert beats.code_version().startswith("0.")
