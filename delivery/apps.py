"""Django's name for this package."""

from __future__ import annotations

from django.apps import AppConfig


class DeliveryConfig(AppConfig):
    """Registers the models of this package."""

    name = "delivery"
    verbose_name = "Delivery"
