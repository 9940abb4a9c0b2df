"""Scenarios 11, 12, 13, 14, 37: how requests are packed, and when a batch goes."""

from __future__ import annotations

import pytest

from batching.models import Account
from tests.scenarios.client import first_error, ndjson, new_request, path_of
from tests.scenarios.provider import uploaded

HOUR_S = 3600


def narrow(account: Account, **limits: int) -> None:
    Account.objects.filter(pk=account.pk).update(**limits)


def shape(api) -> list[tuple[str, int]]:
    """Return state and size of each batch, oldest first."""
    return [(batch["state"], batch["request_count"]) for batch in api.batches()]


def test_the_sixth_of_five_goes_into_another_batch(api, road, account, provider):
    """Scenario 11."""
    narrow(account, max_requests=5)
    for n in range(6):
        api.taken(f"n-{n}", max_wait_s=HOUR_S)

    road.step("pack")
    packed = shape(api)
    road.run()

    assert packed == [("uploading", 5), ("building", 1)]
    assert shape(api) == [("delivered", 5), ("building", 1)]
    assert api.request("n-5")["state"] == "pending"
    assert len(uploaded(provider, api.batches()[0])) == 5


def test_a_batch_that_is_exactly_full_goes_at_once(api, road, account):
    """Scenario 11: the request that fills it is the last one it waits for."""
    narrow(account, max_requests=5)
    for n in range(5):
        api.taken(f"n-{n}", max_wait_s=HOUR_S)

    road.run()

    assert shape(api) == [("delivered", 5)]


def test_a_request_beyond_the_bytes_goes_into_another_batch(api, road, account):
    """Scenario 12."""
    narrow(account, max_bytes=1_000_000)
    for n in range(3):
        api.taken(f"b-{n}", "x" * 350_000, max_wait_s=HOUR_S)

    road.step("pack")

    assert shape(api) == [("uploading", 2), ("building", 1)]
    assert api.request("b-2")["batch"] == api.batches()[1]["id"]


@pytest.mark.parametrize(
    ("token_limit", "batches"),
    [
        pytest.param(2_000, [("uploading", 2), ("building", 1)], id="it does not fit"),
        pytest.param(3_000, [("building", 3)], id="a higher limit holds it"),
    ],
)
def test_a_request_beyond_the_tokens_goes_into_another_batch(
    api, road, account, token_limit, batches
):
    """Scenario 13."""
    narrow(account, token_limit=token_limit)
    for n in range(3):
        api.taken(f"t-{n}", "one " * 800, max_wait_s=HOUR_S)
    each = api.request("t-0")["token_estimate"]
    assert 2 * each <= 2_000 < 3 * each <= 3_000

    road.step("pack")

    assert shape(api) == batches


def test_only_the_body_counts_as_tokens(api):
    """Scenario 13. House: a custom_id has at most 512 characters, so no longer one can be sent."""
    api.taken("x")
    api.taken("y" * 512, metadata={"note": "z" * 500})

    assert api.request("x")["token_estimate"] == api.request("y" * 512)["token_estimate"]
    assert first_error(api.send("z" * 100_000))["source"] == {"pointer": "/custom_id"}


@pytest.mark.parametrize(
    ("limits", "too_much"),
    [
        pytest.param({"max_bytes": 10_000}, "bytes; its lane takes 10,000", id="bytes"),
        pytest.param({"token_limit": 1_000}, "tokens; its lane may enqueue 1,000", id="tokens"),
    ],
)
def test_what_no_batch_could_hold_is_refused_at_once(api, road, account, limits, too_much):
    """Scenario 14. House: no empty batch stays behind."""
    narrow(account, **limits)

    refused = api.send("big", "one " * 5_000)
    road.step("pack")

    assert refused.status_code == 422
    assert first_error(refused)["code"] == "validation_error"
    assert too_much in first_error(refused)["detail"]
    assert first_error(refused)["source"] == {"pointer": "/body"}
    assert (api.requests(), api.batches()) == ([], [])
    assert api.taken("small")["state"] == "pending"


def test_in_a_bulk_upload_only_the_line_that_is_too_big_is_refused(api, account):
    """Scenario 14, among others: one bad line stays one bad line."""
    narrow(account, max_bytes=10_000)
    lines = [new_request("a"), new_request("big", "x" * 20_000), new_request("b")]

    answer = api.call("POST", "/api/requests/bulk", data=ndjson(lines)).json()

    assert (answer["accepted"], answer["rejected"]) == (2, 1)
    assert [(e["line"], e["code"]) for e in answer["errors"]] == [(2, "validation_error")]
    assert sorted(api.states()) == ["a", "b"]


def test_a_batch_goes_when_it_is_old_and_a_younger_one_stays(api, road):
    """Scenario 37. House: as old as its most impatient request allows, by default an hour."""
    api.taken("old", max_wait_s=None)
    road.later(minutes=30)
    api.taken("young", model="gpt-5-mini", max_wait_s=None)
    road.step("pack")
    early = {batch["model"]: batch["state"] for batch in api.batches()}

    road.later(minutes=31)
    road.run()

    assert early == {"gpt-4o-mini": "building", "gpt-5-mini": "building"}
    late = {batch["model"]: batch["state"] for batch in api.batches()}
    assert late == {"gpt-4o-mini": "delivered", "gpt-5-mini": "building"}


def test_one_request_in_a_hurry_takes_the_others_along(api, road):
    """House: max_wait_s of 0 seals at the next tick."""
    api.taken("patient", max_wait_s=HOUR_S)
    api.taken("hurried", max_wait_s=0)

    road.run()

    assert shape(api) == [("delivered", 2)]


def test_an_old_batch_that_lost_its_requests_is_dropped(api, road, receiver, provider):
    """Scenario 37: nothing is uploaded for it. House: it is kept as cancelled, with the reason."""
    api.taken("gone", to=receiver.url(), max_wait_s=HOUR_S)
    road.step("pack")
    assert api.post("/api/requests/gone/cancel").status_code == 202
    refused = api.post(f"/api/batches/{api.only_batch()['id']}/seal")

    road.later(hours=2)
    road.run()

    assert refused.status_code == 409
    assert first_error(refused)["code"] == "empty_batch"
    batch = api.only_batch()
    assert path_of(batch) == ["building", "cancelled"]
    assert "no request left in it" in batch["transitions"][-1]["reason"]
    assert provider.stats()["files"] == 0
    assert [body["outcome"] for body in receiver.bodies()] == ["cancelled"]


def test_a_batch_goes_when_someone_asks(api, road):
    """Scenario 37: sealed by hand, once."""
    api.taken("s1", max_wait_s=HOUR_S)
    road.step("pack")
    path = f"/api/batches/{api.only_batch()['id']}/seal"

    sealed, again = api.post(path), api.post(path)

    assert (sealed.status_code, sealed.json()["state"]) == (202, "uploading")
    assert again.status_code == 409
    assert first_error(again)["meta"] == {"state": "uploading"}
    road.run()
    assert shape(api) == [("delivered", 1)]
