"""How many rows a list shows at once: 20, 50 or 100, chosen in its address and remembered in the session, list by list."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

from batching.admin.keyset import KeysetChangeList

if TYPE_CHECKING:
    from django.db.models import QuerySet
    from django.http import HttpRequest

SIZES: Final = (20, 50, 100)
SIZE: Final = "size"


class SizedList(KeysetChangeList):
    """A list read by row id, in pages of the size that was chosen last; its admin's ``list_per_page`` is the first."""

    def get_queryset(self, request: HttpRequest, *args: Any, **kwargs: Any) -> QuerySet[Any]:
        """Take the size out of the address, so that every form and link means the filter alone."""
        for params in (self.params, self.filter_params):
            params.pop(SIZE, None)
        self.list_per_page = _size(request, self.opts.model_name or "", usual=self.list_per_page)
        filters = request.GET.copy()
        filters.pop(SIZE, None)
        request.GET = filters  # type: ignore[assignment]  # Django's admin writes it too
        return super().get_queryset(request, *args, **kwargs)

    @property
    def size_links(self) -> list[tuple[int, str, bool]]:
        """Each choice of a size, its address, and whether it is the present one."""
        address = self.get_query_string
        return [(size, address({SIZE: size}), size == self.list_per_page) for size in SIZES]


def _size(request: HttpRequest, name: str, *, usual: int) -> int:
    """Return the size asked for, else the one that was chosen last, else the usual one."""
    session: Any = getattr(request, "session", {})
    asked, key = request.GET.get(SIZE, ""), f"{name}s_on_a_page"
    if asked in map(str, SIZES):
        if session.get(key) != int(asked):
            session[key] = int(asked)
        return int(asked)
    kept = session.get(key)
    return kept if kept in SIZES else usual
