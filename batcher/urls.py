"""Where every URL begins: pages under /admin/, machines under /api/ and /v1/."""

from __future__ import annotations

from django.contrib import admin
from django.urls import include, path
from django.views.generic import RedirectView

urlpatterns = [
    path("", RedirectView.as_view(pattern_name="admin:index")),
    path("admin/", include("batching.admin.urls")),
    path("admin/", admin.site.urls),
    path("", include("batching.api.urls")),
    path("", include("batching.api.anthropic.urls")),
    path("", include("batching.api.openai.urls")),
]
