"""Pages of ours that belong to no model; they go through the admin site's login like all others."""

from __future__ import annotations

from django.contrib import admin
from django.urls import path

from batching.admin import charts, costs_page, workers_page
from batching.admin.dead_letters import dead_letters_page
from batching.admin.sandbox_page import sandbox_page

_page = admin.site.admin_view

urlpatterns = [
    path("charts/", _page(charts.charts_view), name="charts"),
    path("charts/<slug:name>/", _page(charts.table_view), name="chart"),
    path("costs/", _page(costs_page.costs_view), name="costs"),
    path("dead-letters/", _page(dead_letters_page), name="dead_letters"),
    path("workers/", _page(workers_page.workers_view), name="workers"),
    path("workers/queues/", _page(workers_page.queues_view), name="queues"),
    path("workers/database/", _page(workers_page.database_view), name="database"),
    path("sandbox/", _page(sandbox_page), name="sandbox"),
]
