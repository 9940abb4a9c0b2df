"""Scenarios 28, 30, 31: a batch's mixed end, its restart, and its deletion; and a run that is stopped as a whole."""

from __future__ import annotations

import pytest

from batching.models import Account
from tests.scenarios.client import first_error, new_request
from tests.scenarios.provider import fault, misbehave, uploaded
from tests.scenarios.receiver import Reply


def deed(api, batch, name: str):
    return api.post(f"/api/batches/{batch['id']}/{name}")


def delete(api, batch, **query):
    return api.call("DELETE", f"/api/batches/{batch['id']}", params=query)


def test_a_batch_with_a_failed_and_an_undeliverable_request_is_not_delivered(
    api, road, receiver, provider, settings
):
    """Scenario 28: nothing reached anybody; while one is on its way, the batch stays open."""
    misbehave(provider, fault("fail_line", body="bad", status=400))
    settings.BATCHER_ALLOW_PRIVATE_DESTINATIONS = ["localhost"]
    api.taken("lost", to=receiver.url())
    api.taken("failed", "bad", to=receiver.url())

    road.run()

    batch = api.only_batch()
    assert api.states() == {"lost": "delivery_failed", "failed": "failed"}
    assert (batch["state"], batch["answered_count"], batch["failed_count"]) == (
        "delivery_failed", 1, 1,
    )  # fmt: skip


def test_a_batch_delivers_while_one_result_is_on_its_way(api, road, receiver):
    """Scenario 28."""
    receiver.answer("/later", Reply(status=503), Reply())
    api.taken("now", to=receiver.url())
    api.taken("later", to=receiver.url("/later"))
    road.run()
    between = api.only_batch()["state"]

    road.later(hours=1)
    road.run()

    assert (between, api.only_batch()["state"]) == ("delivering", "delivered")


@pytest.fixture
def failed(api, road, receiver, provider):
    """Two requests whose batch the provider refused for something that has passed; return the batch."""
    rule = fault("fail_validation", code="billing_hard_limit_reached", message="No.", times=1)
    misbehave(provider, rule)
    api.send_bulk([new_request(f"r-{n}", to=receiver.url()) for n in range(2)])
    road.run()
    batch = api.only_batch()
    assert batch["state"] == "failed"
    return batch


def test_a_failed_batch_is_restarted_with_a_new_file(api, road, receiver, provider, failed):
    """Scenario 30. House: the file is written anew, for the old one may be gone."""
    answer = deed(api, failed, "restart")
    road.run()

    batch = api.only_batch()
    assert (answer.status_code, answer.json()["state"]) == (202, "uploading")
    assert (batch["state"], batch["last_error"]) == ("delivered", "")
    assert len(uploaded(provider, batch)) == 2
    outcomes = [body["outcome"] for body in receiver.bodies()]
    assert sorted(outcomes) == ["failed", "failed", "succeeded", "succeeded"]


def test_only_what_is_unfinished_is_sent_by_a_restart(api, road, receiver, provider):
    """Scenario 30: a finished result is not wiped, and what is not failed is refused."""
    misbehave(provider, fault("refuse_line", body="bad", times=1))
    for custom_id in ("good", "bad"):
        api.taken(custom_id, custom_id, to=receiver.url())
    road.run()
    refused, rest = api.batches()

    too_late = deed(api, rest, "restart")
    deed(api, refused, "restart")
    road.run()

    assert (too_late.status_code, first_error(too_late)["meta"]) == (409, {"state": "delivered"})
    assert len(uploaded(provider, api.batch(refused["id"]))) == 1
    assert api.states() == {"good": "delivered", "bad": "delivered"}
    assert receiver.custom_ids() == ["bad", "bad", "good"]


def test_a_deleted_batch_leaves_nothing_at_the_provider(api, road, receiver, provider):
    """Scenario 31: rows and files go; the next request opens another batch."""
    api.taken("a", to=receiver.url())
    road.run()

    answer = delete(api, api.only_batch())
    api.taken("b", to=receiver.url())
    road.run()

    assert answer.status_code == 204
    assert api.states() == {"b": "delivered"}
    assert provider.stats()["files"] == 2, "those of the second batch"


def test_a_provider_that_does_not_delete_keeps_no_batch_alive(api, road, receiver, provider):
    """Scenario 31: 500 is tolerated."""
    api.taken("a", to=receiver.url())
    road.run()
    misbehave(provider, fault("http_error", route="files.delete", status=500))

    assert delete(api, api.only_batch()).status_code == 204
    assert api.requests() == []


def test_undelivered_results_are_not_deleted_by_accident(api, road, receiver):
    """House: it is asked first."""
    receiver.answer("/dead", Reply(status=500))
    api.taken("a", to=receiver.url("/dead"))
    road.run()
    batch = api.only_batch()

    asked = delete(api, batch)
    kept = api.states()
    confirmed = delete(api, batch, undelivered="true")
    road.later(days=1)
    road.run()

    assert (asked.status_code, first_error(asked)["code"]) == (409, "undelivered")
    assert (kept, confirmed.status_code) == ({"a": "processed"}, 204)
    assert len(receiver.calls) == 1


def test_a_running_batch_is_cancelled_before_it_is_deleted(api, road, provider):
    """Scenario 31. House: deleting stops nothing; a batch ends first, and what it answered is told."""
    misbehave(provider, fault("slow", in_progress_s=10_000, cancelling_s=1))
    api.taken("a")
    road.until(lambda: bool(api.batches(state="processing")))

    running = delete(api, api.only_batch(), undelivered="true")
    deed(api, api.only_batch(), "cancel")
    road.run()
    ended = delete(api, api.only_batch())

    assert (running.status_code, first_error(running)["code"]) == (409, "invalid_batch_state")
    assert (ended.status_code, api.requests()) == (204, [])


def test_a_cancelled_run_reaches_the_provider_no_more(api, road, account, receiver, provider):
    """Two batches run and four wait: all are stopped, and only the two were ever there."""
    Account.objects.filter(pk=account.pk).update(max_requests=1, max_batches_in_flight=2)
    misbehave(provider, fault("slow", in_progress_s=10_000, cancelling_s=1))
    api.send_bulk([new_request(f"r-{n}", to=receiver.url()) for n in range(6)])
    road.until(lambda: len(api.batches(state="waiting_for_capacity")) == 4)

    for batch in reversed(api.batches()):
        assert deed(api, batch, "cancel").status_code == 202
    road.run()
    road.later(hours=1)
    road.run()

    calls = provider.stats()["calls"]
    assert (calls["batches.create"], calls["batches.cancel"]) == ({"200": 2}, {"200": 2})
    assert {body["outcome"] for body in receiver.by_id().values()} == {"cancelled"}


def test_a_hundred_requests_over_two_models_and_two_endpoints_are_four_batches(api, road, provider):
    """One model and one endpoint each; limits would split the rest."""
    api.send_bulk(
        [
            new_request(
                f"r-{n}",
                url=("/v1/responses", "/v1/chat/completions")[n % 2],
                body={
                    "model": ("gpt-4o-mini", "gpt-4o")[n // 2 % 2],
                    **(
                        {"messages": [{"role": "user", "content": "Hi"}]}
                        if n % 2
                        else {"input": "Hi"}
                    ),
                },
            )
            for n in range(100)
        ]
    )

    road.run()

    batches = api.batches()
    assert [batch["request_count"] for batch in batches] == [25] * 4
    assert len({(batch["model"], batch["url"]) for batch in batches}) == 4
    assert set(api.states().values()) == {"processed"}
