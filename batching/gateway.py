"""From an account's row to a provider that can be called, and back: what a failed call means for it.

The only place in the core that makes providers. An account's trouble is noted on its row, so that
the operator sees a revoked key at once and no batch is failed by it.
"""

from __future__ import annotations

import logging
from datetime import datetime, timedelta

from django.conf import settings

from batching.models import Account
from batching.providers.base import Provider, ProviderError, Trouble
from batching.providers.guarding import judged_by
from batching.providers.http import Timeouts
from batching.providers.registry import provider_for
from batching.providers.sandbox_control import SandboxControl
from batching.reach import AddressGuard

logger = logging.getLogger(__name__)

_NOTED_EVERY = timedelta(minutes=1)
_THIS_COMPUTER = ("127.0.0.0/8", "::1/128")


def connect(account: Account, *, patience_s: float | None = None) -> Provider:
    """Return the provider of ``account``. Raises ProviderError when the row can't work.

    ``patience_s`` is how long each small call may take at most, when a person waits for it.
    """
    guard = guard_of(account)
    return provider_for(
        account.kind,
        base_url=account.base_url,
        api_key=account.api_key,
        judge=guard.judge if guard else None,
        timeouts=_patient(patience_s) if patience_s else None,
    )


def _patient(seconds: float) -> Timeouts:
    return Timeouts(connect_s=seconds / 2, silence_s=seconds, call_s=seconds)


def sandbox_control(account: Account) -> SandboxControl:
    """Return what tells the sandbox behind an account how to behave. Raises ProviderError like `connect`."""
    guard = guard_of(account)
    with judged_by(guard.judge if guard else None):
        return SandboxControl(base_url=account.base_url, api_key=account.api_key)


def guard_of(account: Account) -> AddressGuard | None:
    """Return who judges where an account may lead; None for a base URL that the environment itself names.

    Any port will do. A sandbox may be on this computer; private networks are opened like those of webhooks.
    """
    if account.base_url.rstrip("/") in (settings.OPENAI_BASE_URL, settings.ANTHROPIC_BASE_URL):
        return None
    opened = [*settings.BATCHER_ALLOW_PRIVATE_DESTINATIONS]
    if account.is_sandbox:
        opened += _THIS_COMPUTER
    return AddressGuard.opening(opened, ports=None)


def note_trouble(account: Account, error: ProviderError, now: datetime) -> None:
    """Keep a credentials error on the account, where the operator looks for it."""
    if error.trouble is not Trouble.CREDENTIALS:
        return
    logger.error("account refused by provider", extra={"account": account.name, "code": error.code})
    Account.objects.filter(pk=account.pk).update(
        last_error=str(error)[:500], last_error_at=now, last_error_class=class_of(error)
    )


def class_of(error: ProviderError) -> str:
    """Return what kind of error it was in a few words: ``credentials, 401, invalid_api_key``."""
    status = "" if error.status is None else str(error.status)
    return ", ".join(filter(None, (error.trouble.value, status, error.code)))[:120]


def note_success(account: Account, now: datetime) -> None:
    """Forget the account's last trouble, for the provider took a call; keep when, to the minute."""
    last = account.last_success_at
    if not account.last_error and last is not None and now - last < _NOTED_EVERY:
        return
    account.last_error, account.last_success_at = "", now
    Account.objects.filter(pk=account.pk).update(
        last_error="", last_error_at=None, last_error_class="", last_success_at=now
    )
