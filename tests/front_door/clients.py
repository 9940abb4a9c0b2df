"""Clients of projects, made on demand and closed in the end, whichever door they speak to."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import ExitStack, closing, contextmanager
from typing import Any

from batching.api import memory
from batching.models import ApiKey, Project


@contextmanager
def clients(door: Callable[[str, str], Any], url: str) -> Iterator[Callable[..., Any]]:
    """Give a function that makes a client of the project with that name; more words are its key's fields."""
    memory.forget_all()
    with ExitStack() as open_ones:

        def make(project_name: str, *, scopes: list[str] | None = None, **bounds: Any) -> Any:
            project, _ = Project.objects.get_or_create(name=project_name)
            key, secret = ApiKey.issue(project, "door", scopes=scopes)
            for field, value in bounds.items():
                setattr(key, field, value)
            key.save()
            made = door(url, secret)
            open_ones.enter_context(closing(made.sdk))
            return made

        yield make
    memory.forget_all()
