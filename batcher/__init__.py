"""Wiring: settings, environment, URLs, Celery and the clock. No business rule lives here."""
