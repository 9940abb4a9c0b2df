"""Posts that wait together: each gets its own answer, and no one waits for ever."""

from __future__ import annotations

import threading

import pytest
from django.db import connection

from batching import intake
from batching.api import together
from batching.api.auth import Caller
from batching.models import ApiKey, Project
from batching.wire import Line


def a_line(name):
    return Line(custom_id=name, url="/v1/responses", body=b'{"model":"m"}', model="m")


@pytest.fixture
def callers(project, monkeypatch):
    """Two callers, on a database with one writer."""
    monkeypatch.setattr(together, "_has_one_writer", lambda: True)
    other = Project.objects.create(name="theirs")
    return [Caller(key=ApiKey.issue(p, "k")[0], project=p) for p in (project, other)]


class SlowIntake:
    """Stands where intake does: the first call lasts until all others wait."""

    def __init__(self, waiting_for):
        self.calls = []
        self._waiting_for = waiting_for

    def __call__(self, project, lines, *, key, by, now):
        names = [line.custom_id for line in lines]
        if not self.calls:
            until = threading.Event()
            while len(together._waiting) < self._waiting_for and not until.wait(0.01):
                pass
        self.calls.append((project.name, names))
        if "bad" in names:
            raise ValueError("bad line")
        return [f"{project.name} {name}" for name in names]


def post_all(posts):
    """Post each from its own thread; return the answers by name."""
    answers = {}

    def post(caller, name):
        try:
            answers[name] = together.accept(caller, a_line(name))
        except ValueError as problem:
            answers[name] = str(problem)
        finally:
            connection.close()

    threads = [threading.Thread(target=post, args=given) for given in posts]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(30)
    return answers


def test_those_who_wait_are_stored_in_one_call_for_each_key(callers, monkeypatch):
    ours, theirs = callers
    slow = SlowIntake(waiting_for=5)
    monkeypatch.setattr(intake, "accept", slow)

    answers = post_all([(ours, "a"), (ours, "b"), (theirs, "c"), (ours, "d"), (theirs, "e"),
                        (ours, "f")])  # fmt: skip

    assert {name: answer.split()[1] for name, answer in answers.items()} == {n: n for n in "abcdef"}
    assert all(answers[name].startswith("theirs") for name in "ce")
    assert len(slow.calls) <= 4
    assert not together._waiting
    assert not together._is_someone_storing


def test_a_post_that_fails_fails_alone(callers, monkeypatch):
    ours, _ = callers
    monkeypatch.setattr(intake, "accept", SlowIntake(waiting_for=3))

    answers = post_all([(ours, "a"), (ours, "b"), (ours, "bad"), (ours, "c")])

    assert answers == {"a": "ours a", "b": "ours b", "c": "ours c", "bad": "bad line"}
    assert not together._is_someone_storing
