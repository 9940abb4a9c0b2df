"""The table of all there is under /api, and the three words for machines beside it.

`batcher/urls.py` includes it; the OpenAPI document and the docs page are printed from it. A ``custom_id``
may hold slashes, so a deed's path comes before the path of the request, and what is no deed by its method
is looked at as a longer id.
"""

from __future__ import annotations

from django.http import HttpRequest, HttpResponseBase
from django.urls import re_path

from batching.api import batch_views as batches
from batching.api import destination_views as destinations
from batching.api import docs_views as docs
from batching.api import event_views as events
from batching.api import health_views as health
from batching.api import hook_views as hooks
from batching.api import intake_views as intake
from batching.api import lane_views as lanes
from batching.api import lease_views as leases
from batching.api import queue_views as queue
from batching.api import replay_views as replays
from batching.api import request_views as requests
from batching.api import result_views as result
from batching.api import results_views as results
from batching.api import submission_results_views as submission_results
from batching.api.errors import not_found
from batching.api.operations import Route
from batching.api.redirect_views import redirect_request

_REQUEST = "api/requests/<path:custom_id>"
_BATCH = "api/batches/<str:batch_id>"
_LANE = "api/lanes/<str:lane_id>"
_ACCOUNT = "api/accounts/<str:account>"
_DESTINATION = "api/destinations/<str:destination_id>"

ROUTES = (
    Route("api/requests", GET=requests.list_requests, POST=intake.post_request),
    Route(
        "api/requests/bulk",
        POST=intake.post_bulk,
        unlisted={"GET": requests.show_request_bulk},
    ),
    Route(
        f"{_REQUEST}/redeliver",
        POST=requests.redeliver_request,
        unlisted={"GET": requests.show_request_named("redeliver")},
    ),
    Route(
        f"{_REQUEST}/cancel",
        POST=requests.cancel_request,
        unlisted={"GET": requests.show_request_named("cancel")},
    ),
    Route(
        f"{_REQUEST}/retry",
        POST=requests.retry_request,
        unlisted={"GET": requests.show_request_named("retry")},
    ),
    Route(f"{_REQUEST}/result", GET=result.request_result),
    Route(_REQUEST, GET=requests.show_request, PATCH=redirect_request),
    Route("api/batches", GET=batches.list_batches),
    Route(_BATCH, GET=batches.show_batch, DELETE=batches.delete_batch),
    Route(f"{_BATCH}/seal", POST=batches.seal_batch),
    Route(f"{_BATCH}/cancel", POST=batches.cancel_batch),
    Route(f"{_BATCH}/restart", POST=batches.restart_batch),
    Route(f"{_BATCH}/redeliver", POST=batches.redeliver_batch),
    Route(f"{_BATCH}/redeliver-failed", POST=batches.redeliver_failed_of_batch),
    Route(f"{_BATCH}/pause", POST=queue.pause_batch),
    Route(f"{_BATCH}/resume", POST=queue.resume_batch),
    Route(f"{_BATCH}/move", POST=queue.move_batch),
    Route(f"{_BATCH}/priority", POST=queue.set_batch_priority),
    Route(f"{_BATCH}/promote", POST=queue.promote_batch),
    Route("api/lanes", GET=lanes.list_lanes),
    Route(_LANE, GET=lanes.show_lane),
    Route(f"{_LANE}/pause", POST=lanes.pause_lane),
    Route(f"{_LANE}/resume", POST=lanes.resume_lane),
    Route(f"{_LANE}/freeze", POST=lanes.freeze_lane),
    Route(f"{_LANE}/unfreeze", POST=lanes.unfreeze_lane),
    Route("api/accounts", GET=lanes.list_accounts),
    Route(_ACCOUNT, GET=lanes.show_account),
    Route(f"{_ACCOUNT}/pause", POST=lanes.pause_account),
    Route(f"{_ACCOUNT}/resume", POST=lanes.resume_account),
    Route("api/submissions", GET=batches.list_submissions),
    Route("api/submissions/<str:submission_id>", GET=batches.show_submission),
    Route(
        "api/submissions/<str:submission_id>/results",
        GET=submission_results.submission_results,
    ),
    Route("api/results", GET=results.pull_results),
    Route("api/results/lease", POST=leases.lease_results),
    Route("api/results/ack", POST=leases.acknowledge_results),
    Route("api/results/nack", POST=leases.give_back_results),
    Route(
        "api/destinations", GET=destinations.list_destinations, POST=destinations.make_destination
    ),
    Route(
        _DESTINATION,
        GET=destinations.show_destination,
        PATCH=destinations.change_destination,
        DELETE=destinations.delete_destination,
    ),
    Route(f"{_DESTINATION}/rotate-secret", POST=destinations.rotate_destination_secret),
    Route(f"{_DESTINATION}/pause", POST=destinations.pause_destination),
    Route(f"{_DESTINATION}/resume", POST=destinations.resume_destination),
    Route(f"{_DESTINATION}/enable", POST=destinations.enable_destination),
    Route(f"{_DESTINATION}/ping", POST=destinations.ping_destination),
    Route("api/event-subscriptions", GET=events.list_subscriptions, POST=events.subscribe),
    Route("api/event-subscriptions/<str:subscription_id>", DELETE=events.unsubscribe),
    Route("api/replays", GET=replays.list_replays, POST=replays.start_replay),
    Route("api/replays/<str:replay_id>", GET=replays.show_replay),
    Route("api/replays/<str:replay_id>/stop", POST=replays.stop_replay),
    Route("hooks/openai", POST=hooks.hear_openai),
    Route("hooks/openai/<str:account_id>", POST=hooks.hear_openai_for),
    Route("api/openapi.json", GET=docs.openapi_document),
    Route("api/docs", GET=docs.docs_page),
    Route("health", GET=health.health),
    Route("ready", GET=health.ready),
    Route("metrics", GET=health.metrics),
)


def nothing_here(request: HttpRequest) -> HttpResponseBase:
    """Answer a path under /api that is none of ours, in the shape of all other errors."""
    return not_found("path").response()


urlpatterns = [*(route.pattern for route in ROUTES), re_path(r"^api/", nothing_here)]
