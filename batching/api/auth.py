"""Who calls: the API key of ``Authorization: Bearer``, its project, and what it may do.

A door whose clients send their key in a header of its own names that one with `also_in`.

Decides between 401 (no key, an unknown, revoked or expired one: all the same to the caller) and 403 (a
key without the scope). Called by `operations` before any view. Never looks at cookies or the query.
"""

from __future__ import annotations

from dataclasses import dataclass

from django.http import HttpRequest
from django.utils import timezone

from batching.api.errors import ApiError
from batching.api.memory import Memory
from batching.lifecycle import Actor
from batching.models import ApiKey, Project
from batching.models.projects import Scope, digest

_OTHER_HEADER = "batcher.key_header"
_known: Memory[ApiKey] = Memory(seconds=10)
"""Keys by the digest of their secret: a revoked one opens nothing ten seconds later."""


@dataclass(frozen=True, kw_only=True)
class Caller:
    """The key that a call carries, and so the project that it acts for."""

    key: ApiKey
    project: Project

    @property
    def actor(self) -> Actor:
        """Who the log names for what this call causes."""
        return Actor(name=f"key {self.key.prefix}")


class _NoSuchKey(Exception):
    """No valid key has this secret; raised so that it is not remembered."""


def caller_of(request: HttpRequest, scope: Scope) -> Caller:
    """Return who calls. Raises ApiError 401 or 403."""
    now = timezone.now()
    secret_digest = digest(_secret(request))
    try:
        key = _known.get(secret_digest, lambda: _find(secret_digest))
    except _NoSuchKey:
        raise _unauthorized("this API key is not valid") from None
    if not key.is_valid or not key.opens_with(secret_digest, now):
        raise _unauthorized("this API key is not valid")
    if not key.allows(scope):
        raise ApiError("insufficient_scope", f"this API key lacks the scope `{scope}`")
    key.touch(now)
    return Caller(key=key, project=key.project)


def also_in(request: HttpRequest, header: str) -> None:
    """Take the key of this call from that header when it has no Authorization."""
    request.META[_OTHER_HEADER] = header


def _secret(request: HttpRequest) -> str:
    sent = request.headers.get("Authorization")
    scheme, _, secret = (sent or "").partition(" ")
    if scheme.lower() == "bearer" and secret.strip():
        return secret.strip()
    other = request.META.get(_OTHER_HEADER)
    if other and sent is None and (secret := request.headers.get(other, "").strip()):
        return secret
    ways = f", or in `{other}`" if other else ""
    raise _unauthorized(f"send an API key as `Authorization: Bearer <key>`{ways}")


def _find(secret_digest: str) -> ApiKey:
    now = timezone.now()
    key = ApiKey.objects.valid(now).opened_by(secret_digest, now).select_related("project").first()
    if key is None:
        raise _NoSuchKey
    return key


def _unauthorized(detail: str) -> ApiError:
    return ApiError("unauthorized", detail, headers={"WWW-Authenticate": "Bearer"})
