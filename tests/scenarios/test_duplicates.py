"""Scenarios 5 and 15: the same id twice, and many at once."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor

import pytest

from tests.scenarios.client import Client, first_error
from tests.scenarios.processes import web_server


def test_the_same_request_sent_twice_is_one_request(api, road, receiver):
    """Scenario 5. House: an identical duplicate is answered 200 with the first one's id, not 409."""
    first = api.taken("d1", to=receiver.url())

    again = api.send("d1", to=receiver.url())

    assert again.status_code == 200
    assert again.json()["id"] == first["id"]
    road.run()
    assert [row["custom_id"] for row in api.requests()] == ["d1"]
    assert receiver.custom_ids() == ["d1"]


@pytest.mark.parametrize(
    "other",
    [
        pytest.param({"text": "Something else"}, id="other input"),
        pytest.param({"model": "gpt-5-mini"}, id="other model"),
        pytest.param({"url": "/v1/moderations"}, id="other endpoint"),
    ],
)
def test_the_same_id_for_something_else_is_refused(api, other):
    """Scenario 5."""
    api.taken("d1")

    refused = api.send("d1", **other)

    assert refused.status_code == 409
    assert first_error(refused)["code"] == "duplicate_custom_id"
    assert first_error(refused)["title"] == "Custom ID Already Exists"
    assert first_error(refused)["source"] == {"pointer": "/custom_id"}
    assert len(api.requests()) == 1


def test_a_duplicate_is_known_after_its_answer_came_too(api, road, receiver):
    api.taken("d1", to=receiver.url())
    road.run()

    again = api.send("d1", to=receiver.url())
    road.run()

    assert (again.status_code, again.json()["state"]) == (200, "delivered")
    assert receiver.custom_ids() == ["d1"]


def test_two_projects_may_use_the_same_id(api, client_of, road, receiver):
    """House: a custom_id is unique in its project, not in the whole installation."""
    theirs = client_of("theirs")

    api.taken("d1", "ours", to=receiver.url("/ours"))
    theirs.taken("d1", "theirs", to=receiver.url("/theirs"))
    road.run()

    assert receiver.custom_ids("/ours") == receiver.custom_ids("/theirs") == ["d1"]
    assert api.request("d1")["id"] != theirs.request("d1")["id"]
    assert len(api.requests()) == 1


@pytest.mark.slow
def test_two_hundred_at_once_are_all_taken_once(api, road, tmp_path):
    """Scenario 15, on the real web server, with packing in the meantime and half of them sent twice."""
    ids = [f"c-{n}" for n in range(200)]

    with web_server(tmp_path / "log") as url, ThreadPoolExecutor(32) as senders:
        answers = [senders.submit(send, url, api.key, each) for each in [*ids, *ids[:100]]]
        while not all(answer.done() for answer in answers):
            road.step("pack")
        road.step("pack")

    codes = [answer.result()[0] for answer in answers]
    assert (codes.count(202), codes.count(200)) == (200, 100)
    assert len({answer.result()[1] for answer in answers}) == 200
    assert sorted(row["custom_id"] for row in api.requests()) == sorted(ids)
    batch, one = api.only_batch(), api.request("c-0")
    assert (batch["state"], batch["request_count"]) == ("building", 200)
    assert batch["size_bytes"] == 200 * one["size_bytes"]
    assert batch["token_estimate"] == 200 * one["token_estimate"]


def send(url: str, key: str, custom_id: str) -> tuple[int, str]:
    with Client(url, key) as client:
        answer = client.send(custom_id, max_wait_s=600)
        return answer.status_code, answer.json()["id"]
