"""Sessions, logins, messages and CSRF for pages only: the machine's paths go past them.

Decides which paths are for machines: they carry an API key in a header or nothing, never a cookie, so
they need none of this and are measured by the millisecond. Django's handler calls these classes; the
names keep Django's own as bases, so its system checks still see what the admin needs.
Never decides who may do what.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from django.contrib.auth.middleware import AuthenticationMiddleware
from django.contrib.messages.middleware import MessageMiddleware
from django.contrib.sessions.middleware import SessionMiddleware
from django.middleware.clickjacking import XFrameOptionsMiddleware
from django.middleware.csrf import CsrfViewMiddleware
from django_htmx.middleware import HtmxMiddleware

if TYPE_CHECKING:
    from django.http import HttpRequest, HttpResponseBase

MACHINE_PATHS = ("/api/", "/v1/", "/health", "/ready", "/metrics")
"""Beginnings of paths that no browser session is ever used on."""


def is_machine_path(path: str) -> bool:
    """Say whether `path` is one that only programs call."""
    return path.startswith(MACHINE_PATHS)


class _PagesOnly:
    """Put before a middleware class: machine paths skip it."""

    get_response: Any

    def __call__(self, request: HttpRequest) -> HttpResponseBase:
        """Pass `request` on, through the wrapped middleware unless a machine sent it."""
        if is_machine_path(request.path_info):
            return self.get_response(request)  # type: ignore[no-any-return]  # Any, for two kinds of base
        return super().__call__(request)  # type: ignore[misc,no-any-return]  # the next class


class PageSessions(_PagesOnly, SessionMiddleware):
    """Sessions for pages."""


class PageLogins(_PagesOnly, AuthenticationMiddleware):
    """Logged-in users for pages."""


class PageMessages(_PagesOnly, MessageMiddleware):
    """One-time messages for pages."""


class PageFrames(_PagesOnly, XFrameOptionsMiddleware):
    """No framing of pages."""


class PageHtmx(_PagesOnly, HtmxMiddleware):
    """`request.htmx` for pages."""


class PageCsrf(_PagesOnly, CsrfViewMiddleware):
    """CSRF tokens for pages; machine paths know no cookies, so nothing can be forged there."""

    def process_view(
        self, request: HttpRequest, callback: Any, callback_args: Any, callback_kwargs: Any
    ) -> Any:
        """Check the token of a page's form; Django calls this apart from `__call__`."""
        if is_machine_path(request.path_info):
            return None
        return super().process_view(request, callback, callback_args, callback_kwargs)
