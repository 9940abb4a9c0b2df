"""What a client sent and what the provider answered, for those who may see it. Each look is logged.

Decides how much of a body is shown (SHOWN_BYTES; whole as a download) and how. ``requests`` routes here.
Bodies are personal data: without the permission ``batching.view_payload`` nothing of them leaves here.
No answer is cached anywhere: ``admin_view`` says so for every page of the admin.
"""

from __future__ import annotations

import json
import re
from dataclasses import dataclass
from difflib import unified_diff
from itertools import islice
from typing import TYPE_CHECKING, Any

from django.core.exceptions import PermissionDenied
from django.db.models import BinaryField
from django.db.models.functions import Length, Substr
from django.http import Http404, HttpResponse, HttpResponseRedirect
from django.template.response import TemplateResponse
from django.urls import reverse
from django.views.decorators.http import require_safe

from batching.admin import curl, shown
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
ALL_BYTES = 5_000_000
"""What *show all* shows; what is longer still is downloaded."""
DIFF_LINES = 2_000
DEEPEST_INDENT = 40
_TITLES = {"body": "What the client sent", "metadata": "Metadata"}
_PIECE = re.compile(r'"(?:[^"\\]|\\.)*"|[{}\[\],:]|[^\s{}\[\],:"]+')


@dataclass(frozen=True, kw_only=True)
class Part:
    """One body or answer, as the viewer shows it."""

    name: str
    title: str
    size: str
    text: str
    is_cut: bool
    raw_url: str
    """Where the whole of it is downloaded, byte for byte."""


@dataclass(frozen=True, kw_only=True)
class Content:
    """What there is to be looked at, without a look."""

    name: str
    title: str
    size: str
    view_url: str
    raw_url: str


@dataclass(frozen=True, kw_only=True)
class Showing:
    """How a part is to be shown."""

    most: int = SHOWN_BYTES
    is_exact: bool = False
    """As the bytes that came; else JSON is indented."""


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
        "parts": _parts(row, Showing(most=SHOWN_BYTES)),
        "back": shown.page_of(row),
    }
    return TemplateResponse(request, "batcher/admin/payload_view.html", context)


@require_safe
def part_view(
    request: HttpRequest, object_id: str, part: str, request_admin: RequestAdmin
) -> HttpResponse:
    """Show one part within a request's page, and log who looked; to anyone but htmx, show all on one page."""
    row = _allowed_row(request, object_id, request_admin)
    if not getattr(request, "htmx", False):
        return HttpResponseRedirect(reverse("admin:batching_request_payload", args=[row.pk]))
    is_all, is_exact = "all" in request.GET, request.GET.get("as") == "came"
    how = Showing(most=ALL_BYTES if is_all else SHOWN_BYTES, is_exact=is_exact)
    found = next((one for one in _parts(row, how, only=part)), None)
    if found is None:
        raise Http404(f"no {part}")
    _note(request, row, f"Looked at {part}")
    context = {
        "part": found,
        "is_all": is_all,
        "is_exact": is_exact,
        "view_url": _url(row, "part", part),
        "curl": ""
        if part != "body" or found.is_cut
        else curl.of(row, request.build_absolute_uri("/")),
    }
    return TemplateResponse(request, "batcher/admin/_payload_part.html", context)


@require_safe
def compare_view(request: HttpRequest, object_id: str, request_admin: RequestAdmin) -> HttpResponse:
    """Show how the last answer differs from the one before it, line by line, and log who looked."""
    row = _allowed_row(request, object_id, request_admin)
    answers = [one for one in _parts(row, Showing()) if one.name.startswith("answer-")][-2:]
    if len(answers) < 2:
        raise Http404("there are no two answers to compare")
    _note(request, row, "Compared two answers")
    before, after = (one.text.splitlines() for one in answers)
    lines = unified_diff(before, after, answers[0].title, answers[1].title, lineterm="", n=5)
    text = "\n".join(islice(lines, DIFF_LINES)) or "They are the same."
    context = {
        **request_admin.admin_site.each_context(request),
        "opts": request_admin.opts,
        "original": row,
        "title": "Two answers compared",
        "parts": [Part(name="compare", title="From the one before to the last", size="", text=text,
                       is_cut=any(one.is_cut for one in answers), raw_url="")],
        "back": shown.page_of(row),
    }  # fmt: skip
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


def contents_of(row: Request) -> list[Content]:
    """Return what there is of a request to be looked at: names and sizes alone, in two queries."""
    bodies = RequestBody.objects.filter(request=row)
    sizes = bodies.values_list(Length("body"), Length("metadata")).first() or (0, 0)
    found = [_content(row, "body", _TITLES["body"], sizes[0])]
    if sizes[1] > len(b"{}"):
        found.append(_content(row, "metadata", _TITLES["metadata"], sizes[1]))
    answers = Answer.objects.filter(request=row).order_by("attempt")
    for attempt, status, size in answers.values_list("attempt", "status_code", Length("line")):
        found.append(_content(row, f"answer-{attempt}", _title(attempt, status), size))
    return found


def _content(row: Request, name: str, title: str, size_bytes: int) -> Content:
    return Content(
        name=name,
        title=title,
        size=shown.size(size_bytes),
        view_url=_url(row, "part", name),
        raw_url=_url(row, "raw", name),
    )


def _url(row: Request, page: str, part: str) -> str:
    return reverse(f"admin:batching_request_{page}", args=[row.pk, part])


def _title(attempt: int, status: int | None) -> str:
    return f"Answer to attempt {attempt}: status {status or 'unknown'}"


def _parts(row: Request, how: Showing, *, only: str = "") -> list[Part]:
    """Return the body, the client's metadata and each answer, or only one of them, none longer than is shown."""
    bodies: QuerySet[Any] = RequestBody.objects.filter(request=row)
    answers: QuerySet[Any] = Answer.objects.filter(request=row).order_by("attempt")
    parts = [
        _part(row, how, (name, title), *_beginning(bodies, name, how.most))
        for name, title in _TITLES.items()
        if only in ("", name)
    ]
    if only:
        number = only.removeprefix("answer-")
        answers = answers.filter(
            attempt=int(number) if number.isdecimal() and len(number) < 6 else -1
        )
    for answer in _with_beginning(answers, "line", how.most).defer("line"):
        named = (f"answer-{answer.attempt}", _title(answer.attempt, answer.status_code))
        parts.append(_part(row, how, named, bytes(answer.beginning), answer.size))
    return parts


def _with_beginning(rows: QuerySet[Any], field: str, most: int) -> QuerySet[Any]:
    """Add the size of a column and its beginning, so that 20 MB stay in the database."""
    beginning = Substr(field, 1, most, output_field=BinaryField())
    annotated: QuerySet[Any] = rows.annotate(size=Length(field), beginning=beginning)
    return annotated


def _beginning(rows: QuerySet[Any], field: str, most: int) -> tuple[bytes, int]:
    found = _with_beginning(rows, field, most).values_list("beginning", "size").first()
    return (bytes(found[0]), found[1]) if found else (b"", 0)


def _part(
    row: Request, how: Showing, named: tuple[str, str], beginning: bytes, size_bytes: int
) -> Part:
    is_cut = size_bytes > len(beginning)
    is_plain = is_cut or how.is_exact
    return Part(
        name=named[0],
        title=named[1],
        size=shown.size(size_bytes),
        text=beginning.decode("utf-8", "replace") if is_plain else _indented(beginning),
        is_cut=is_cut,
        raw_url=_url(row, "raw", named[0]),
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
