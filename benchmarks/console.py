"""Ask every page of the panel, and every list of the API, beside a million requests; say what each costs.

    DATABASE_URL=postgresql://…/an_empty_one DATA_DIR=/tmp/rows .venv/bin/python -m benchmarks.console
    … --requests 100000 --rounds 3      # smaller; a database that is filled already is measured as it is

Fills the database that DATABASE_URL names (``console_rows``), which must hold no request of anyone's, then goes
through the panel as a reader does: from the first page along every link, filter and ``hx-get``, so that a new page
is measured without being named here. Pages are told by their route and the parameters of their address. Prints
for each the server's time (the view stack in this process, no network) and its queries; exits 1 when a page's
95th percentile is over ``--most`` milliseconds.
"""

from __future__ import annotations

import argparse
import html
import math
import os
import re
import sys
import time
from collections import defaultdict, deque
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final
from urllib.parse import parse_qsl, urlencode, urljoin, urlsplit

import django

os.environ.setdefault("DJANGO_SETTINGS_MODULE", "batcher.settings")
os.environ.setdefault("BATCHER_LOG_LEVEL", "ERROR")
django.setup()

from django.contrib.auth.models import User  # noqa: E402  # after the set-up
from django.core.management import call_command  # noqa: E402
from django.db import connection  # noqa: E402
from django.test import Client  # noqa: E402
from django.urls import Resolver404, resolve  # noqa: E402

from batcher import garbage  # noqa: E402
from batching.api.urls import ROUTES  # noqa: E402
from batching.models import ApiKey, Project, Request  # noqa: E402
from benchmarks.console_rows import fill  # noqa: E402
from benchmarks.console_sql import Size  # noqa: E402

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

_LINK: Final = re.compile(r'(?:href|hx-get|data-url)="([^"#]*)"')
_NEVER: Final = ("logout", "password", "jsi18n", "/download", "/export/")
"""Parts of addresses that end the visit, or are files."""
_ASIDE: Final = ("_changelist_filters", "o")
"""Parameters that make no other page: where the reader came from, and how a short list is ordered."""
_LOOKS: Final = ("_run", "_replay", "_export")
"""Looks before an order count all that matches, for four seconds at most: told, and not judged."""
_SAMPLES: Final = 2
"""Addresses tried of each kind of page."""
_TERMS: Final = {
    "batching/request": (
        "q=row-500000", "q=row-50*", "q=nothing-like-it", "q=req_000000000000000000000000005*",
        "batch=1", "batch=2000", "submission=sub_" + "0" * 28 + "1000", "given_up_at=digest-4",
        "given_up_because=http_status:503", "given_up_because=timeout", "given_up_because=unknown",
        "due=never&project__id__exact=1", "state__exact=delivered&project__id__exact=2",
        "state__exact=pending&batch=1", "state__exact=failed&project__id__exact=5",
        "state__exact=delivered&q=row-7*", "p=200", "state__exact=delivery_failed&p=100",
    ),
    "batching/batch": ("q=2000", "q=bat_0000*", "q=batch_17", "p=50"),
    "batching/submission": ("q=sub_" + "0" * 28 + "1000", "p=30"),
    "batching/destination": ("q=answers-40",),
    "batching/clientfile": ("q=file-200", "p=100"),
    "delivery/attempt": ("q=req_" + "0" * 27 + "50000", "p=200", "outcome__exact=timeout&p=50"),
    "delivery/eventdelivery": ("p=150",),
    "django_fsm_log/statelog": ("p=200",),
    "batching/auditentry": ("q=user-3", "p=150"),
    "delivery/rejection": ("p=150",),
}  # fmt: skip
"""What people type, and how far they page, beside what links lead to."""
_ASKED_OF_API: Final = (
    "requests", "requests?state=delivered", "requests?state=pending", "requests?batch=1", "requests?q=row-5",
    "requests?model=gpt-5-mini", "requests?model=none", "requests?limit=200", "requests/row-500000",
    "requests?submission=sub_" + "0" * 28 + "1000", "requests?state=failed&model=gpt-4.1",
    "batches?state=delivered", "batches?limit=200", "results?limit=100", "batches/bat_" + "0" * 32,
)  # fmt: skip


