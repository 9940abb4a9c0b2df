"""What providers call: their webhooks, which need no key of ours, for they are signed.

Answers the same to everything that is rightly signed, so that nobody learns which batches are ours.
"""

from __future__ import annotations

from typing import Final

import msgspec
from django.http import HttpRequest, HttpResponse
from django.utils import timezone

from batching import notices
from batching.api import reading
from batching.api.errors import ApiError
from batching.api.operations import Answer, Body, operation
from batching.models import Account
from batching.notices import Event, WrongSignatureError

_MAX_BYTES: Final = 64 * 1024
_HEADERS: Final = ("webhook-id", "webhook-timestamp", "webhook-signature")
_MOST_ACCOUNTS: Final = 100
_ANSWERS: Final = {204: Answer("It was heard, now or before.", media_type="")}
_EVENT: Final = Body(
    type=Event,
    example='{"id": "evt_1", "object": "event", "type": "batch.completed", "created_at": 1790000000,'
    ' "data": {"id": "batch_1"}}',
)


@operation(scope=None, body=_EVENT, answers=_ANSWERS, fails=(400, 413, 415))
def hear_openai(request: HttpRequest) -> HttpResponse:
    """Take an event of OpenAI's webhooks, for whichever account it is signed.

    For OpenAI to call: it looks at the batch at once. Signed by Standard Webhooks with the secret that the
    account has for it; an event that came before is taken and does nothing.
    """
    return _heard(request, {})


@operation(scope=None, body=_EVENT, answers=_ANSWERS, fails=(400, 413, 415))
def hear_openai_for(request: HttpRequest, account_id: str) -> HttpResponse:
    """Take an event of OpenAI's webhooks for one account, by its number in the panel."""
    return _heard(
        request, {"pk": account_id if account_id.isascii() and account_id.isdigit() else 0}
    )


def _heard(request: HttpRequest, which: dict[str, str | int]) -> HttpResponse:
    body = b"".join(reading.pieces(request, at_most=_MAX_BYTES))
    headers = {name: request.headers.get(name, "") for name in _HEADERS}
    accounts = Account.objects.filter(kind__in=notices.OPENAI_KINDS, **which)
    signing = accounts.exclude(webhook_secret="").order_by("pk")[:_MOST_ACCOUNTS]
    try:
        notices.take(signing, body, headers, timezone.now())
    except WrongSignatureError:
        raise ApiError("wrong_signature", "it is not signed with a secret of ours") from None
    except msgspec.DecodeError:
        raise ApiError("malformed_json", "the body is no event") from None
    return HttpResponse(status=204)
