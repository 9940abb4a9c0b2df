"""The table of all there is under /v1/messages. `batcher/urls.py` includes it before the OpenAI door."""

from __future__ import annotations

from django.urls import path, re_path

from batching.api.anthropic import batch_views as batches
from batching.api.anthropic.door import DoorRoute, nothing_here

_BATCH = "v1/messages/batches/<str:message_batch_id>"
_RESULTS = DoorRoute(f"{_BATCH}/results", GET=batches.show_results)

ROUTES = (
    DoorRoute("v1/messages/batches", GET=batches.list_batches, POST=batches.post_batch),
    DoorRoute(_BATCH, GET=batches.show_batch, DELETE=batches.delete_batch),
    DoorRoute(f"{_BATCH}/cancel", POST=batches.cancel_batch),
    _RESULTS,
)

urlpatterns = [
    path(_RESULTS.path, _RESULTS.answer, name="message-batch-results"),
    *(route.pattern for route in ROUTES),
    re_path(r"^v1/messages/", nothing_here),
]
