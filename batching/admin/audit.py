"""The admin's own log: who did or looked at what, kept when the row itself is gone.

Written by ``moves`` and ``payloads``; Django shows it as a row's history and on nobody's first page.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from django.contrib.admin.models import CHANGE, LogEntry
from django.contrib.contenttypes.models import ContentType

if TYPE_CHECKING:
    from django.db.models import Model


def note(model: type[Model], pk: Any, name: str, text: str, *, user_id: int) -> None:
    """Write one line: the row's number and name as they were, and what was done."""
    LogEntry.objects.create(
        user_id=user_id,
        content_type=ContentType.objects.get_for_model(model),
        object_id=str(pk),
        object_repr=name[:200],
        action_flag=CHANGE,
        change_message=text,
    )
