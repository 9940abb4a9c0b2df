"""What a person may do to batches: each move with its sentence, its permission and the core's function."""

from __future__ import annotations

from typing import TYPE_CHECKING

from django import forms
from unfold.widgets import UnfoldAdminIntegerFieldWidget, UnfoldBooleanWidget

from batching import order, queueing, steering
from batching.admin.moves import Move, ReasonForm, sources_of
from batching.lifecycle import BATCH_ENDS, BatchState
from batching.models import Batch
from batching.models.batches import IN_LINE
from delivery import redelivery

if TYPE_CHECKING:
    from datetime import datetime

    from batching.lifecycle import Actor

OPERATE = "batching.operate_batch"


class DeleteForm(ReasonForm):
    """Asks whether results that were not delivered may go, too."""

    with_undelivered = forms.BooleanField(
        required=False,
        label="Also results that were not delivered",
        help_text="Without it, a batch that holds such results stays.",
        widget=UnfoldBooleanWidget,
    )
    field_order = ("with_undelivered", "reason")


def _redeliver_all(batch: Batch, *, by: Actor, reason: str, now: datetime) -> int:
    return redelivery.redeliver_batch(batch, only_failed=False, by=by, reason=reason, now=now)


def _redeliver_failed(batch: Batch, *, by: Actor, reason: str, now: datetime) -> int:
    return redelivery.redeliver_batch(batch, only_failed=True, by=by, reason=reason, now=now)


class BeforeForm(ReasonForm):
    """Asks for the batch that another one is to go before."""

    other = forms.ModelChoiceField(
        Batch.objects.filter(state__in=order.MOVABLE),
        label="Before batch",
        help_text="Its number. It waits in the same lane.",
        widget=UnfoldAdminIntegerFieldWidget,
        error_messages={"invalid_choice": "No batch of this number waits."},
    )
    field_order = ("other", "reason")


class PriorityForm(ReasonForm):
    """Asks for a priority."""

    priority = forms.IntegerField(
        min_value=queueing.PRIORITIES[0],
        max_value=queueing.PRIORITIES[-1],
        help_text="-100 to 100; higher goes first.",
        widget=UnfoldAdminIntegerFieldWidget,
    )
    field_order = ("priority", "reason")


_MOVABLE = frozenset(order.MOVABLE)
ORDER_MOVES = (
    Move(
        name="pause",
        label="Pause",
        effect="The batch is not started, and keeps its place. If the provider holds it already, it is finished and "
        "delivered.",
        permission=OPERATE,
        act=queueing.pause,
        states=frozenset(queueing.PAUSABLE),
        icon="pause_circle",
    ),
    Move(
        name="resume",
        label="Resume",
        effect="The batch may be started again, from the place that it kept.",
        permission=OPERATE,
        act=queueing.resume,
        states=frozenset(queueing.PAUSABLE),
        icon="play_circle",
    ),
    Move(
        name="move_top",
        label="Move to top",
        effect="The batch goes before all others of its lane, with the priority of the first.",
        permission=OPERATE,
        act=queueing.move_to_top,
        states=_MOVABLE,
        icon="vertical_align_top",
        is_for_one=True,
    ),
    Move(
        name="move_bottom",
        label="Move to bottom",
        effect="The batch goes behind all others of its lane, with the priority of the last.",
        permission=OPERATE,
        act=queueing.move_to_bottom,
        states=_MOVABLE,
        icon="vertical_align_bottom",
    ),
    Move(
        name="move_before",
        label="Move before…",
        effect="The batch goes right before another one of its lane, with that one's priority.",
        permission=OPERATE,
        act=queueing.move_before,
        states=_MOVABLE,
        icon="move_up",
        form=BeforeForm,
        is_for_one=True,
    ),
    Move(
        name="priority",
        label="Set priority",
        effect="Batches with a higher priority go first, whatever their age.",
        permission=OPERATE,
        act=queueing.set_priority,
        states=_MOVABLE,
        icon="flag",
        form=PriorityForm,
    ),
    Move(
        name="promote",
        label="Promote now",
        effect="The batch goes before all others as soon as there is room. It skips the order, not the capacity.",
        permission=OPERATE,
        act=queueing.promote,
        states=frozenset(IN_LINE),
        icon="rocket_launch",
    ),
)
MOVES = (
    *ORDER_MOVES,
    Move(
        name="seal",
        label="Seal",
        effect="The batch takes no more requests and is sent as soon as its lane has room.",
        permission=OPERATE,
        act=steering.seal,
        states=sources_of(Batch, "seal"),
        icon="inventory_2",
    ),
    Move(
        name="cancel",
        label="Cancel",
        effect="The provider is asked to stop if it holds the batch. Answers that are finished are kept "
        "and delivered; every other request ends as cancelled, and its client is told.",
        permission=OPERATE,
        act=steering.cancel_batch,
        calls_outside=True,
        states=sources_of(Batch, "cancel", "ask_to_cancel"),
        icon="cancel",
        is_dangerous=True,
    ),
    Move(
        name="restart",
        label="Restart",
        effect="What is unfinished is sent to the provider again; answers that are there stay untouched.",
        permission=OPERATE,
        act=steering.restart_batch,
        states=sources_of(Batch, "restart"),
        icon="restart_alt",
    ),
    Move(
        name="redeliver",
        label="Redeliver",
        effect="Every result of the batch is sent to its destination again, under the same message id.",
        permission=OPERATE,
        act=_redeliver_all,
        states=sources_of(Batch, "redeliver"),
        icon="outbox",
    ),
    Move(
        name="redeliver_failed",
        label="Redeliver failed",
        effect="Only results whose delivery was given up are sent to their destinations again.",
        permission=OPERATE,
        act=_redeliver_failed,
        states=frozenset({BatchState.PARTIALLY_DELIVERED, BatchState.DELIVERY_FAILED}),
        icon="replay",
    ),
    Move(
        name="remove",  # "delete" is the name of Django's own page
        label="Delete",
        effect="The batch is removed for good, with its requests, their answers and its files at the provider. "
        "This can not be undone.",
        permission="batching.delete_batch",
        act=steering.delete_batch,
        form=DeleteForm,
        calls_outside=True,
        states=BATCH_ENDS | {BatchState.READY_TO_DELIVER, BatchState.DELIVERING},
        icon="delete",
        is_dangerous=True,
    ),
)