@dataclass
class Figures:
    """What was seen of one kind of page."""

    times_ms: list[float] = field(default_factory=list)
    busy_ms: list[float] = field(default_factory=list)
    """Time on a processor, ours and the database's: what is left when others use the machine as well."""
    queries: int = 0
    worst: str = ""
    """The address that took longest."""
    addresses: int = 0

    def note(self, address: str, took_ms: float, busy_ms: float, queries: int) -> None:
        self.busy_ms.append(busy_ms)
        if took_ms >= max(self.times_ms, default=0):
            self.worst = address
        self.times_ms.append(took_ms)
        self.queries = max(self.queries, queries)


def percentile(figures: list[float], share: float) -> float:
    """Return the figure below which that share of them lies."""
    ordered = sorted(figures)
    return ordered[max(0, math.ceil(share * len(ordered)) - 1)]


class Reader:
    """Goes through the panel and the API as a superuser and a client would."""

    def __init__(self) -> None:
        user, _ = User.objects.get_or_create(
            username="bench", defaults={"is_staff": True, "is_superuser": True}
        )
        self._pages = Client(SERVER_NAME="127.0.0.1", raise_request_exception=False)
        self._pages.force_login(user)
        _, secret = ApiKey.issue(Project.objects.get(pk=1), "bench")
        self._key = {"HTTP_AUTHORIZATION": f"Bearer {secret}"}
        self.broken: list[str] = []
        self._server_process: Path | None = None
        if connection.vendor == "postgresql":
            with connection.cursor() as cursor:
                cursor.execute("SELECT pg_backend_pid()")
                self._server_process = Path(f"/proc/{cursor.fetchone()[0]}/schedstat")

    def ask(self, address: str) -> tuple[float, float, int, Any]:
        """Return milliseconds by the clock and on a processor, queries and the answer."""
        count = 0

        def counted(execute: Callable[..., Any], *given: Any) -> Any:
            nonlocal count
            count += 1
            return execute(*given)

        headers = self._key if address.startswith(("/api", "/metrics")) else {}
        began, busy = time.perf_counter(), self._busy_ms()
        with connection.execute_wrapper(counted):
            answer = self._pages.get(address, **headers)
            if not answer.streaming:
                answer.content  # noqa: B018  # rendered by now
        took = (time.perf_counter() - began) * 1000
        if answer.status_code >= 500:
            self.broken.append(f"{answer.status_code} {address}")
        return took, self._busy_ms() - busy, count, answer

    def _busy_ms(self) -> float:
        """Return what this thread and our connection's server process have computed so far."""
        ours = time.thread_time() * 1000
        try:
            return ours + int(self._server_process.read_text().split()[0]) / 1e6
        except (OSError, AttributeError):
            return ours

    def walk(self, rounds: int, until: float) -> dict[str, Figures]:
        """Ask each page once, and those that opened ``rounds`` times more; return figures by the kind of page."""
        figures: dict[str, Figures] = defaultdict(Figures)
        waiting, seen = deque(_beginnings()), set[str]()
        while waiting and time.monotonic() < until:
            address = waiting.popleft()
            kind = _kind(address)
            if kind is None or address in seen or figures[kind].addresses >= _samples(kind):
                continue
            seen.add(address)
            *_, answer = self.ask(address)
            if answer.streaming or answer.status_code not in (200, 404):
                continue
            figures[kind].addresses += 1
            for _ in range(rounds):
                figures[kind].note(address, *self.ask(address)[:3])
            if answer.status_code == 200:
                waiting.extend(_links(address, answer))
        if waiting:
            print(f"time is up: {len(waiting)} links were not followed", file=sys.stderr)
        return {kind: of_kind for kind, of_kind in figures.items() if of_kind.times_ms}


def _beginnings() -> Iterator[str]:
    yield "/admin/"
    for page, queries in _TERMS.items():
        for query in queries:
            yield f"/admin/{page}/?{query}"
    for route in ROUTES:
        if "<" not in route.path and "GET" in route.operations and route.path != "ready":
            yield f"/{route.path}"
    for call in _ASKED_OF_API:
        yield f"/api/{call}"


def _links(address: str, answer: Any) -> Iterator[str]:
    if "json" in answer["Content-Type"]:
        cursor = answer.json().get("next_cursor")
        if cursor:
            parts = urlsplit(address)
            asked = dict(parse_qsl(parts.query)) | {"cursor": cursor}
            yield f"{parts.path}?{urlencode(asked)}"
        return
    if "html" not in answer["Content-Type"]:
        return
    for link in _LINK.findall(answer.content.decode()):
        yield urljoin(address, html.unescape(link))


