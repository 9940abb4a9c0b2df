"""Which kinds of account there are, and the class that speaks for each: one line a provider.

``provider_for`` is the one way into this package. How to add a line: docs/adding-a-provider.md.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Protocol

from batching.providers.base import Limits, Provider, ProviderError, Trouble
from batching.providers.http import Timeouts
from batching.providers.openai import OpenAI


class _Maker(Protocol):
    limits: Limits

    def __call__(
        self, *, base_url: str, api_key: str, timeouts: Timeouts | None = None
    ) -> Provider:
        """Make the provider of one account."""


_MAKERS: Mapping[str, _Maker] = {
    "openai": OpenAI,
    "sandbox": OpenAI,
}

KINDS: tuple[str, ...] = tuple(_MAKERS)


def provider_for(
    kind: str, *, base_url: str, api_key: str, timeouts: Timeouts | None = None
) -> Provider:
    """Return the provider of one account, for use in one thread. Nothing is sent yet.

    Raises ProviderError(CREDENTIALS) when the account cannot work as it is written: an unknown
    kind, a base URL or a key that no HTTP call can carry. An empty key sends none.
    """
    return _maker(kind)(base_url=base_url, api_key=api_key, timeouts=timeouts)


def limits_for(kind: str) -> Limits:
    """Return what one provider batch of this kind may hold, without an account at hand."""
    return _maker(kind).limits


def _maker(kind: str) -> _Maker:
    if kind not in _MAKERS:
        raise ProviderError(f"unknown kind of provider: {kind[:50]!r}", trouble=Trouble.CREDENTIALS)
    return _MAKERS[kind]
