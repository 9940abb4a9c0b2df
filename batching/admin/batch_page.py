"""What a batch's page shows around its fields: why, its way, its pace, its files, its room, its cost, its outcome.

What moves (``head_of``) is renewed every few seconds until the batch has ended. What reads many requests (``outcome_of``)
comes after the page, in an answer of its own, and looks at a bounded number of them by an index.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

from django.core.exceptions import PermissionDenied
from django.db.models import Count
from django.shortcuts import get_object_or_404
from django.template.response import TemplateResponse
from django.utils import timezone

from batching import capacity, costs
from batching import figures as lane_figures
from batching.admin import batch_way, shown
from batching.admin.batch_files import files_of
from batching.admin.batch_outcome import outcome_of
from batching.admin.history import history_of
from batching.admin.payloads import PAYLOAD_PERMISSION
from batching.lifecycle import RequestState
from batching.models import AuditEntry, Batch, Request
from batching.models.batches import IN_LINE, PROVIDER_HOLDS
from batching.providers.base import Usage
from delivery import why

if TYPE_CHECKING:
    from datetime import datetime

    from django.http import HttpRequest, HttpResponse

    from batching.admin.batches import BatchAdmin

STOP_POLLING: Final = 286
"""htmx asks no more after this status (htmx.org, hx-trigger, polling)."""
AUDIT_SHOWN: Final = 20
_AUDIT: Final = "batching.view_auditentry"


@dataclass(frozen=True, kw_only=True)
class Share:
    """How many requests of a batch stand at one state."""

    state: str
    count: int
    url: str
    """The list of exactly these."""


@dataclass(frozen=True, kw_only=True)
class Pace:
    """How fast the provider works on it."""

    ok: int
    failed: int
    total: int
    per_minute: str
    """Lines a minute since it was created there; empty: no figure yet."""
    done_at: datetime | None
    """A guess."""
    basis: str
    asked_at: datetime | None
    """When the provider was asked last."""


def head_of(batch: Batch, request: HttpRequest) -> dict[str, Any]:
    """Return what moves while the page is looked at."""
    now = timezone.now()
    history = history_of(batch)
    return {
        "row": batch,
        "page": shown.page_of(batch),
        "why": why.of_batch(batch, now),
        "way": batch_way.way_of(batch, history, now),
        "pace": _pace(batch, now),
        "history": history,
        "shares": _shares(batch),
        "requests_url": shown.list_of("batching.request", batch=batch.pk),
        "acts": _acts(batch) if request.user.has_perm(_AUDIT) else None,
        "may_view_payload": request.user.has_perm(PAYLOAD_PERMISSION),
    }


def renewed(request: HttpRequest, batch: Batch, head: dict[str, Any]) -> HttpResponse:
    """Return the part that moves, and tell htmx when there is no more to come."""
    status = STOP_POLLING if batch.is_final else None
    has_moved = request.GET.get("moves") != str(len(head["history"].steps))
    context = {**head, "has_moved": has_moved}
    return TemplateResponse(request, "batcher/admin/_batch_live.html", context, status=status)


def rest_of(batch: Batch) -> dict[str, Any]:
    """Return what stands still while the page is looked at."""
    return {
        "files": files_of(batch),
        "room": _room(batch),
        "bill": bill_of(batch),
        "parts": batch.parts.order_by("pk")[:50],
        "raw": shown.pretty(batch.provider_object) if batch.provider_object else None,
    }


def _shares(batch: Batch) -> list[Share]:
    """Count a batch's requests by state: one query, over one index."""
    rows = Request.objects.filter(batch=batch).order_by().values_list("state")
    counts = dict(rows.annotate(count=Count("pk")))
    return [
        Share(
            state=str(state),
            count=counts[state],
            url=shown.list_of("batching.request", batch=batch.pk, state__exact=str(state)),
        )
        for state in RequestState
        if state in counts
    ]


