"""Which kinds of account there are, and the class that speaks for each: one line a provider.

``provider_for`` is the one way into this package. How to add a line: docs/adding-a-provider.md.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Protocol

from batching.providers.anthropic import Anthropic
from batching.providers.base import Limits, Provider, ProviderError, Traits, Trouble
from batching.providers.guarding import Judge, judged_by
from batching.providers.http import Timeouts
from batching.providers.openai import OpenAI


class _Maker(Protocol):
    limits: Limits
    traits: Traits

    def __call__(
        self, *, base_url: str, api_key: str, timeouts: Timeouts | None = None
    ) -> Provider:
        """Make the provider of one account."""


_MAKERS: Mapping[str, _Maker] = {
    "openai": OpenAI,
    "anthropic": Anthropic,
    "sandbox": OpenAI,
    "sandbox-anthropic": Anthropic,
}

KINDS: tuple[str, ...] = tuple(_MAKERS)


def provider_for(
    kind: str,
    *,
    base_url: str,
    api_key: str,
    timeouts: Timeouts | None = None,
    judge: Judge | None = None,
) -> Provider:
    """Return the provider of one account, for use in one thread. Nothing is sent yet.

    ``judge`` is asked before each connection; None: the base URL is trusted.

    Raises ProviderError(CREDENTIALS) when the account cannot work as it is written: an unknown
    kind, a base URL or a key that no HTTP call can carry. An empty key sends none.
    """
    with judged_by(judge):
        return _maker(kind)(base_url=base_url, api_key=api_key, timeouts=timeouts)


def limits_for(kind: str) -> Limits:
    """Return what one provider batch of this kind may hold, without an account at hand."""
    return _maker(kind).limits


def traits_for(kind: str) -> Traits:
    """Return in which points this kind's API differs, without an account at hand."""
    return _maker(kind).traits


def _maker(kind: str) -> _Maker:
    if kind not in _MAKERS:
        raise ProviderError(f"unknown kind of provider: {kind[:50]!r}", trouble=Trouble.CREDENTIALS)
    return _MAKERS[kind]
