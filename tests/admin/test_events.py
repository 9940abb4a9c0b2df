"""Events in the admin: who is told of what, how it went, and sending one again."""

from __future__ import annotations

from datetime import timedelta

from django.urls import reverse
from django.utils import timezone

from batching.models import AuditEntry
from delivery.event_models import EventAttempt, EventDelivery, EventSubscription
from tests.batching.rows import a_destination
from tests.delivery.subscriptions import an_event_due

LIST = "admin:delivery_eventdelivery_changelist"


def a_dead_event():
    delivery = an_event_due(a_destination(), dead_at=timezone.now())
    EventDelivery.objects.update(due_at=None)
    delivery.refresh_from_db()
    return delivery


def send_again(client, delivery):
    page = reverse("admin:delivery_eventdelivery_change", args=[delivery.pk])
    button = reverse("admin:delivery_eventdelivery_replay_one", args=[delivery.pk])
    assert button in client.get(page).content.decode()
    return client.post(button, {"confirmed": "yes", "reason": "the receiver is well"})


def test_an_event_shows_what_is_sent_and_what_came_of_it(as_):
    delivery = a_dead_event()
    facts = {"outcome": "http_status", "status": 503, "detail": "503 Busy"}
    EventAttempt.objects.create(delivery=delivery, number=1, **facts)
    url = reverse("admin:delivery_eventdelivery_change", args=[delivery.pk])

    page = as_("viewer").get(url).content.decode()

    for text in (delivery.event.key, "batch.completed", "503 Busy", "dead"):
        assert text in page


def test_an_event_is_found_by_its_key_and_by_what_it_is_about(as_):
    delivery, client = a_dead_event(), as_("viewer")

    for term, count in ((delivery.event.key, 1), ("bat_1", 1), ("bat_2", 0)):
        page = client.get(reverse(LIST), {"q": term})
        assert page.context["cl"].result_count == count


def test_operators_send_an_event_again_and_viewers_do_not(as_):
    delivery = a_dead_event()

    answer = send_again(as_("operator"), delivery)

    delivery.refresh_from_db()
    assert answer.status_code == 302
    assert delivery.standing == "waiting"
    assert delivery.due_at <= timezone.now() + timedelta(seconds=1)
    assert delivery.replays == 1
    assert AuditEntry.objects.get(action="eventdelivery.replay").reason == "the receiver is well"
    url = reverse("admin:delivery_eventdelivery_change", args=[delivery.pk])
    assert "Send again" not in as_("viewer").get(url).content.decode()


def test_admins_say_who_is_told_of_what(as_):
    place, client = a_destination(), as_("admin")
    url = reverse("admin:delivery_eventsubscription_add")

    sent = {"destination": place.pk, "types": ["submission.completed", "batch.failed"]}
    answer = client.post(url, sent)

    assert answer.status_code == 302
    assert EventSubscription.objects.get().types == ["batch.failed", "submission.completed"]
    assert client.post(url, {"destination": place.pk, "types": ["nonsense"]}).status_code == 200
    page = client.get(reverse("admin:delivery_eventsubscription_changelist")).content.decode()
    assert "submission.completed" in page
