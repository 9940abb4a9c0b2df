"""Runs: a move of the panel made to everything that a filter matched, in the background.

``start`` writes the order, the clock calls ``step_due``. The ids are written down first, window by window, as far as
the rows stand as they did when it was ordered; what changed since is skipped and told. Then each share has its
turn: a set in one transaction where the move knows how, else row by row, each with its figures in the row's own
transaction. Whoever lost the claim, or finds the run stopped, takes its last row back and goes.
"""

from __future__ import annotations

import logging
import time
from collections import Counter
from contextlib import nullcontext
from datetime import datetime, timedelta
from typing import TYPE_CHECKING, Any, Final

from django.apps import apps
from django.contrib.admin import site
from django.contrib.auth import get_user_model
from django.db import InterfaceError, OperationalError, transaction
from django.db.models import F

from batching import walks
from batching.admin.listing import filter_of, rows_listed
from batching.admin.moves import Move, MovesAdmin, Report, carry_out
from batching.lifecycle import Actor
from batching.models import Run, RunShare
from batching.steering import Refused

if TYPE_CHECKING:
    from django.contrib.auth.models import AnonymousUser, User
    from django.db.models import Model

logger = logging.getLogger(__name__)

CHANGED: Final = "it changed after the run was ordered"
GONE: Final = "it is gone"
BROKEN: Final = "an error of ours, see the log"
_OTHERS: Final = "other reasons"
_REASONS_KEPT: Final = 20
_LEASE: Final = timedelta(minutes=2)
_AT_ONCE: Final = 1_000
"""Rows that one transaction moves as a set, or one claim row by row."""
_STEP_S: Final = 5.0


class Lost(Exception):
    """The run was stopped, or another worker has it."""


def admin_of(label: str) -> MovesAdmin[Any]:
    """Return the admin of the rows ``batching.batch`` or ``batching.request``."""
    found = site.get_model_admin(apps.get_model(label))
    if not isinstance(found, MovesAdmin):
        raise TypeError(f"the admin of {label} has no moves")
    return found


def look(
    rows_admin: MovesAdmin[Any], user: User | AnonymousUser, query: str, move: Move
) -> tuple[walks.Look[Any], dict[str, int]]:
    """Count what a list shows, and by state what the move would skip. Raises Refused."""
    rows = rows_listed(rows_admin, user, query)
    first, top = walks.bounds_of_all(rows_admin.model)
    seen = walks.look(rows, first=first, top=top)
    fit = move.states
    unfit = {s: many for s, many in seen.by_state.items() if fit is not None and s not in fit}
    return seen, unfit


def start(
    rows_admin: MovesAdmin[Any],
    move: Move,
    *,
    by: Actor,
    query: str,
    reason: str,
    answers: dict[str, Any],
    now: datetime,
) -> Run:
    """Order a move to everything that the list at ``query`` shows; it begins with the clock's next tick."""
    first, top = walks.bounds_of_all(rows_admin.model)
    run = Run.objects.create(
        rows_of=rows_admin.model._meta.label_lower,
        move=move.name,
        answers=answers,
        query=filter_of(query),
        who=by.name,
        user_id=by.user_id,
        reason=reason[:300],
        first_id=first,
        top_id=top,
        cursor=first - 1,
        next_step_at=now,
        created_at=now,
    )
    logger.info("run started", extra={"run": run.key, "move": move.name, "by": run.who})
    return run


def move_of(run: Run) -> Move:
    """Return what a run does. Refused when no move of that name is there any more."""
    for move in admin_of(run.rows_of).moves:
        if move.name == run.move:
            return move
    raise Refused("unknown_move", f"there is no move {run.move!r}")


def facts_of(run: Run) -> dict[str, Any]:
    """Return what the audit log keeps of an order."""
    return {"rows": run.rows_of, "move": run.move, "filter": run.query, **run.answers}


def step_due(now: datetime) -> int:
    """Take steps of the runs that are due, in turns, for some seconds; return how many rows were done."""
    return walks.step_due(Run.objects.due, _step, now=now, hopeless=(Refused,))


def _step(run: Run, now: datetime) -> int:
    move, user = move_of(run), _allowed(run)
    if run.matched is None:
        _gather(run, user, now)
        return 0
    share = run.shares.filter(last_id__gt=run.cursor).order_by("last_id").first()
    if share is None:
        _end(run, now)
        return 0
    ids = [pk for pk in share.ids if pk > run.cursor][:_AT_ONCE]
    if move.act_on_many is not None:
        return _as_a_set(run, move, ids, now)
    return _one_by_one(run, move, user, ids, now)


def _allowed(run: Run) -> User:
    """Return who ordered the run. Refused when that person may not do it any more."""
    user: User | None = get_user_model()._base_manager.filter(pk=run.user_id or 0).first()
    if user is None or not (user.is_active and user.has_perm(move_of(run).permission)):
        raise Refused("forbidden", f"{run.who} may not do this any more")
    return user


