"""Posts that wait for the database together are stored together.

SQLite has one writer and makes every commit safe on disk, so single posts queue up behind one another. Here
the first of those that wait stores for all of them, in one call of `intake.accept` for each project and key;
nobody waits longer than without company, for a group is whoever is waiting anyway. On PostgreSQL posts
don't wait for each other, and each is stored by itself. Called by `intake_views`.
"""

from __future__ import annotations

import threading
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Final

from django.db import connection
from django.utils import timezone

from batching import intake
from batching.api.auth import Caller
from batching.intake import Accepted, Rejected
from batching.wire import Line

MOST_TOGETHER: Final = 200


@dataclass(eq=False)
class _Post:
    """One post that waits: for its answer, or for its turn to store for all."""

    caller: Caller
    line: Line
    turn: threading.Event = field(default_factory=threading.Event)
    answer: Accepted | Rejected | Exception | None = None


_gate = threading.Lock()
_waiting: list[_Post] = []
_is_someone_storing = False


def accept(caller: Caller, line: Line) -> Accepted | Rejected:
    """Store one line; it is committed when this returns."""
    if not _has_one_writer():
        return _accept(caller, [line])[0]
    post = _Post(caller, line)
    if not _may_store(post):
        post.turn.wait()
    if post.answer is None:
        _store_for_all(post)
    if isinstance(post.answer, Exception):
        raise post.answer
    if post.answer is None:
        raise AssertionError("whoever stores answers its own post")
    return post.answer


def _has_one_writer() -> bool:
    return connection.vendor == "sqlite"


def _may_store(post: _Post) -> bool:
    """Take the turn when nobody has it; else get in line."""
    global _is_someone_storing  # the turn belongs to the process
    with _gate:
        if _is_someone_storing:
            _waiting.append(post)
            return False
        _is_someone_storing = True
        return True


def _store_for_all(post: _Post) -> None:
    """Store this post and those that wait, then pass the turn on."""
    with _gate:
        group = [post, *_waiting[: MOST_TOGETHER - 1]]
        del _waiting[: MOST_TOGETHER - 1]
    try:
        for posts in _by_key(group):
            _answer(posts)
    finally:
        _pass_on(group[1:])


def _pass_on(served: Sequence[_Post]) -> None:
    """Wake those who have their answer, and the next one to store."""
    global _is_someone_storing  # the turn belongs to the process
    with _gate:
        following = _waiting.pop(0) if _waiting else None
        _is_someone_storing = following is not None
    for post in served if following is None else (*served, following):
        post.turn.set()


def _by_key(group: Sequence[_Post]) -> list[list[_Post]]:
    """Put together what one call of intake may take: the log names one key."""
    groups: dict[int, list[_Post]] = {}
    for post in group:
        groups.setdefault(post.caller.key.pk, []).append(post)
    return list(groups.values())


def _answer(posts: list[_Post]) -> None:
    """Store posts of one key; when that fails, each by itself, so that one can't fail the others."""
    try:
        answers = _accept(posts[0].caller, [post.line for post in posts])
    except Exception as problem:  # handed to whoever posted; nobody may be left waiting
        if len(posts) == 1:
            posts[0].answer = problem
            return
        for post in posts:
            _answer([post])
        return
    for post, answer in zip(posts, answers, strict=True):
        post.answer = answer


def _accept(caller: Caller, lines: Sequence[Line]) -> list[Accepted | Rejected]:
    now = timezone.now()
    return intake.accept(caller.project, lines, key=caller.key, by=caller.actor, now=now)
