"""The audit log: who did what from outside of the machine, written beside the change itself.

The edges call `record`: the API after a deed, the admin after a move, a save or a look at a payload, the
commands after a change of keys, and Django's signals at logins. Call it inside the transaction of the change
where the change is ours, so that neither stands without the other. Never holds a secret: `facts` masks them.
What the machine does by itself is in the transition log instead.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, nullcontext
from contextvars import ContextVar
from dataclasses import dataclass
from datetime import datetime
from functools import partial
from typing import Any, Final, TypeVar

from django.db import transaction
from django.db.models import Model
from django.utils.encoding import force_str

from batching.encryption import EncryptedTextField
from batching.lifecycle import Actor
from batching.models import AuditEntry

T = TypeVar("T")

MASK: Final = "***"
_SECRET: Final = frozenset({"password", "secret_sha256", "previous_sha256"})
_LONGEST = 500
"""Characters of one value that are kept."""

Facts = Mapping[str, Any]


@dataclass(frozen=True, kw_only=True)
class Scene:
    """The call that we are in."""

    ip: str | None = None
    call_id: str = ""


_NOWHERE: Final = Scene()
_scene: ContextVar[Scene] = ContextVar("scene")


@contextmanager
def scene(*, ip: str | None, call_id: str) -> Iterator[None]:
    """Let what is recorded meanwhile name this call."""
    token = _scene.set(Scene(ip=ip, call_id=call_id))
    try:
        yield
    finally:
        _scene.reset(token)


def record(
    action: str,
    *,
    by: Actor,
    row: Model | None = None,
    reason: str = "",
    before: Facts | None = None,
    after: Facts | None = None,
) -> None:
    """Write one line: ``action`` is noun and verb (``batch.cancel``), ``row`` what it was done to.

    ``before`` and ``after`` come from `facts` or `changes`, masked. Call before ``row`` is deleted, or
    with its number still set.
    """
    now_in = _scene.get(_NOWHERE)
    entry = AuditEntry(
        actor=(f"user {by.name}" if by.user_id else by.name)[:160],
        user_id=by.user_id,
        ip=now_in.ip,
        call_id=now_in.call_id,
        action=action,
        object_type=row._meta.model_name or "" if row is not None else "",
        object_key=name_of(row)[:200] if row is not None else "",
        object_name=str(row)[:200] if row is not None else "",
        before=before,
        after=after,
        reason=reason[:300],
    )
    entry.save(force_insert=True)


def done(
    deed: Callable[..., T],
    row: Model,
    *,
    action: str,
    by: Actor,
    reason: str,
    now: datetime,
    calls_outside: bool = False,
) -> T:
    """Do ``deed(row, by=, reason=, now=)`` and record it in the same transaction.

    What a partial of a deed holds by name is what was asked for beside the reason, and is recorded.

    A deed that calls a provider can have no transaction around it: that is recorded right after, and a
    process that dies in between leaves its move in the transition log alone.
    """
    with nullcontext() if calls_outside else transaction.atomic():
        result = deed(row, by=by, reason=reason, now=now)
        record(action, by=by, row=row, reason=reason, after=_asked(deed))
    return result


def _asked(deed: Callable[..., object]) -> Facts | None:
    named = deed.keywords if isinstance(deed, partial) else {}
    shown = {
        name: name_of(value) if isinstance(value, Model) else value for name, value in named.items()
    }
    return shown or None


def name_of(row: Model) -> str:
    """Return what the outside world calls a row: its public key; its number when it has none."""
    key = getattr(row, "key", None)
    return key if isinstance(key, str) else str(row.pk)


def facts(row: Model) -> dict[str, Any]:
    """Return the members of a row as they are now, secrets as ``***``, with its many-to-many rows."""
    found = {f.name: _shown(f, row) for f in row._meta.concrete_fields if not f.primary_key}
    for field in row._meta.many_to_many:
        found[field.name] = sorted(str(other) for other in getattr(row, field.name).all())
    return found


def _shown(field: Any, row: Model) -> Any:
    value = field.value_from_object(row)
    if isinstance(field, EncryptedTextField) or field.name in _SECRET:
        return MASK if value else ""
    if value is None or isinstance(value, bool | int | float | list | dict):
        return value
    return force_str(value)[:_LONGEST]


def secrets_of(row: Model) -> dict[str, Any]:
    """Return the secrets of a row, to be compared and then dropped: `changes` masks them."""
    fields = (
        f
        for f in row._meta.concrete_fields
        if isinstance(f, EncryptedTextField) or f.name in _SECRET
    )
    return {f.name: f.value_from_object(row) for f in fields}


@dataclass(frozen=True, kw_only=True)
class Seen:
    """A row as it was at some moment, to be compared with what it is later."""

    facts: Facts
    secrets: Facts

    @classmethod
    def now(cls, row: Model) -> Seen:
        """Look at a row as it is in memory."""
        return cls(facts=facts(row), secrets=secrets_of(row))


def changes(before: Seen, after: Seen) -> tuple[dict[str, Any], dict[str, Any]]:
    """Return the members that differ, as they were and as they are; a new secret shows as ``***`` twice."""
    differ = [
        name
        for name in after.facts
        if before.facts.get(name) != after.facts[name]
        or before.secrets.get(name) != after.secrets.get(name)
    ]
    return {n: before.facts.get(n) for n in differ}, {n: after.facts[n] for n in differ}
