"""The page that shows a new secret: once, as the answer to the form that made it, stored nowhere.

Called by the admins of API keys and destinations. A redirect would have to park the secret in a session
or a cookie, so there is none.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from django.template.response import TemplateResponse

from batching.admin import shown

if TYPE_CHECKING:
    from django.db.models import Model
    from django.http import HttpRequest


def shown_once(
    request: HttpRequest, admin: Any, row: Model, *, secret: str, advice: str
) -> TemplateResponse:
    """Return the page with ``secret`` and, in a sentence of ``advice``, what it is for."""
    context = {
        **admin.admin_site.each_context(request),
        "opts": admin.opts,
        "original": row,
        "title": f"Secret of {row}",
        "secret": secret,
        "advice": advice,
        "next": shown.page_of(row),
    }
    return TemplateResponse(request, "batcher/admin/secret_once.html", context)
