"""The look of the admin: names, colours, and the way through it.

Decides what stands in the sidebar and who sees it there; Django's permissions decide who may open it.
`batcher/settings.py` takes UNFOLD and FORMAT_MODULE_PATH from here.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from django.templatetags.static import static
from django.urls import reverse_lazy

if TYPE_CHECKING:
    from collections.abc import Callable

    from django.http import HttpRequest

FORMAT_MODULE_PATH = ["batcher.formats"]
"""Where Django finds how times are written."""


def _may(permission: str) -> Callable[[HttpRequest], bool]:
    return lambda request: request.user.has_perm(permission)


def _page(title: str, model: str, icon: str, *, seen_like: str = "") -> dict[str, Any]:
    """Return one entry; ``seen_like`` is the model whose viewers see it, when not its own."""
    app, name = model.split(".")
    seen_app, seen_name = (seen_like or model).split(".")
    return {
        "title": title,
        "icon": icon,
        "link": reverse_lazy(f"admin:{app}_{name}_changelist"),
        "permission": _may(f"{seen_app}.view_{seen_name}"),
    }


def _group(title: str, *pages: dict[str, Any]) -> dict[str, Any]:
    return {"title": title, "separator": True, "items": list(pages)}


NAVIGATION = [
    {
        "items": [
            {"title": "Overview", "icon": "space_dashboard", "link": reverse_lazy("admin:index")}
        ]
    },
    _group(
        "Work",
        _page("Batches", "batching.batch", "stacks"),
        _page("Requests", "batching.request", "chat_bubble"),
        _page("Submissions", "batching.submission", "upload_file"),
        _page("Files", "batching.clientfile", "description", seen_like="batching.submission"),
        _page("Lanes", "batching.lane", "alt_route"),
    ),
    _group(
        "Delivery",
        _page("Destinations", "batching.destination", "pin_drop"),
        {
            "title": "Dead letters",
            "icon": "unsubscribe",
            "link": reverse_lazy("dead_letters"),
            "permission": _may("batching.view_request"),
        },
        _page("Attempts", "delivery.attempt", "local_shipping"),
        _page("Replays", "delivery.replay", "replay"),
        _page("Runs", "batching.run", "playlist_play"),
        _page("Exports", "batching.export", "download"),
        _page("Events", "delivery.eventdelivery", "campaign"),
        _page("Subscriptions", "delivery.eventsubscription", "notifications"),
    ),
    _group(
        "Access",
        _page("Projects", "batching.project", "workspaces"),
        _page("API keys", "batching.apikey", "key"),
        {"title": "Try the API", "icon": "api", "link": "/api/docs"},
        _page("Accounts", "batching.account", "cloud"),
        _page("Audit log", "batching.auditentry", "policy"),
        _page("Users", "auth.user", "person"),
        _page("Groups", "auth.group", "group"),
    ),
    _group(
        "Operation",
        {
            "title": "Costs",
            "icon": "payments",
            "link": reverse_lazy("costs"),
            "permission": _may("batching.view_batch"),
        },
        {
            "title": "Workers and queues",
            "icon": "monitor_heart",
            "link": reverse_lazy("workers"),
            "permission": _may("batching.view_batch"),
        },
        _page("History", "django_fsm_log.statelog", "history"),
        _page("Clock", "django_celery_beat.periodictask", "schedule"),
        _page("Switches", "batching.flag", "toggle_on"),
        _page("Token limits", "batching.tokenlimit", "speed", seen_like="batching.account"),
        {
            "title": "Settings",
            "icon": "tune",
            "link": reverse_lazy("admin:batching_settings"),
            "permission": _may("batching.view_account"),
        },
        _page("Intake", "delivery.intakestatus", "move_to_inbox"),
        _page("Refused messages", "delivery.rejection", "block"),
        {
            "title": "Sandbox",
            "icon": "science",
            "link": reverse_lazy("sandbox"),
            "permission": "batching.admin.sandbox_page.is_offered",
        },
    ),
]

UNFOLD: dict[str, Any] = {
    "SITE_TITLE": "Batcher",
    "SITE_HEADER": "Batcher",
    "SITE_SUBHEADER": "Requests now, results later",
    "SITE_SYMBOL": "stacks",
    "SITE_URL": None,
    "SHOW_VIEW_ON_SITE": False,
    "SITE_FAVICONS": [
        {
            "rel": "icon",
            "type": "image/svg+xml",
            "href": lambda _request: static("batcher/icon.svg"),
        }
    ],
    "STYLES": [
        lambda request: static("batcher/colors.css"),
        lambda request: static("batcher/admin.css"),
        lambda request: static("batcher/batch.css"),
        lambda request: static("batcher/lane.css"),
        lambda request: static("batcher/request.css"),
        lambda request: static("batcher/reach.css"),
        lambda request: static("batcher/charts.css"),
        lambda request: static("batcher/settings.css"),
        lambda request: static("batcher/why.css"),
    ],
    "SCRIPTS": [
        lambda request: static("batcher/htmx.js"),
        lambda request: static("batcher/keys.js"),
        lambda request: static("batcher/times.js"),
        lambda request: static("batcher/reach.js"),
        lambda request: static("batcher/copy.js"),
        lambda request: static("batcher/charts.js"),
        lambda request: static("batcher/reorder.js"),
    ],
    "DASHBOARD_CALLBACK": "batching.admin.overview.overview",
    "COLORS": lambda request: {},  # colors.css has them: the theme would write a style into each page
    "SIDEBAR": {
        "show_search": False,
        "show_all_applications": False,
        "navigation": NAVIGATION,
    },
}