def _kind(address: str) -> str | None:
    """Return a page's route and the parameters that it was given; None: not to be asked."""
    parts = urlsplit(address)
    if parts.netloc or any(word in parts.path for word in _NEVER):
        return None
    if not parts.path.startswith(("/admin/", "/api/", "/metrics", "/health")):
        return None
    try:
        match = resolve(parts.path)
    except Resolver404:
        return None
    if match.url_name is None and not parts.path.startswith("/admin/"):
        name = match.route
    else:
        name = f"/admin/ {match.url_name}" if match.namespace == "admin" else str(match.route)
    given = sorted(_told(key, value) for key, value in parse_qsl(parts.query) if key not in _ASIDE)
    return f"{name}{'?' if given else ''}{'&'.join(given)}"


def _samples(kind: str) -> int:
    return 1 if kind.partition("?")[0].endswith(_LOOKS) else _SAMPLES


def _told(key: str, value: str) -> str:
    """Return a parameter as it tells pages apart: states and switches by their value, others by name."""
    return f"{key}={value}" if key.startswith(("state", "due", "standing", "outcome")) else key


def _report(figures: dict[str, Figures], most_ms: float, *, by_clock: bool) -> list[str]:
    """Print each kind of page, the slowest first; return those that take too long."""
    slow, every = [], Figures()
    print(f"{'p50 ms':>8} {'p95 ms':>8} {'busy p95':>8} {'queries':>8}  page")

    def judged(of_kind: Figures) -> float:
        return percentile(of_kind.times_ms if by_clock else of_kind.busy_ms, 0.95)

    for kind, of_kind in sorted(figures.items(), key=lambda pair: -judged(pair[1])):
        every.times_ms += of_kind.times_ms
        every.busy_ms += of_kind.busy_ms
        half, most = (percentile(of_kind.times_ms, share) for share in (0.5, 0.95))
        told = f"{kind}  ({of_kind.worst})" if judged(of_kind) > most_ms / 2 else kind
        busy = percentile(of_kind.busy_ms, 0.95)
        print(f"{half:8.0f} {most:8.0f} {busy:8.0f} {of_kind.queries:8}  {told}")
        if judged(of_kind) > most_ms and not kind.partition("?")[0].endswith(_LOOKS):
            slow.append(kind)
    print(
        f"{connection.vendor}, {Request.objects.count():,} requests, {len(figures)} kinds of pages,"
        f" {len(every.times_ms)} calls: p50 {percentile(every.times_ms, 0.5):.0f} ms,"
        f" p95 {percentile(every.times_ms, 0.95):.0f} ms; on a processor"
        f" p50 {percentile(every.busy_ms, 0.5):.0f} ms, p95 {percentile(every.busy_ms, 0.95):.0f} ms;"
        f" load {os.getloadavg()[0]:.1f}"
    )
    return slow


def main() -> int:
    """Fill, walk, measure, print; return 1 when a page is too slow or broke."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--requests", type=int, default=1_000_000)
    parser.add_argument("--attempts", type=int, default=200_000)
    parser.add_argument(
        "--history", type=int, default=2, help="rows for each ended request, 0 to 5"
    )
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument(
        "--most", type=float, default=200, help="milliseconds, at the 95th percentile"
    )
    parser.add_argument(
        "--minutes", type=float, default=10, help="stop following links after so long"
    )
    parser.add_argument(
        "--busy", action="store_true", help="judge the time on a processor, not the clock"
    )
    parser.add_argument("--only-fill", action="store_true")
    parser.add_argument(
        "--held", action="store_true", help="rows that a worker beside leaves alone"
    )
    given = parser.parse_args()
    call_command("migrate", verbosity=0)
    if not Request.objects.exists():
        fill(
            Size(
                requests=given.requests,
                attempts=given.requests if given.held else given.attempts,
                history=5 if given.held else given.history,
                is_held=given.held,
            )
        )
    if given.only_fill:
        return 0
    reader = Reader()
    garbage.look_less()  # as batcher/wsgi.py does once it is loaded
    figures = reader.walk(given.rounds, time.monotonic() + 60 * given.minutes)
    slow = _report(figures, given.most, by_clock=not given.busy)
    for told in (*(f"over {given.most:.0f} ms: {kind}" for kind in slow), *reader.broken):
        print(told, file=sys.stderr)
    return 1 if slow or reader.broken else 0


if __name__ == "__main__":
    sys.exit(main())
