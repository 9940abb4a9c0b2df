"""Each call gets an id; sessions, logins, messages, CSRF and the content policy are for pages only.

Decides how a call is named in the audit log and in its answer (`Scenes`), and which paths are for machines: they carry an API key in a header or nothing, never a cookie, so
they need none of this and are measured by the millisecond. Django's handler calls these classes; the
names keep Django's own as bases, so its system checks still see what the admin needs.
Never decides who may do what.
"""

from __future__ import annotations

import re
import uuid
from typing import TYPE_CHECKING, Any, Final

from django.contrib.auth.middleware import AuthenticationMiddleware
from django.contrib.messages.middleware import MessageMiddleware
from django.contrib.sessions.middleware import SessionMiddleware
from django.middleware.clickjacking import XFrameOptionsMiddleware
from django.middleware.csrf import CsrfViewMiddleware
from django.urls import reverse
from django_htmx.http import HttpResponseClientRefresh
from django_htmx.middleware import HtmxMiddleware

from batching.audit import scene

if TYPE_CHECKING:
    from collections.abc import Callable

    from django.http import HttpRequest, HttpResponseBase

MACHINE_PATHS = ("/api/", "/v1/", "/hooks/", "/health", "/ready", "/metrics")
"""Beginnings of paths that no browser session is ever used on."""


def is_machine_path(path: str) -> bool:
    """Say whether `path` is one that only programs call."""
    return path.startswith(MACHINE_PATHS)


CALL_ID: Final = "X-Request-Id"
_GIVEN_ID = re.compile(r"[A-Za-z0-9._:-]{1,64}")


class Scenes:
    """Names each call: by the client's ``X-Request-Id`` when it is a plain word, else by one of ours.

    The id is answered as a header and stands in the audit log beside the address that the call came from.
    """

    def __init__(self, get_response: Callable[[HttpRequest], HttpResponseBase]) -> None:
        self.get_response = get_response

    def __call__(self, request: HttpRequest) -> HttpResponseBase:
        """Answer within the scene."""
        given = request.headers.get(CALL_ID, "")
        call_id = given if _GIVEN_ID.fullmatch(given) else uuid.uuid4().hex
        with scene(ip=request.META.get("REMOTE_ADDR") or None, call_id=call_id):
            answer = self.get_response(request)
        answer[CALL_ID] = call_id
        return answer


class _PagesOnly:
    """Put before a middleware class: machine paths skip it."""

    get_response: Any

    def __call__(self, request: HttpRequest) -> HttpResponseBase:
        """Pass `request` on, through the wrapped middleware unless a machine sent it."""
        if is_machine_path(request.path_info):
            return self.get_response(request)  # type: ignore[no-any-return]  # Any, for two kinds of base
        return super().__call__(request)  # type: ignore[misc,no-any-return]  # the next class


PAGE_POLICY: Final = "; ".join(
    (
        "default-src 'none'",
        "script-src 'self' 'unsafe-eval'",
        "style-src-elem 'self'",
        "style-src-attr 'unsafe-inline'",
        "img-src 'self' data:",
        "font-src 'self'",
        "connect-src 'self'",
        "form-action 'self'",
        "base-uri 'none'",
        "frame-ancestors 'none'",
    )
)
"""What a page may load: our own files alone. The theme forces two words open, both told in SECURITY.md: Alpine
evaluates the expressions in its attributes, and draws widths and places as style attributes."""


class PagePolicy:
    """A Content-Security-Policy on each page. One and the same for all, so no library is needed for it."""

    def __init__(self, get_response: Callable[[HttpRequest], HttpResponseBase]) -> None:
        self.get_response = get_response

    def __call__(self, request: HttpRequest) -> HttpResponseBase:
        """Answer with the policy, unless a view gave a tighter one."""
        answer = self.get_response(request)
        if not is_machine_path(request.path_info):
            answer.headers.setdefault("Content-Security-Policy", PAGE_POLICY)
        return answer


class PageSessions(_PagesOnly, SessionMiddleware):
    """Sessions for pages."""


class PageLogins(_PagesOnly, AuthenticationMiddleware):
    """Logged-in users for pages."""


class PageMessages(_PagesOnly, MessageMiddleware):
    """One-time messages for pages."""


class PageFrames(_PagesOnly, XFrameOptionsMiddleware):
    """No framing of pages."""


class PageHtmx(_PagesOnly, HtmxMiddleware):
    """`request.htmx` for pages; a part that needs a login loads its whole page anew, which leads there."""

    def __call__(self, request: HttpRequest) -> HttpResponseBase:
        """Pass `request` on; htmx would follow a redirect and look for its part in the login page."""
        answer = super().__call__(request)
        to = answer.get("Location", "")
        if to and getattr(request, "htmx", False) and to.startswith(reverse("admin:login")):
            return HttpResponseClientRefresh()
        return answer


class PageCsrf(_PagesOnly, CsrfViewMiddleware):
    """CSRF tokens for pages; machine paths know no cookies, so nothing can be forged there."""

    def process_view(
        self, request: HttpRequest, callback: Any, callback_args: Any, callback_kwargs: Any
    ) -> Any:
        """Check the token of a page's form; Django calls this apart from `__call__`."""
        if is_machine_path(request.path_info):
            return None
        return super().process_view(request, callback, callback_args, callback_kwargs)
