"""A provider says that a batch ended: believed when it is signed, heard once, and looked at then.

A notice carries no result and settles nothing; it makes the batch due for a look, which the clock takes within
seconds. Called by the API. Signatures are those of Standard Webhooks, by its own library.
"""

from __future__ import annotations

import base64
import logging
from collections.abc import Iterable, Mapping
from datetime import datetime
from typing import Final

import msgspec
from django.db import transaction
from standardwebhooks.webhooks import (
    EmptyWebhookSecretError,
    Webhook,
    WebhookVerificationError,
)

from batching import polling
from batching.models import Account, Notice

logger = logging.getLogger(__name__)

OPENAI_KINDS: Final = (Account.Kind.OPENAI, Account.Kind.SANDBOX)
_PREFIX: Final = "whsec_"


class WrongSignatureError(Exception):
    """No account's secret made it, or it is too old."""


class Subject(msgspec.Struct, frozen=True):
    """What an event is about."""

    id: str = ""


class Event(msgspec.Struct, frozen=True):
    """An event of OpenAI's webhooks (its API reference, 2026-11): thin, whatever it is about."""

    type: str
    data: Subject = Subject()


def take(
    accounts: Iterable[Account], body: bytes, headers: Mapping[str, str], now: datetime
) -> None:
    """Hear what the provider of one of these accounts says.

    Raises WrongSignatureError, or msgspec.DecodeError for a signed body that is no event.
    """
    account = _sender(accounts, body, headers)
    event = msgspec.json.decode(body, type=Event)
    with transaction.atomic():
        _, is_new = Notice.objects.get_or_create(
            account=account,
            message_id=headers["webhook-id"][:200],
            defaults={"type": event.type[:60], "came_at": now},
        )
        is_ours = (
            is_new and event.type.startswith("batch.") and polling.wake(account, event.data.id, now)
        )
    facts = {"account": account.name, "type": event.type[:60], "is_new": is_new, "woke": is_ours}
    logger.info("provider's notice", extra=facts)


def _sender(accounts: Iterable[Account], body: bytes, headers: Mapping[str, str]) -> Account:
    for account in accounts:
        if is_signed_with(account.webhook_secret, body, headers):
            return account
    raise WrongSignatureError


def is_signed_with(secret: str, body: bytes, headers: Mapping[str, str]) -> bool:
    """Tell whether this secret signed it, at most five minutes ago or ahead."""
    try:
        _webhook(secret).verify(body, dict(headers), json_parse=False)
    except (
        WebhookVerificationError,
        ValueError,
    ):  # ValueError: headers that are no base64, no pair
        return False
    return True


def secret_problem(secret: str) -> str:
    """Return what is wrong with a secret that someone typed; empty when nothing is."""
    try:
        _webhook(secret)
    except (EmptyWebhookSecretError, ValueError):
        return f"{_PREFIX} is followed by base64"
    return "" if len(secret) >= 16 else "must have 16 or more characters"


def _webhook(secret: str) -> Webhook:
    """Return what verifies; a secret without the standard's prefix is used as it is (OpenAI's SDK)."""
    if not secret.startswith(_PREFIX):
        return Webhook(secret.encode())
    return Webhook(base64.b64decode(secret.removeprefix(_PREFIX), validate=True))
