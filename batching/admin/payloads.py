"""What a client sent and what the provider answered, for those who may see it. Each look is logged.

Decides how much of a body is shown (SHOWN_BYTES; whole as a download) and how. ``requests`` routes here.
Bodies are personal data: without the permission ``batching.view_payload`` nothing of them leaves here.
No answer is cached anywhere: ``admin_view`` says so for every page of the admin.
"""

from __future__ import annotations

import json
import re
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from django.core.exceptions import PermissionDenied
from django.db.models import BinaryField
from django.db.models.functions import Length, Substr
from django.http import Http404, HttpResponse
from django.template.response import TemplateResponse
from django.urls import reverse
from django.views.decorators.http import require_safe

from batching.admin import shown
from batching.admin.audit import note
from batching.audit import record
from batching.lifecycle import Actor
from batching.models import Answer, Request, RequestBody

if TYPE_CHECKING:
    from django.db.models import QuerySet
    from django.http import HttpRequest

    from batching.admin.requests import RequestAdmin

PAYLOAD_PERMISSION = "batching.view_payload"
SHOWN_BYTES = 200_000
DEEPEST_INDENT = 40
_PIECE = re.compile(r'"(?:[^"\\]|\\.)*"|[{}\[\],:]|[^\s{}\[\],:"]+')


@dataclass(frozen=True, kw_only=True)
class Part:
    """One body or answer, as the viewer shows it."""

    title: str
    size: str
    text: str
    is_cut: bool
    raw_url: str
    """Where the whole of it is downloaded, byte for byte."""


@require_safe
def payload_view(request: HttpRequest, object_id: str, request_admin: RequestAdmin) -> HttpResponse:
    """Show the body and every answer of a request, and log who looked."""
    row = _allowed_row(request, object_id, request_admin)
    _note(request, row, "Looked at the body and answers")
    context = {
        **request_admin.admin_site.each_context(request),
        "opts": request_admin.opts,
        "original": row,
        "title": "Body and answers",
        "parts": _parts(row),
        "back": shown.page_of(row),
    }
    return TemplateResponse(request, "batcher/admin/payload_view.html", context)


@require_safe
def raw_view(
    request: HttpRequest, object_id: str, part: str, request_admin: RequestAdmin
) -> HttpResponse:
    """Download one part (``body``, ``metadata``, ``answer-N``) byte for byte, and log who did."""
    row = _allowed_row(request, object_id, request_admin)
    content = _bytes_of(row, part)
    if content is None:
        raise Http404(f"no {part}")
    _note(request, row, f"Downloaded {part}")
    return HttpResponse(
        content,
        content_type="application/octet-stream",
        headers={"Content-Disposition": f'attachment; filename="{row.key}-{part}.json"'},
    )


def _allowed_row(request: HttpRequest, object_id: str, request_admin: RequestAdmin) -> Request:
    if not request.user.has_perm(PAYLOAD_PERMISSION) or not request_admin.has_view_permission(
        request
    ):
        raise PermissionDenied
    row = request_admin.row_at(request, object_id)
    if row is None:
        raise Http404(f"no request {object_id}")
    return row


def _note(request: HttpRequest, row: Request, text: str) -> None:
    user_id = int(request.user.pk or 0)
    record("payload.view", by=Actor(name=request.user.get_username(), user_id=user_id), row=row,
           reason=text)  # fmt: skip
    note(Request, row.pk, str(row), text, user_id=user_id)


def _parts(row: Request) -> list[Part]:
    """Return the body, the client's metadata and each answer, none longer than SHOWN_BYTES."""
    bodies: QuerySet[Any] = RequestBody.objects.filter(request=row)
    answers: QuerySet[Any] = Answer.objects.filter(request=row).order_by("attempt")
    parts = [
        _part(row, "body", "What the client sent", *_beginning(bodies, "body")),
        _part(row, "metadata", "Metadata", *_beginning(bodies, "metadata")),
    ]
    for answer in _with_beginning(answers, "line").defer("line"):
        title = f"Answer to attempt {answer.attempt}: status {answer.status_code or 'unknown'}"
        found = (bytes(answer.beginning), answer.size)
        parts.append(_part(row, f"answer-{answer.attempt}", title, *found))
    return parts


def _with_beginning(rows: QuerySet[Any], field: str) -> QuerySet[Any]:
    """Add the size of a column and its first SHOWN_BYTES, so that 20 MB stay in the database."""
    beginning = Substr(field, 1, SHOWN_BYTES, output_field=BinaryField())
    annotated: QuerySet[Any] = rows.annotate(size=Length(field), beginning=beginning)
    return annotated


def _beginning(rows: QuerySet[Any], field: str) -> tuple[bytes, int]:
    found = _with_beginning(rows, field).values_list("beginning", "size").first()
    return (bytes(found[0]), found[1]) if found else (b"", 0)


def _part(row: Request, name: str, title: str, beginning: bytes, size_bytes: int) -> Part:
    is_cut = size_bytes > len(beginning)
    return Part(
        title=title,
        size=shown.size(size_bytes),
        text=beginning.decode("utf-8", "replace") if is_cut else _indented(beginning),
        is_cut=is_cut,
        raw_url=reverse("admin:batching_request_raw", args=[row.pk, name]),
    )


def _indented(content: bytes) -> str:
    """Return JSON indented, every string and number as it was written; what is no JSON, as it is."""
    text = content.decode("utf-8", "replace")
    try:
        json.loads(text)
    except (ValueError, RecursionError):
        return text
    return _laid_out(text)


def _laid_out(text: str) -> str:
    depth, before, out = 0, "", []
    for piece in _PIECE.findall(text):
        opens, closes = piece in ("{", "["), piece in ("}", "]")
        depth -= closes
        is_empty = closes and before in ("{", "[")
        if not is_empty and (closes or before in ("{", "[", ",")):
            out.append("\n" + "  " * min(depth, DEEPEST_INDENT))
        out.append(": " if piece == ":" else piece)
        depth += opens
        before = piece
    return "".join(out)


def _bytes_of(row: Request, part: str) -> bytes | None:
    """Return one part whole, or None when there is none of that name."""
    if part in ("body", "metadata"):
        found = RequestBody.objects.filter(request=row).values_list(part, flat=True).first()
    elif part.startswith("answer-") and part[7:].isdigit() and len(part) <= 12:
        answers = Answer.objects.filter(request=row, attempt=int(part[7:]))
        found = answers.values_list("line", flat=True).first()
    else:
        return None
    return bytes(found) if found is not None else None
