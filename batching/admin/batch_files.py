"""A batch's files: what the provider keeps, what we keep, and either of them as a download.

Our copy of the input is written out from the bodies of the requests that the batch holds now; that of the answers from
the stored lines, byte for byte. The provider's file is fetched when somebody asks for it. All of it is personal data: it
takes the permission that bodies and answers take, and each look is logged.
"""

from __future__ import annotations

import logging
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

from django.conf import settings
from django.contrib import messages
from django.core.exceptions import PermissionDenied
from django.http import FileResponse, Http404, HttpResponseRedirect, StreamingHttpResponse
from django.shortcuts import get_object_or_404
from django.urls import reverse
from django.views.decorators.http import require_safe

from batching import pages
from batching.admin import shown
from batching.admin.audit import note
from batching.admin.payloads import PAYLOAD_PERMISSION
from batching.audit import record
from batching.gateway import connect
from batching.lifecycle import Actor
from batching.models import Answer, Batch, Request, RequestBody
from batching.providers.base import NotFound, ProviderError

if TYPE_CHECKING:
    from collections.abc import Iterator

    from django.http import HttpRequest
    from django.http.response import HttpResponseBase

    from batching.admin.batches import BatchAdmin

logger = logging.getLogger(__name__)

INPUT, OUTPUT, ERRORS = "input", "output", "errors"
_AT_ONCE: Final = 200


@dataclass(frozen=True, kw_only=True)
class BatchFile:
    """One file as the page shows it."""

    part: str
    label: str
    size: str
    provider_id: str
    expires: str
    ours: str
    """What we have of it, in words."""
    ours_url: str
    """Empty: nothing."""
    provider_url: str
    """Empty: the provider has none."""


def files_of(batch: Batch) -> list[BatchFile]:
    """Return the three files of a batch; no query."""
    has_answers = batch.answered_count is not None or batch.input_tokens is not None
    kept = "every line, byte for byte" if has_answers else "nothing yet"
    ids = {INPUT: batch.input_file_id, OUTPUT: batch.output_file_id, ERRORS: batch.error_file_id}
    ours = {INPUT: "the bodies of what it holds now", OUTPUT: kept, ERRORS: kept}
    labels = {INPUT: "Input", OUTPUT: "Answers", ERRORS: "Errors"}
    return [
        BatchFile(
            part=part,
            label=label,
            size=shown.size(batch.size_bytes) if part == INPUT else shown.NOTHING,
            provider_id=ids[part],
            expires=_expiry(batch, part),
            ours=ours[part],
            ours_url=_url(batch, part, "ours") if part == INPUT or has_answers else "",
            provider_url=_url(batch, part, "provider") if ids[part] else "",
        )
        for part, label in labels.items()
    ]


def _url(batch: Batch, part: str, side: str) -> str:
    return f"{reverse('admin:batching_batch_file', args=[batch.pk, part])}?from={side}"


def _expiry(batch: Batch, part: str) -> str:
    """Say until when the provider keeps a file, where its batch object tells (OpenAI's ``output_expires_after``, 2026)."""
    told: Any = batch.provider_object or {}
    rule = told.get("output_expires_after") if isinstance(told, dict) and part != INPUT else None
    seconds = rule.get("seconds") if isinstance(rule, dict) else None
    return f"{seconds:,} s after it was made" if isinstance(seconds, int) else "not told"


@require_safe
def file_view(
    request: HttpRequest, pk: int, part: str, batch_admin: BatchAdmin
) -> HttpResponseBase:
    """Send one file as a download: our copy, or with ``?from=provider`` the provider's, fetched now. Log who took it."""
    may = request.user.has_perm(PAYLOAD_PERMISSION) and batch_admin.has_view_permission(request)
    if not may:
        raise PermissionDenied
    batch = get_object_or_404(Batch.objects.select_related("lane__account"), pk=pk)
    if part not in (INPUT, OUTPUT, ERRORS):
        raise Http404(f"no file {part}")
    is_remote = request.GET.get("from") == "provider"
    _log(request, batch, f"Took the {part} file{' from the provider' if is_remote else ''}")
    if is_remote:
        return _from_provider(request, batch, part)
    lines = _input_lines(batch) if part == INPUT else _answer_lines(batch, part)
    return StreamingHttpResponse(
        lines,
        content_type="application/jsonl",
        headers={"Content-Disposition": f'attachment; filename="{batch.key}-{part}.jsonl"'},
    )


def _log(request: HttpRequest, batch: Batch, text: str) -> None:
    user_id = int(request.user.pk or 0)
    by = Actor(name=request.user.get_username(), user_id=user_id)
    record("payload.view", by=by, row=batch, reason=text)
    note(Batch, batch.pk, str(batch), text, user_id=user_id)


def _from_provider(request: HttpRequest, batch: Batch, part: str) -> HttpResponseBase:
    ids = {INPUT: batch.input_file_id, OUTPUT: batch.output_file_id, ERRORS: batch.error_file_id}
    file_id = ids[part]
    if not file_id:
        return _said(request, batch, "The provider has no such file of this batch.")
    try:
        return _fetched(batch, file_id)
    except NotFound:
        why = "The provider has deleted it by now, as it does when a file's time is over."
        return _said(request, batch, f"{why} Our own copy is offered beside it.")
    except ProviderError as error:
        return _said(
            request,
            batch,
            f"The provider did not hand it over: {error}. Nothing changed; try again.",
        )


def _fetched(batch: Batch, file_id: str) -> FileResponse:
    """Fetch a file to disk and send it from there; it is gone with the answer. Raises ProviderError."""
    folder = settings.DATA_DIR / "fetched"
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / f"{batch.key}-{id(file_id):x}.jsonl"
    try:
        connect(batch.lane.account).download(file_id, into=path)
        file = path.open("rb")
    finally:
        path.unlink(missing_ok=True)  # what is open stays readable until it is closed
    return FileResponse(
        file, as_attachment=True, filename=f"{file_id}.jsonl", content_type="application/jsonl"
    )


def _said(request: HttpRequest, batch: Batch, text: str) -> HttpResponseRedirect:
    messages.error(request, text)
    return HttpResponseRedirect(shown.page_of(batch))


def _input_lines(batch: Batch) -> Iterator[bytes]:
    """Yield the lines of the requests that the batch holds now, in the order of their ids."""
    provider, endpoint = connect(batch.lane.account), batch.lane.endpoint
    rows = Request.objects.filter(batch=batch).only("pk", "key", "state")
    for page in pages.in_order(rows, _AT_ONCE):
        held: Any = RequestBody.objects.filter(request__in=page).values_list("request_id", "body")
        bodies = dict(held)
        for row in page:
            if row.pk in bodies:
                body = bytes(bodies[row.pk])
                yield provider.render_line(custom_id=row.key, endpoint=endpoint, body=body)


def _answer_lines(batch: Batch, part: str) -> Iterator[bytes]:
    """Yield the provider's lines to what the batch holds now: good ones, or for errors the others."""
    rows = Request.objects.filter(batch=batch).only("pk", "key", "state")
    for page in pages.in_order(rows, _AT_ONCE):
        found: Any = Answer.objects.filter(request__in=page, batch=batch).order_by("request_id")
        for status, line in found.values_list("status_code", "line"):
            is_good = status is not None and status < 400  # HTTP's own line
            if is_good == (part == OUTPUT):
                yield bytes(line).rstrip(b"\n") + b"\n"
