"""The one way a state is shown: colour, icon and text together, on every page.

Decides the look of each state's word. Templates use the tag ``state_badge``; the admin's lists call the
same function. Never decides what a state means: that is ``batching.lifecycle``.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from django import template
from django.utils.html import format_html

from batching.lifecycle import BatchState, RequestState

if TYPE_CHECKING:
    from django.utils.safestring import SafeString

register = template.Library()

QUIET, BUSY, GOOD, WARNING, BAD = "quiet", "busy", "good", "warning", "bad"

_LOOKS: dict[str, tuple[str, str]] = {
    BatchState.BUILDING: (QUIET, "layers"),
    BatchState.UPLOADING: (BUSY, "upload"),
    BatchState.UPLOADED: (BUSY, "cloud_done"),
    BatchState.WAITING_FOR_CAPACITY: (WARNING, "hourglass_top"),
    BatchState.SUBMITTING: (BUSY, "send"),
    BatchState.PROCESSING: (BUSY, "autorenew"),
    BatchState.CANCELLING: (WARNING, "do_not_disturb_on"),
    BatchState.COMPLETED: (BUSY, "task_alt"),
    BatchState.EXPIRED: (BAD, "timer_off"),
    BatchState.CANCELLED: (QUIET, "cancel"),
    BatchState.DOWNLOADING: (BUSY, "download"),
    BatchState.READY_TO_DELIVER: (BUSY, "outbox"),
    BatchState.DELIVERING: (BUSY, "local_shipping"),
    BatchState.DELIVERED: (GOOD, "check_circle"),
    BatchState.PARTIALLY_DELIVERED: (WARNING, "rule"),
    BatchState.DELIVERY_FAILED: (BAD, "running_with_errors"),
    BatchState.FAILED: (BAD, "error"),
    RequestState.PENDING: (QUIET, "schedule"),
    RequestState.PROCESSED: (BUSY, "outbox"),
    "open": (GOOD, "check_circle"),
    "paused": (WARNING, "pause_circle"),
    "disabled": (BAD, "block"),
    "deleted": (QUIET, "delete"),
    "running": (BUSY, "autorenew"),
    "done": (GOOD, "check_circle"),
    "stopped": (QUIET, "stop_circle"),
}
"""Words that batches and requests share look the same for both; the last are destinations' and replays'."""


@register.simple_tag
def state_badge(state: str) -> SafeString:
    """Return the badge of a batch's or request's state; an unknown word is shown plainly."""
    tone, icon = _LOOKS.get(state, (QUIET, "help"))
    return badge(state.replace("_", " "), tone=tone, icon=icon)


@register.simple_tag
def destination_badge(state: str, *, is_broken: bool) -> SafeString:
    """Return a destination's badge: one that is open while its circuit is too takes nothing, and never looks well."""
    if state == "open" and is_broken:
        return badge("circuit open", tone=BAD, icon="electrical_services")
    return state_badge(state)


@register.simple_tag
def badge(text: str, *, tone: str = QUIET, icon: str = "circle") -> SafeString:
    """Return any short claim as a badge; ``tone`` is quiet, busy, good, warning or bad."""
    return format_html(
        '<span class="b-badge b-badge-{}"><span class="material-symbols-outlined" aria-hidden="true">'
        "{}</span>{}</span>",
        tone,
        icon,
        text,
    )


@register.simple_tag
def outcome_badge(outcome: str, *, is_last: bool) -> SafeString:
    """Return a delivery attempt's outcome: red when no further try is due, orange when one is."""
    words = outcome.replace("_", " ")
    if outcome == "delivered":
        return badge(words, tone=GOOD, icon="check_circle")
    if is_last:
        return badge(words, tone=BAD, icon="error")
    return badge(words, tone=WARNING, icon="schedule")


@register.filter
def number(value: int | None) -> str:
    """Return a whole number with commas; a dash for none."""
    return "-" if value is None else f"{value:,}"
