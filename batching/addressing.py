"""Where each line of a chunk goes: its lane, and its destination. Rows are made on first use.

Looked up once per distinct answer in a chunk, not once per line. Called by intake only.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from django.utils import timezone

from batching.limits import BatchLimits, account_serves, batch_limits
from batching.models import Account, Destination, Lane, Project
from batching.models.projects import new_signing_secret, place_of
from batching.wire import Delivery, Line

if TYPE_CHECKING:
    from batching.permits import Permit


class Unknown(Exception):
    """A line that can't be sent: it names something we don't have, or that doesn't fit."""

    def __init__(self, code: str, detail: str, pointer: str) -> None:
        super().__init__(detail)
        self.code, self.detail, self.pointer = code, detail, pointer


@dataclass(frozen=True, kw_only=True)
class LaneRoom:
    """A lane and what one of its batches may hold."""

    lane_id: int
    limits: BatchLimits


class Addressing:
    """The lanes and destinations of one chunk of one project."""

    def __init__(self, project: Project, permit: Permit | None = None) -> None:
        self._project = project
        self._permit = permit
        self._lanes: dict[tuple[str, str, str], LaneRoom] = {}
        self._destinations: dict[Delivery, int | None] = {}
        self._accounts: list[Account] | None = None

    def lane(self, line: Line) -> LaneRoom:
        """Return the line's lane. Raises Unknown when its key may not send it, or no account takes it."""
        if self._permit is not None:
            self._permit.check(line)
        asked = (line.account, line.model, line.url)
        if asked not in self._lanes:
            account = self._account(line)
            lane, _ = Lane.objects.get_or_create(
                account=account, model=line.model, endpoint=line.url
            )
            lane.account = account
            self._lanes[asked] = LaneRoom(lane_id=lane.pk, limits=batch_limits(lane))
        return self._lanes[asked]

    def _account(self, line: Line) -> Account:
        if self._accounts is None:
            self._accounts = list(Account.objects.usable_by(self._project))
        if line.account:
            for account in self._accounts:
                if account.name == line.account:
                    return self._serving(account, line)
            raise Unknown("unknown_account", f"no account {line.account!r} for you", "/account")
        for account in self._accounts:
            if account_serves(account, line.url):
                return account
        raise Unknown("no_account", "no enabled account takes this endpoint", "/url")

    @staticmethod
    def _serving(account: Account, line: Line) -> Account:
        if not account_serves(account, line.url):
            raise Unknown("endpoint_not_served", f"{account.name} does not take {line.url}", "/url")
        return account

    def destination(self, line: Line) -> int | None:
        """Return the id of the line's destination; None when its client pulls."""
        delivery = line.delivery
        if delivery is None or delivery.type == "none":
            return None
        if delivery not in self._destinations:
            self._destinations[delivery] = destination_of(self._project, delivery).pk
        return self._destinations[delivery]


def destination_of(project: Project, delivery: Delivery) -> Destination:
    """Return where ``delivery`` leads: a destination of the project, made when it is the first use.

    Raises Unknown when it names one that is not there. Not for deliveries that lead nowhere.
    """
    if delivery.type == "destination":
        named = Destination.objects.present().filter(project=project, name=delivery.name).first()
        if named is None:
            detail = f"no destination {delivery.name!r}"
            raise Unknown("unknown_destination", detail, "/delivery_config/name")
        return named
    place = (delivery.url, delivery.queue, delivery.exchange, delivery.routing_key)
    row, _ = Destination.objects.get_or_create(
        project=project,
        fingerprint=place_of(delivery.type, *place),
        defaults={
            "type": delivery.type,
            "url": delivery.url,
            "queue": delivery.queue,
            "exchange": delivery.exchange,
            "routing_key": delivery.routing_key,
            "secret": new_signing_secret() if delivery.type == "webhook" else "",
            "secret_at": timezone.now() if delivery.type == "webhook" else None,
        },
    )
    return row
