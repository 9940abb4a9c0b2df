"""Destinations in the admin: made and changed by the core's rules, tried, rotated, deleted; requests redirected."""

from __future__ import annotations

import re

import pytest
from django.contrib.messages import get_messages
from django.urls import reverse
from django.utils import timezone

from batching.models import AuditEntry, Destination
from batching.models.projects import new_signing_secret
from tests.batching.rows import a_destination, a_project, a_request
from tests.delivery.receivers import answering
from tests.delivery.results import listening

ADD = "admin:batching_destination_add"
FORM = {
    "name": "crm", "type": "webhook", "url": "https://example.com/in", "queue": "", "exchange": "",
    "routing_key": "", "own_headers": "Authorization: Bearer hush\nX-Tenant: 7", "delays": "0, 5,300",
    "timeout_s": "5", "max_in_flight": "8", "max_per_second": "", "max_inline_bytes": "",
}  # fmt: skip


def change(place):
    return reverse("admin:batching_destination_change", args=[place.pk])


def move(client, place, name, **answers):
    url = reverse(f"admin:batching_{place._meta.model_name}_{name}_one", args=[place.pk])
    answer = client.post(url, {"confirmed": "yes", "reason": "a test", **answers})
    return answer, " ".join(str(m) for m in get_messages(answer.wsgi_request))


def errors(answer):
    return set(answer.context["adminform"].form.errors)


def test_a_destination_is_made_with_its_terms_and_shows_its_secret_once(as_):
    answer = as_("admin").post(reverse(ADD), {"project": a_project().pk, **FORM})

    place = Destination.objects.get()
    assert place.secret in answer.content.decode()
    assert place.own_headers == {"Authorization": "Bearer hush", "X-Tenant": "7"}
    assert (place.retry_delays_s, place.timeout_s, place.max_in_flight) == ([0, 5, 300], 5, 8)
    assert AuditEntry.objects.get(action="destination.add").after["headers"] == "***"


@pytest.mark.parametrize(
    ("typed", "field"),
    [
        ({"url": "http://example.com/"}, "url"),
        ({"url": "https://169.254.169.254/"}, "url"),
        ({"own_headers": "Host: x"}, "own_headers"),
        ({"own_headers": "no colon"}, "own_headers"),
        ({"delays": "5, soon"}, "delays"),
        ({"delays": "nan"}, "delays"),
        ({"timeout_s": "9000"}, "timeout_s"),
        ({"queue": "q"}, "type"),
        ({"type": "rabbitmq", "own_headers": "", "url": ""}, "queue"),
        ({"name": "taken"}, "name"),
    ],
)
def test_what_is_wrong_stands_beside_its_field(as_, typed, field):
    a_destination(name="taken")

    answer = as_("admin").post(reverse(ADD), {"project": a_project().pk, **FORM, **typed})

    assert field in errors(answer) or "__all__" in errors(answer)
    assert Destination.objects.count() == 1


def test_stored_headers_are_hidden_and_kept_when_they_are_left_alone(as_):
    place = a_destination(
        url="https://example.com/in", headers='{"X-A": "hush-1", "X-B": "hush-2"}'
    )
    client = as_("admin")
    page = client.get(change(place)).content.decode()

    client.post(change(place), {**FORM, "own_headers": "X-A: ***\nX-C: 3"})

    place.refresh_from_db()
    assert "hush" not in page
    assert place.own_headers == {"X-A": "hush-1", "X-C": "3"}


def test_the_page_tells_how_it_stands_to_those_who_may_only_look(as_):
    place = a_destination(headers='{"X-A": "hush"}', secret=new_signing_secret())
    a_request(destination=place, state="processed", due_at=timezone.now())
    a_request(destination=place, state="delivery_failed", dead_at=timezone.now())

    page = as_("viewer").get(change(place)).content.decode()

    figures = re.findall(r"<strong>(\d+)</strong>", page)
    assert figures[:2] == ["1", "1"]
    assert "hush" not in page
    assert place.secret not in page


@pytest.mark.django_db(transaction=True)
def test_a_ping_tells_what_came_of_it(as_, settings):
    settings.BATCHER_ALLOW_PRIVATE_DESTINATIONS = ["127.0.0.0/8"]
    with listening(answering("503 Busy")) as receiver:
        place = a_destination(url=receiver.url("/in"), secret=new_signing_secret())
        _, said = move(as_("operator"), place, "ping")

    assert re.search(
        r"0 done, 1 skipped: it did not arrive: 503 Busy from 127\.0\.0\.1 after \d+ ms", said
    )
    assert AuditEntry.objects.get(action="destination.ping").reason == "http_status"
    assert receiver.requests[0].headers["webhook-signature"].startswith("v1,")


def test_a_rotated_secret_is_shown_once_and_its_forerunner_named(as_):
    place = a_destination(secret=new_signing_secret())

    answer, _ = move(as_("admin"), place, "rotate")

    before, page = place.secret, answer.content.decode()
    place.refresh_from_db()
    assert place.secret in page
    assert before not in page
    assert place.previous_secret == before


def test_a_disabled_one_is_enabled_and_a_deleted_one_is_history(as_):
    place = a_destination(disabled_at=timezone.now(), stop_reason="410", url="https://x.test/?k=v")
    client = as_("admin")
    move(client, place, "enable")
    place.refresh_from_db()
    assert place.state == "open"

    move(client, place, "delete")

    place.refresh_from_db()
    page = client.get(change(place)).content.decode()
    assert (place.state, "[by the-admin]" in place.stop_reason) == ("deleted", True)
    assert "Rotate secret" not in page
    assert 'name="_save"' not in page


def test_an_operator_neither_rotates_nor_deletes(as_):
    place = a_destination()
    client = as_("operator")

    for name in ("rotate", "delete"):
        assert move(client, place, name)[0].status_code == 403


@pytest.mark.parametrize(
    ("to", "leads_to"),
    [
        ("crm", "https://crm.test/in"),
        ("https://example.com/new", "https://example.com/new"),
        ("none", None),
    ],
)
def test_a_requests_destination_is_changed(as_, to, leads_to):
    a_destination(name="crm", url="https://crm.test/in")
    row = a_request(destination=a_destination(), state="processed", due_at=timezone.now())

    _, said = move(as_("operator"), row, "redirect", to=to)

    row.refresh_from_db()
    assert "1 done" in said
    assert (row.destination.url if row.destination else None) == leads_to
    assert AuditEntry.objects.filter(action="request.redirect", object_key=row.key).exists()


@pytest.mark.parametrize("to", ["nobody", "dst_0", "http://example.com/", "https://10.0.0.1/"])
def test_a_destination_that_can_not_be_is_refused(as_, to):
    row = a_request(destination=a_destination(), state="delivered")

    _, said = move(as_("operator"), row, "redirect", to=to)

    assert "1 skipped" in said
    assert Destination.objects.count() == 1
