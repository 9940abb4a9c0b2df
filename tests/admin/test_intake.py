"""Refused messages and the intake's state: who sees what of them."""

from __future__ import annotations

from datetime import timedelta

from django.urls import reverse
from django.utils import timezone

from delivery.models import IntakeStatus, Rejection


def a_rejection(**fields):
    defaults = {
        "queue": "in", "project_name": "default", "code": "malformed_json", "detail": "not valid",
        "faults": "/: not valid", "size_bytes": 9, "sha256": "a" * 64, "beginning": "{secret prompt",
    }  # fmt: skip
    return Rejection.objects.create(**(defaults | fields))


def a_status(state="consuming", seconds_ago=1):
    seen = timezone.now() - timedelta(seconds=seconds_ago)
    return IntakeStatus.objects.create(queue="in", state=state, since=seen, seen_at=seen)


def page_of(client, row):
    name = f"admin:delivery_{row._meta.model_name}_change"
    return client.get(reverse(name, args=[row.pk])).content.decode()


def test_a_refused_message_says_what_was_wrong_and_shows_itself_to_those_who_may_open_bodies(as_):
    row = a_rejection()

    assert "/: not valid" in page_of(as_("viewer"), row)
    assert "{secret prompt" in page_of(as_("operator"), row)


def test_a_viewer_sees_nothing_of_the_message(as_):
    assert "secret prompt" not in page_of(as_("viewer"), a_rejection())


def test_a_message_is_found_by_its_digest(as_):
    a_rejection(sha256="b" * 64, detail="the one")
    a_rejection(detail="another")
    url = reverse("admin:delivery_rejection_changelist")

    page = as_("viewer").get(url, {"q": "B" * 64}).content.decode()

    assert "the one" in page
    assert "another" not in page


def test_a_consumer_that_says_nothing_any_more_is_not_called_consuming(as_):
    a_status()
    url = reverse("admin:delivery_intakestatus_changelist")
    client = as_("viewer")
    assert "consuming" in client.get(url).content.decode()

    IntakeStatus.objects.update(seen_at=timezone.now() - timedelta(minutes=2))

    assert "no sign of life" in client.get(url).content.decode()
