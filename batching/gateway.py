"""From an account's row to a provider that can be called, and back: what a failed call means for it.

The only place in the core that makes providers. An account's trouble is noted on its row, so that
the operator sees a revoked key at once and no batch is failed by it.
"""

from __future__ import annotations

import logging
from datetime import datetime

from batching.models import Account
from batching.providers.base import Provider, ProviderError, Trouble
from batching.providers.registry import provider_for

logger = logging.getLogger(__name__)


def connect(account: Account) -> Provider:
    """Return the provider of ``account``. Raises ProviderError when the row can't work."""
    return provider_for(account.kind, base_url=account.base_url, api_key=account.api_key)


def note_trouble(account: Account, error: ProviderError, now: datetime) -> None:
    """Keep a credentials error on the account, where the operator looks for it."""
    if error.trouble is not Trouble.CREDENTIALS:
        return
    logger.error("account refused by provider", extra={"account": account.name, "code": error.code})
    Account.objects.filter(pk=account.pk).update(last_error=str(error)[:500], last_error_at=now)


def note_success(account: Account) -> None:
    """Forget the account's last trouble: the provider took a call."""
    if account.last_error:
        Account.objects.filter(pk=account.pk).update(last_error="", last_error_at=None)
        account.last_error = ""
