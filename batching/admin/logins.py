"""Who came in, who went, and who knocked in vain: Django's signals, written to the audit log.

A name that was tried is kept as it was typed, and what was typed as a password never.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from django.contrib.auth.signals import user_logged_in, user_logged_out, user_login_failed
from django.dispatch import receiver

from batching.audit import record
from batching.lifecycle import Actor

if TYPE_CHECKING:
    from collections.abc import Mapping

    from django.contrib.auth.models import User


@receiver(user_logged_in)
def came_in(sender: type, *, user: User, **_signal: Any) -> None:
    """Record a login."""
    record("user.login", by=Actor(name=user.get_username(), user_id=user.pk), row=user)


@receiver(user_logged_out)
def went(sender: type, *, user: User | None, **_signal: Any) -> None:
    """Record a logout; of a session that had ended already there is nothing to say."""
    if user is not None:
        record("user.logout", by=Actor(name=user.get_username(), user_id=user.pk), row=user)


@receiver(user_login_failed)
def knocked(sender: str, *, credentials: Mapping[str, Any], **_signal: Any) -> None:
    """Record a login that was refused."""
    typed = str(credentials.get("username", ""))[:100]
    record("user.login_failed", by=Actor(name="nobody"), reason=f"as {typed!r}")
