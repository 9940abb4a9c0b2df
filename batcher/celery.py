"""The Celery app: one place for how tasks are sent, queued, limited and acknowledged.

Decides broker options for each kind of broker. Workers and the clock start it (`celery -A batcher`), tasks
find it through `shared_task`. A message is a doorbell: it may be lost or rung twice, and nothing here
depends on it. Never keeps results, never retries on its own.
"""

from __future__ import annotations

import logging
import os
import sys
import warnings
from logging.config import dictConfig
from typing import Any

from celery import Celery, signals
from celery.exceptions import SecurityWarning
from django.conf import settings
from django.core.exceptions import ImproperlyConfigured
from kombu import Exchange, Queue

from batcher import beats, embedded_broker, garbage
from batcher.schedule import ROUTES, WorkQueue

os.environ.setdefault("DJANGO_SETTINGS_MODULE", "batcher.settings")

logger = logging.getLogger(__name__)

SOFT_LIMIT_S, HARD_LIMIT_S = 25 * 60, 30 * 60
"""For prefork workers; a pool of threads can not interrupt a task, so tasks also bound their own work."""


def broker_settings(url: str) -> dict[str, Any]:
    """Return the Celery settings that depend on which broker `url` names."""
    if url.startswith("embedded:"):
        return embedded_broker.celery_settings(settings.DATA_DIR / "broker")
    if url.startswith("redis"):
        # Longer than any task may take: what is not acknowledged by then is handed out again.
        return {
            "broker_url": url,
            "broker_transport_options": {"visibility_timeout": 2 * HARD_LIMIT_S},
        }
    return {"broker_url": url, "broker_transport_options": {"confirm_publish": True}}


def queues(*, quorum: bool) -> list[Queue]:
    """Return the queues of all kinds of work; `quorum` ones survive the loss of a RabbitMQ node."""
    arguments = {"x-queue-type": "quorum"} if quorum else None
    exchange = Exchange("batcher", type="direct")
    return [
        Queue(name.value, exchange, routing_key=name.value, queue_arguments=arguments)
        for name in WorkQueue
    ]


def common_settings() -> dict[str, Any]:
    """Return the Celery settings that hold with every broker."""
    return {
        "task_queues": queues(quorum=settings.CELERY_BROKER_URL.startswith("amqp")),
        "task_default_queue": WorkQueue.DEFAULT.value,
        "task_default_exchange": "batcher",
        "task_default_routing_key": WorkQueue.DEFAULT.value,
        "task_create_missing_queues": False,
        "task_routes": {f"{prefix}*": {"queue": queue.value} for prefix, queue in ROUTES},
        "task_serializer": "json",
        "accept_content": ["json"],
        "task_ignore_result": True,
        "task_acks_late": True,
        "task_reject_on_worker_lost": True,
        "worker_prefetch_multiplier": 1,
        "task_soft_time_limit": SOFT_LIMIT_S,
        "task_time_limit": HARD_LIMIT_S,
        "timezone": "UTC",
        "enable_utc": True,
        "beat_scheduler": "django_celery_beat.schedulers:DatabaseScheduler",
        "beat_max_loop_interval": 1,  # it also ends no sooner than this
        "broker_connection_retry_on_startup": True,
        "broker_connection_timeout": 4,
        # A doorbell that can not be rung is no reason to wait: the sweeps find the work. Once again all the
        # same, at once: without it a connection that the broker closed is never given up for a new one.
        "task_publish_retry": True,
        "task_publish_retry_policy": {"max_retries": 1, "interval_start": 0, "interval_max": 0},
        "worker_hijack_root_logger": False,
        "worker_redirect_stdouts": False,
        # Nobody steers a worker through the broker: less to attack, and no queue for each worker.
        "worker_enable_remote_control": False,
        "worker_consumer": "batcher.worker:Consumer",
        "worker_cancel_long_running_tasks_on_connection_loss": True,
    }


# Celery warns root because of pickle, which nothing here accepts; in a container root is common.
warnings.filterwarnings("ignore", category=SecurityWarning)

app = Celery("batcher")
app.conf.update(common_settings() | broker_settings(settings.CELERY_BROKER_URL))
app.autodiscover_tasks()


@signals.setup_logging.connect
def use_our_log(**_signal: Any) -> None:
    """Keep Celery from setting up its own log; ours is the same in every process."""
    dictConfig(settings.LOGGING)


@signals.worker_init.connect
def refuse_second_worker(**_signal: Any) -> None:
    """On the embedded broker, hold its lock or leave with one clear line."""
    if not settings.CELERY_BROKER_URL.startswith("embedded:"):
        return
    try:
        embedded_broker.hold_worker_lock(settings.DATA_DIR / "broker")
    except ImproperlyConfigured as problem:
        sys.stderr.write(f"batcher: {problem}\n")
        sys.exit(1)


@signals.worker_ready.connect
def say_worker_is_ready(**_signal: Any) -> None:
    """Log that work is being taken."""
    logger.info("worker ready", extra={"threads": settings.BATCHER_WORKER_THREADS})
    garbage.look_less()
    beats.start("worker")


@signals.task_postrun.connect
def note_task(task: Any = None, **_signal: Any) -> None:
    """Remember what was done last."""
    beats.note(str(getattr(task, "name", "")))


@signals.worker_shutdown.connect
def end_in_peace(**_signal: Any) -> None:
    """Say that nobody need look for this worker."""
    beats.stop()


@signals.beat_init.connect
def say_clock_is_ready(**_signal: Any) -> None:
    """Log that ticks are being sent."""
    logger.info("clock ready")
    beats.start("clock")


@signals.after_task_publish.connect
def note_message(sender: str = "", **_signal: Any) -> None:
    """Remember what the clock rang last; what a worker rings is not what it did."""
    if sender and beats.kind() == "clock":
        beats.note(sender)
