"""Django's name for this package."""

from __future__ import annotations

from django.apps import AppConfig


class DeliveryConfig(AppConfig):
    """Registers the models of this package, and listens for what becomes an event."""

    name = "delivery"
    verbose_name = "Delivery"

    def ready(self) -> None:
        """Hear of every move of a batch."""
        from delivery import event_sources

        event_sources.listen()