def _pace(batch: Batch, now: datetime) -> Pace | None:
    """Return the provider's progress; None before it told any."""
    ok, failed = batch.provider_completed or 0, batch.provider_failed or 0
    began, seen, total = batch.create_started_at, batch.polled_at, batch.provider_total
    if not total or began is None:
        return None
    minutes = (seen - began).total_seconds() / 60 if seen else 0.0
    rate = (ok + failed) / minutes if minutes > 0 else 0.0
    guess = why.by_progress(batch, now) if batch.state in PROVIDER_HOLDS else None
    return Pace(
        ok=ok,
        failed=failed,
        total=total,
        per_minute=f"{rate:,.0f}" if rate >= 10 else f"{rate:.1f}" if rate else "",
        done_at=guess.at if guess else None,
        basis=guess.basis if guess else "",
        asked_at=seen if batch.state in PROVIDER_HOLDS else None,
    )


def _acts(batch: Batch) -> list[AuditEntry]:
    named = AuditEntry.objects.filter(object_type="batch", object_key=batch.key)
    return list(named.order_by("-id")[:AUDIT_SHOWN])


def _room(batch: Batch) -> dict[str, Any] | None:
    """Return what its lane has at the provider, and what of it is this batch's; None once that is over."""
    if batch.state not in (*PROVIDER_HOLDS, *IN_LINE):
        return None
    of_lane = lane_figures.figures([batch.lane], timezone.now())[batch.lane_id]
    return {
        "tokens": of_lane.tokens,
        "uses": of_lane.batches,
        "waiting": of_lane.waiting,
        "ours": capacity.tokens_of(batch),
        "is_held": batch.state in PROVIDER_HOLDS,
        "lane_url": shown.page_of(batch.lane),
        "refused": batch.token_limit_tries,
    }


def bill_of(batch: Batch) -> list[tuple[str, str]]:
    """Return what is known of its tokens and their cost, with names; what they had cost outside of a batch is a guess."""
    real = batch.input_tokens
    off = f"{real / batch.token_estimate:.2f}" if real and batch.token_estimate else shown.NOTHING
    at_once = _at_once(batch)
    saved = at_once - batch.cost_nano if at_once and batch.cost_nano is not None else None
    figures = [
        ("Estimated input", shown.number(batch.token_estimate)),
        ("Input", shown.number(real)),
        ("of it cached", shown.number(batch.cached_tokens)),
        ("Output", shown.number(batch.output_tokens)),
        ("of it reasoning", shown.number(batch.reasoning_tokens)),
        ("Real ÷ estimated", off),
        ("Cost", shown.money(batch.cost_nano)),
        ("Saved (about)", shown.money(saved) if saved and saved > 0 else shown.NOTHING),
    ]
    return [(name, figure) for name, figure in figures if figure != shown.NOTHING]


def _at_once(batch: Batch) -> int | None:
    """Return what the same tokens would cost outside of a batch, in nano-dollars."""
    if batch.input_tokens is None:
        return None
    used = Usage(
        input_tokens=batch.input_tokens,
        cached_tokens=batch.cached_tokens,
        output_tokens=batch.output_tokens,
    )
    at = batch.create_started_at or batch.created_at
    return costs.price(used, costs.tariff(batch.lane, at, is_batch=False))


def outcome_view(request: HttpRequest, pk: int, batch_admin: BatchAdmin) -> HttpResponse:
    """Show what became of a batch's requests: where the unanswered went, why some failed, where results go."""
    if not batch_admin.has_view_permission(request):
        raise PermissionDenied
    batch = get_object_or_404(Batch, pk=pk)
    context = {"outcome": outcome_of(batch), "row": batch, "page": shown.page_of(batch)}
    if getattr(request, "htmx", False):
        return TemplateResponse(request, "batcher/admin/_batch_outcome.html", context)
    around = {
        **batch_admin.admin_site.each_context(request),
        "opts": batch_admin.opts,
        "title": f"What became of the requests of batch #{batch.pk}",
    }
    return TemplateResponse(request, "batcher/admin/batch_outcome.html", around | context)
