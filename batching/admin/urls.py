"""Pages of ours that belong to no model; they go through the admin site's login like all others."""

from __future__ import annotations

from django.contrib import admin
from django.urls import path

from batching.admin.sandbox_page import sandbox_page

urlpatterns = [
    path("sandbox/", admin.site.admin_view(sandbox_page), name="sandbox"),
]
