"""Scenario 38: uploads that fail are tried again, with their error in plain sight and nothing left behind."""

from __future__ import annotations

import pytest

from tests.scenarios.provider import fault, misbehave, uploaded

BROKEN = [
    pytest.param(fault("http_error", route="files.create", status=401), "401", id="401"),
    pytest.param(fault("http_error", route="files.create", status=404), "404", id="404"),
    pytest.param(fault("http_error", route="files.create", status=500), "500", id="500"),
    pytest.param(fault("rate_limit", route="files.create", retry_after_s=7), "429", id="429"),
    pytest.param(
        fault("drop_connection", route="files.create", after_effect=False), "", id="reset"
    ),
]


@pytest.mark.parametrize(("rule", "said"), BROKEN)
def test_a_failed_upload_is_tried_again_until_it_works(api, road, provider, settings, rule, said):
    misbehave(provider, rule)
    api.taken("a")

    road.step("pack", "upload")
    stuck = api.only_batch()
    misbehave(provider)
    road.later(minutes=1)
    road.run()

    assert (stuck["state"], stuck["provider_batch_id"]) == ("uploading", None)
    assert said in stuck["last_error"]
    assert stuck["last_error"] in stuck["why"]
    assert not list((settings.DATA_DIR / "batches").glob(f"{stuck['id']}*"))
    assert api.states() == {"a": "processed"}
    assert provider.stats()["batches"]["created"] == 1


def test_a_file_that_is_refused_again_and_again_fails_its_batch(api, road, receiver, provider):
    misbehave(provider, fault("http_error", route="files.create", status=404))
    api.taken("a", to=receiver.url())

    for _ in range(5):
        road.run()
        road.later(minutes=20)
    road.run()

    assert api.only_batch()["state"] == "failed"
    assert provider.stats()["calls"]["files.create"] == {"404": 5}
    assert [body["outcome"] for body in receiver.bodies()] == ["failed"]


def test_an_upload_whose_reply_was_lost_is_found_by_its_name(api, road, provider):
    misbehave(provider, fault("drop_connection", route="files.create", times=1))
    api.taken("a")
    road.step("pack", "upload")

    road.later(minutes=1)
    road.run()

    assert provider.stats()["calls"]["files.list"] == {"200": 1}
    assert provider.stats()["files"] == 2, "input and output"
    assert api.states() == {"a": "processed"}


def test_a_disk_that_is_full_is_waited_for(api, road, provider, monkeypatch):
    def full(*_: object) -> None:
        raise OSError(28, "No space left on device")

    api.taken("a")
    with monkeypatch.context() as trouble:
        trouble.setattr("batching.inputfile.os.fsync", full)
        road.step("pack", "upload")
    stuck = api.only_batch()
    road.later(minutes=1)
    road.run()

    assert (stuck["state"], "No space left" in stuck["last_error"]) == ("uploading", True)
    assert api.states() == {"a": "processed"}


def test_only_pending_requests_are_in_the_file(api, road, provider):
    misbehave(provider, fault("http_error", route="files.create", status=500, times=1))
    for custom_id in ("kept", "taken back"):
        api.taken(custom_id)
    road.step("pack", "upload")
    api.post("/api/requests/taken%20back/cancel")

    road.later(minutes=1)
    road.run()

    assert len(uploaded(provider, api.only_batch())) == 1
    assert api.states() == {"kept": "processed", "taken back": "cancelled"}