def _gather(run: Run, user: User, now: datetime) -> None:
    """Write down which rows of the next window are meant. Two workers at once: the first one's list stands."""
    rows = rows_listed(admin_of(run.rows_of), user, run.query)
    window, end = walks.window_of(run, rows.filter(state_changed_at__lte=run.created_at))
    ids = sorted(set(window.values_list("pk", flat=True)))
    with transaction.atomic():
        if walks.note_counted(run, len(ids), end=end, now=now) and ids:
            RunShare.objects.create(run=run, last_id=ids[-1], ids=ids)


def _end(run: Run, now: datetime) -> None:
    ended = {"state": Run.State.DONE, "ended_at": now, "error": "", "tries": 0}
    with transaction.atomic():
        if Run.objects.filter(pk=run.pk, fence=run.fence, state=Run.State.RUNNING).update(**ended):
            run.shares.all().delete()
    logger.info("run done", extra={"run": run.key, "done": run.done, "skipped": run.skipped})


def _as_a_set(run: Run, move: Move, ids: list[int], now: datetime) -> int:
    """Do the next rows and note it in one transaction."""
    if move.act_on_many is None:
        raise TypeError(f"{move.name} knows no sets")
    with transaction.atomic():
        held = Run.objects.due(now).select_for_update(skip_locked=True, of=("self",))
        if not held.filter(pk=run.pk, fence=run.fence, cursor=run.cursor).exists():
            return 0
        rows = admin_of(run.rows_of).model._base_manager.filter(pk__in=ids)
        states = dict(rows.filter(state_changed_at__lte=run.created_at).values_list("pk", "state"))
        still = rows.count()
        done = move.act_on_many(
            list(states), by=_by(run), reason=_reason(run), now=now, **run.answers
        )
        refused = Counter({GONE: len(ids) - still, CHANGED: still - len(states)})
        refused += _unfit(move, states.values(), done)
        _note(run, ids[-1], Report(done=[""] * done, skipped=+refused))
    return done


def _unfit(move: Move, states: Any, done: int) -> Counter[str]:
    """Say why rows of a set were not done: by their state, and what is left for what they belong to."""
    fit = move.states
    refused = Counter(f"it is {s}" for s in states if fit is not None and s not in fit)
    rest = len(states) - done - refused.total()
    return refused + Counter(
        {"its batch is in a file or at the provider by now": rest} if rest > 0 else {}
    )


def _one_by_one(run: Run, move: Move, user: User, ids: list[int], now: datetime) -> int:
    """Claim the run and do the next rows for some seconds, each in a transaction with its note where that can be."""
    claim = Run.objects.filter(pk=run.pk, fence=run.fence, state=Run.State.RUNNING)
    if not claim.update(fence=F("fence") + 1, next_step_at=now + _LEASE):
        return 0
    run.fence += 1
    before, until = run.done, time.monotonic() + _STEP_S
    rows = admin_of(run.rows_of).model._base_manager
    try:
        for pk in ids:
            with nullcontext() if move.calls_outside else transaction.atomic():
                report = _one(run, move, user, rows.filter(pk=pk).first())
                _note(run, pk, report)
            if time.monotonic() > until:
                break
    except Lost:
        return run.done - before
    Run.objects.filter(pk=run.pk, fence=run.fence).update(next_step_at=now)
    return run.done - before


def _one(run: Run, move: Move, user: User, row: Model | None) -> Report:
    """Do one row; an error of ours that is not the database's is told and holds up no other row."""
    if row is None:
        return Report(skipped=Counter({GONE: 1}))
    if getattr(row, "state_changed_at", run.created_at) > run.created_at:
        return Report(skipped=Counter({CHANGED: 1}))
    try:
        return carry_out(move, [row], user=user, reason=_reason(run), answers=run.answers)
    except (OperationalError, InterfaceError):  # the database is busy or gone: later
        raise
    except Exception:
        logger.exception("row of a run failed", extra={"run": run.key, "row": row.pk})
        return Report(skipped=Counter({BROKEN: 1}))


def _note(run: Run, cursor: int, report: Report) -> None:
    """Write what came of some rows, and that they had their turn. Raises Lost when the run is not ours any more."""
    run.cursor, run.done = cursor, run.done + len(report.done)
    run.skipped += report.skipped.total()
    run.refusals = _merged(run.refusals, report.skipped)
    ours = Run.objects.filter(pk=run.pk, fence=run.fence, state=Run.State.RUNNING)
    figures = {"done": run.done, "skipped": run.skipped, "refusals": run.refusals}
    if not ours.update(cursor=cursor, tries=0, error="", **figures):
        raise Lost(run.key)


def _merged(known: dict[str, int], new: Counter[str]) -> dict[str, int]:
    """Add reasons to those that are known; past a number of them they are counted together."""
    merged = dict(known)
    for why, many in new.items():
        name = why[:200] if why[:200] in merged or len(merged) < _REASONS_KEPT else _OTHERS
        merged[name] = merged.get(name, 0) + many
    return merged


def _by(run: Run) -> Actor:
    return Actor(name=run.who, user_id=run.user_id)


def _reason(run: Run) -> str:
    return f"{run.reason} [{run.key}]"
