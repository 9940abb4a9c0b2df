"""Who is told of events: destinations of the caller's project, and no others."""

from __future__ import annotations

import pytest

from batching.models import ApiKey, AuditEntry, Destination
from delivery.event_models import EventSubscription
from tests.api.conftest import Api, first_error
from tests.batching.rows import a_destination

PATH = "/api/event-subscriptions"
HOOK = {"type": "webhook", "webhook_url": "https://example.com/events"}


def asked(*types, config=None):
    return {"types": types or ["batch.completed"], "delivery_config": config or HOOK}


def test_a_place_is_made_and_told_of_what_was_asked(api, project):
    answer = api.post(PATH, asked("submission.completed", "batch.failed", "batch.failed"))

    told = answer.json()
    place = Destination.objects.get(project=project)
    assert answer.status_code == 201
    assert told["types"] == ["batch.failed", "submission.completed"]
    assert (told["destination"], told["delivery_config"]) == (place.key, HOOK)
    assert place.secret.startswith("whsec_")
    assert [row["id"] for row in api.get(PATH).json()["data"]] == [told["id"]]
    assert AuditEntry.objects.get().action == "eventsubscription.add"


def test_the_same_place_again_has_other_types_instead(api):
    first = api.post(PATH, asked("batch.completed")).json()

    answer = api.post(PATH, asked("batch.failed"))

    assert (answer.status_code, answer.json()["id"]) == (200, first["id"])
    assert EventSubscription.objects.get().types == ["batch.failed"]


def test_a_destination_is_named(api, project):
    place = a_destination(project=project, name="ops", url="https://example.com/ops")

    api.post(PATH, asked(config={"type": "destination", "name": "ops"}))

    assert EventSubscription.objects.get().destination == place


@pytest.mark.parametrize(
    ("sent", "status", "pointer"),
    [
        (asked("batch.finished"), 422, "/types/0"),
        ({"types": [], "delivery_config": HOOK}, 422, "/types"),
        ({"types": ["batch.failed"]}, 422, "/delivery_config"),
        (asked(config={"type": "none"}), 422, "/delivery_config/type"),
        (asked(config={"type": "destination", "name": "x"}), 422, "/delivery_config/name"),
        (asked(config=HOOK | {"webhook_url": "http://10.0.0.1/"}), 422, "/delivery_config"),
    ],
)
def test_what_can_not_be_is_refused_with_its_place_and_nothing_is_made(api, sent, status, pointer):
    answer = api.post(PATH, sent)

    assert answer.status_code == status
    assert first_error(answer)["source"]["pointer"] == pointer
    assert not Destination.objects.exists()


def test_a_key_bound_to_other_places_may_not(client, project):
    key, secret = ApiKey.issue(project, "bound")
    ApiKey.objects.filter(pk=key.pk).update(allowed_destinations=["https://other.example"])

    answer = Api(client, secret).post(PATH, asked())

    assert (answer.status_code, first_error(answer)["code"]) == (403, "destination_not_allowed")


def test_what_is_deleted_is_told_no_more_and_is_not_the_strangers_to_delete(api, stranger):
    key = api.post(PATH, asked()).json()["id"]

    assert stranger.send("DELETE", f"{PATH}/{key}").status_code == 404
    assert stranger.get(PATH).json()["data"] == []
    assert api.send("DELETE", f"{PATH}/{key}").status_code == 204
    assert api.send("DELETE", f"{PATH}/{key}").status_code == 404
    assert not EventSubscription.objects.exists()
