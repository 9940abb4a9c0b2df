"""The requests of many messages into the database at once, and a verdict for each message.

Decides which message is taken and which refused, and keeps a row for each refused one; `intake_desk` calls
`store`, and settles the messages after it returned, so after the commit. A message that was stored before
(the broker hands it out again after a lost acknowledgement) finds its own requests and is taken: nothing is
doubled. Never talks to the broker.
"""

from __future__ import annotations

import hashlib
import logging
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import datetime
from typing import Final

from django.db import DatabaseError, DataError, IntegrityError, InterfaceError

from batching import intake
from batching.intake import Rejected
from batching.lifecycle import Actor
from batching.models import Project
from batching.wire import Line
from delivery.intake_messages import Arrived, Contents, Fault, Taken, beginning, printable
from delivery.models import IntakeStatus, Rejection

logger = logging.getLogger(__name__)

_MOST_LINES = 2_000
_MOST_TOLD = 20


@dataclass(frozen=True, kw_only=True)
class Verdict:
    """What became of one message: refused when it has faults; the right ones of its requests are kept."""

    taken: list[Taken] = field(default_factory=list)
    faults: list[Fault] = field(default_factory=list)


@dataclass(frozen=True, kw_only=True)
class Read:
    """A message and what was read in it."""

    message: Arrived
    contents: Contents


class NothingStored(Exception):
    """No message at all could be stored, and it is no message's fault."""


TROUBLE: Final = (DatabaseError, InterfaceError, NothingStored)
"""What says that storing can't work now; `store` raises nothing else."""
_ITS_OWN_FAULT = (DataError, IntegrityError)


def store(queue: str, read: Sequence[Read], *, now: datetime) -> list[Verdict]:
    """Store what was read and return one verdict a message, in their order.

    Raises TROUBLE when that can't work now: then call again with the same, as often as needed. A
    message that can't be stored while others can is refused by itself and holds up none of them.
    """
    try:
        verdicts = _store(queue, read, now)
    except Exception as problem:
        if isinstance(problem, TROUBLE) and not isinstance(problem, _ITS_OWN_FAULT):
            raise
        logger.exception("messages not storable", extra={"queue": queue, "count": len(read)})
        verdicts = _one_by_one(queue, read, now)
    _keep_rejections(queue, read, verdicts, now)
    return verdicts


def _one_by_one(queue: str, read: Sequence[Read], now: datetime) -> list[Verdict]:
    """Find the messages that can't be stored.

    One that breaks us while others are stored is set aside. When none is stored the fault is ours, a wrong
    setting maybe, and must not empty the queue into the dead letters: raises NothingStored.
    """
    verdicts, unexplained = [], None
    for each in read:
        try:
            verdicts += _store(queue, [each], now)
        except Exception as problem:
            if not isinstance(problem, _ITS_OWN_FAULT):
                if isinstance(problem, TROUBLE):
                    raise
                unexplained = problem
            fault = Fault("internal_error", "it could not be stored; the log says why", "")
            verdicts.append(Verdict(faults=[fault]))
    if unexplained and not any(verdict.taken for verdict in verdicts):
        raise NothingStored(f"{type(unexplained).__name__}: {unexplained}") from unexplained
    return verdicts


def _store(queue: str, read: Sequence[Read], now: datetime) -> list[Verdict]:
    verdicts = [Verdict(faults=list(each.contents.faults)) for each in read]
    by_project: dict[str, list[tuple[Line, str, Verdict]]] = defaultdict(list)
    for each, verdict in zip(read, verdicts, strict=True):
        contents = each.contents
        lines = zip(contents.lines, contents.pointers, strict=True)
        by_project[each.message.project] += ((line, at, verdict) for line, at in lines)
    projects = {project.name: project for project in Project.objects.filter(name__in=by_project)}
    for name, lines_of_it in by_project.items():
        _accept(queue, projects.get(name), name, lines_of_it, now)
    return verdicts


def _accept(
    queue: str,
    project: Project | None,
    name: str,
    lines: Sequence[tuple[Line, str, Verdict]],
    now: datetime,
) -> None:
    """Store the lines of one project, and note in each one's verdict what became of it."""
    if project is None:
        fault = Fault("unknown_project", f"there is no project {name!r}", "")
        for _, _, verdict in lines:
            verdict.faults[:] = [fault]
        return
    by = Actor(name=f"queue {printable(queue)[:100]}")
    for start in range(0, len(lines), _MOST_LINES):
        part = lines[start : start + _MOST_LINES]
        answers = intake.accept(project, [line for line, _, _ in part], by=by, now=now)
        for (_, pointer, verdict), answer in zip(part, answers, strict=True):
            if isinstance(answer, Rejected):
                fault = Fault(answer.code, answer.detail, pointer + answer.pointer)
                verdict.faults.append(fault)
            else:
                verdict.taken.append(Taken(answer.key, answer.custom_id, answer.state))


def _keep_rejections(
    queue: str, read: Sequence[Read], verdicts: Sequence[Verdict], now: datetime
) -> None:
    """Keep a row for each refused message; one that came again after a lost reject has its row."""
    rows = [
        _rejection(queue, each.message, verdict, now)
        for each, verdict in zip(read, verdicts, strict=True)
        if verdict.faults and not (each.message.is_redelivered and _is_kept(queue, each.message))
    ]
    if rows:
        Rejection.objects.bulk_create(rows)


def _is_kept(queue: str, message: Arrived) -> bool:
    same = Rejection.objects.filter(sha256=_sha256(message.body), queue=queue)
    return same.filter(message_id=message.message_id).exists()


def _rejection(queue: str, message: Arrived, verdict: Verdict, now: datetime) -> Rejection:
    first = verdict.faults[0]
    told = [f"{fault.pointer or '/'}: {fault.detail}" for fault in verdict.faults[:_MOST_TOLD]]
    return Rejection(
        received_at=now,
        queue=queue,
        project_name=message.project,
        message_id=message.message_id,
        code=first.code,
        detail=printable(first.detail)[:500],
        faults="\n".join(map(printable, told)),
        fault_count=len(verdict.faults),
        taken_count=len(verdict.taken),
        size_bytes=len(message.body),
        sha256=_sha256(message.body),
        beginning=beginning(message.body),
    )


def _sha256(body: bytes) -> str:
    return hashlib.sha256(body).hexdigest()


def note_status(queue: str, state: str, detail: str, *, since: datetime, now: datetime) -> None:
    """Write how the consumer of ``queue`` is, and that it lives."""
    facts = {"state": state, "detail": detail[:300], "since": since, "seen_at": now}
    IntakeStatus.objects.update_or_create(queue=queue, defaults=facts)
