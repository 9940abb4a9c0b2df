"""The table of all there is under /v1. `batcher/urls.py` includes it."""

from __future__ import annotations

from django.urls import re_path

from batching.api.openai import batch_views as batches
from batching.api.openai import call_views as calls
from batching.api.openai import file_views as files
from batching.api.openai import model_views as models
from batching.api.openai import upload_views as uploads
from batching.api.openai.door import DoorRoute, nothing_here

_FILE = "v1/files/<str:file_id>"
_UPLOAD = "v1/uploads/<str:upload_id>"
_BATCH = "v1/batches/<str:batch_id>"

CALLS = ("chat/completions", "completions", "embeddings", "moderations", "responses")
"""Endpoints that take one request; each leads to that request again under its id."""


def _call_routes(endpoint: str) -> tuple[DoorRoute, ...]:
    path = f"v1/{endpoint}"
    one = f"{path}/<str:request_id>"
    return (
        DoorRoute(path, POST=calls.post_call),
        DoorRoute(one, GET=calls.show_call, DELETE=calls.delete_call),
        DoorRoute(f"{one}/cancel", POST=calls.cancel_call),
    )


ROUTES = (
    DoorRoute("v1/files", GET=files.list_files, POST=files.post_file),
    DoorRoute(_FILE, GET=files.show_file, DELETE=files.delete_file),
    DoorRoute(f"{_FILE}/content", GET=files.show_content),
    DoorRoute("v1/uploads", POST=uploads.post_upload),
    DoorRoute(f"{_UPLOAD}/parts", POST=uploads.post_part),
    DoorRoute(f"{_UPLOAD}/complete", POST=uploads.complete_upload),
    DoorRoute(f"{_UPLOAD}/cancel", POST=uploads.cancel_upload),
    DoorRoute("v1/batches", GET=batches.list_batches, POST=batches.post_batch),
    DoorRoute(_BATCH, GET=batches.show_batch),
    DoorRoute(f"{_BATCH}/cancel", POST=batches.cancel_batch),
    *(route for endpoint in CALLS for route in _call_routes(endpoint)),
    DoorRoute("v1/models", GET=models.list_models),
    DoorRoute("v1/models/<path:model>", GET=models.show_model),
)

urlpatterns = [*(route.pattern for route in ROUTES), re_path(r"^v1/", nothing_here)]
