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
from collections import defaultdict
from dataclasses import dataclass, field
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

from batching.api.urls import ROUTES  # noqa: E402
from batching.models import ApiKey, Project, Request  # noqa: E402
from benchmarks.console_rows import Size, fill  # noqa: E402

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

_LINK: Final = re.compile(r'(?:href|hx-get|data-url)="([^"#]*)"')
_NEVER: Final = ("logout", "password", "jsi18n", "/download", "/export/")
"""Parts of addresses that end the visit, or are files."""
_SAMPLES: Final = 5
"""Addresses tried of each kind of page."""
_PAGES: Final = 900
_TERMS: Final = {
    "batching/request": (
        "q=row-500000", "q=row-50*", "q=nothing-like-it", "q=req_000000000000000000000000005*",
        "batch=1", "batch=2000", "submission=sub_" + "0" * 28 + "1000", "given_up_at=receiver-4",
        "given_up_because=http_status:503", "given_up_because=timeout", "given_up_because=unknown",
        "due=never&project__id__exact=1", "state__exact=delivered&project__id__exact=2",
        "state__exact=pending&batch=1", "state__exact=failed&project__id__exact=5",
        "state__exact=delivered&q=row-7*", "p=200", "state__exact=delivery_failed&p=100",
    ),
    "batching/batch": ("q=2000", "q=bat_0000*", "q=batch_17", "p=50"),
    "batching/submission": ("q=sub_" + "0" * 28 + "1000", "p=30"),
    "batching/destination": ("q=receiver-44",),
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
    "requests?model=gpt-5-model-1", "requests?model=none", "requests?limit=200", "requests/row-500000",
    "requests?submission=sub_" + "0" * 28 + "1000", "requests?state=failed&model=gpt-5-model-2",
    "batches?state=delivered", "batches?limit=200", "results?limit=100", "batches/bat_" + "0" * 32,
)  # fmt: skip


@dataclass
class Figures:
    """What was seen of one kind of page."""

    times_ms: list[float] = field(default_factory=list)
    queries: int = 0
    worst: str = ""
    """The address that took longest."""

    def percentile(self, share: float) -> float:
        ordered = sorted(self.times_ms)
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

    def ask(self, address: str) -> tuple[float, int, Any]:
        """Return milliseconds, queries and the answer."""
        count = 0

        def counted(execute: Callable[..., Any], *given: Any) -> Any:
            nonlocal count
            count += 1
            return execute(*given)

        headers = self._key if address.startswith(("/api", "/metrics")) else {}
        began = time.perf_counter()
        with connection.execute_wrapper(counted):
            answer = self._pages.get(address, **headers)
            if not answer.streaming:
                answer.content  # noqa: B018  # rendered by now
        took = (time.perf_counter() - began) * 1000
        if answer.status_code >= 500:
            self.broken.append(f"{answer.status_code} {address}")
        return took, count, answer

    def walk(self) -> dict[str, list[str]]:
        """Return addresses by the kind of page, each of them asked once."""
        found: dict[str, list[str]] = defaultdict(list)
        waiting, seen = [*_beginnings()], set[str]()
        while waiting and len(seen) < _PAGES:
            address = waiting.pop(0)
            kind = _kind(address)
            if kind is None or address in seen or len(found[kind]) >= _SAMPLES:
                continue
            seen.add(address)
            _, _, answer = self.ask(address)
            found[kind].append(address)
            if answer.status_code == 200 and not answer.streaming:
                waiting += _links(address, answer)
        return {kind: addresses for kind, addresses in found.items() if addresses}


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
    given = sorted(_told(key, value) for key, value in parse_qsl(parts.query))
    return f"{name}{'?' if given else ''}{'&'.join(given)}"


def _told(key: str, value: str) -> str:
    """Return a parameter as it tells pages apart: states and switches by their value, others by name."""
    return f"{key}={value}" if key.startswith(("state", "due", "standing", "outcome")) else key


def measure(reader: Reader, rounds: int) -> dict[str, Figures]:
    """Ask each address ``rounds`` times after the first."""
    figures: dict[str, Figures] = defaultdict(Figures)
    for kind, addresses in reader.walk().items():
        of_kind = figures[kind]
        slowest = 0.0
        for address in addresses:
            for _ in range(rounds):
                took, queries, _ = reader.ask(address)
                of_kind.times_ms.append(took)
                of_kind.queries = max(of_kind.queries, queries)
                if took > slowest:
                    slowest, of_kind.worst = took, address
    return figures


def _report(figures: dict[str, Figures], most_ms: float) -> list[str]:
    """Print each kind of page, the slowest first; return those that take too long."""
    slow = []
    print(f"{'p50 ms':>8} {'p95 ms':>8} {'queries':>8}  page (the address that took longest)")
    ordered = sorted(figures.items(), key=lambda pair: -pair[1].percentile(0.95))
    for kind, of_kind in ordered:
        half, most = of_kind.percentile(0.5), of_kind.percentile(0.95)
        told = f"{kind}  ({of_kind.worst})" if most > most_ms / 2 else kind
        print(f"{half:8.0f} {most:8.0f} {of_kind.queries:8}  {told}")
        if most > most_ms:
            slow.append(kind)
    every = Figures(times_ms=[t for of_kind in figures.values() for t in of_kind.times_ms])
    print(
        f"{connection.vendor}, {Request.objects.count():,} requests, {len(figures)} kinds of pages,"
        f" {len(every.times_ms)} calls: p50 {every.percentile(0.5):.0f} ms,"
        f" p95 {every.percentile(0.95):.0f} ms, slowest kind's p95"
        f" {max(f.percentile(0.95) for f in figures.values()):.0f} ms"
    )
    return slow


def main() -> int:
    """Fill, walk, measure, print; return 1 when a page is too slow or broke."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--requests", type=int, default=1_000_000)
    parser.add_argument("--attempts", type=int, default=200_000)
    parser.add_argument(
        "--history", type=int, default=2, help="rows for each ended request, 0 to 4"
    )
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument(
        "--most", type=float, default=200, help="milliseconds, at the 95th percentile"
    )
    parser.add_argument("--only-fill", action="store_true")
    given = parser.parse_args()
    call_command("migrate", verbosity=0)
    if not Request.objects.exists():
        fill(Size(requests=given.requests, attempts=given.attempts, history=given.history))
    if given.only_fill:
        return 0
    reader = Reader()
    slow = _report(measure(reader, given.rounds), given.most)
    for told in (*(f"over {given.most:.0f} ms: {kind}" for kind in slow), *reader.broken):
        print(told, file=sys.stderr)
    return 1 if slow or reader.broken else 0


if __name__ == "__main__":
    sys.exit(main())
