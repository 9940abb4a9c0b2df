"""One bad line among good ones: it fails, its client is told, and the others are answered once."""

from __future__ import annotations

import pytest

from tests.scenarios.client import new_request, path_of
from tests.scenarios.provider import fault, misbehave


def send(api, receiver, count: int, poison: set[int]) -> None:
    api.send_bulk(
        [
            new_request(f"r-{n}", "poison" if n in poison else f"Question {n}", to=receiver.url())
            for n in range(count)
        ]
    )


@pytest.mark.parametrize("is_named", [True, False])
def test_a_bad_line_fails_alone(api, road, receiver, provider, is_named):
    rule = fault("refuse_line", body="poison", code="invalid_value", is_named=is_named)
    misbehave(provider, rule)
    send(api, receiver, 20, {3, 11})

    road.run()

    came = receiver.by_id()
    bad = {custom_id for custom_id, body in came.items() if body["outcome"] == "failed"}
    assert (len(came), bad) == (20, {"r-3", "r-11"})
    assert {came[custom_id]["error"]["code"] for custom_id in bad} == {"invalid_value"}
    assert api.request("r-0")["attempt"] == 1
    assert set(api.states().values()) == {"delivered", "failed"}


def test_an_operator_reads_why_and_what_came_next(api, road, receiver, provider):
    misbehave(provider, fault("refuse_line", body="poison"))
    send(api, receiver, 3, {1})

    road.run()

    refused, rest = api.batches()
    assert "refused it: invalid_request in line 2" in refused["last_error"]
    assert "sent the rest again as batch" in refused["last_error"]
    assert path_of(refused)[-3:] == ["submitting", "processing", "failed"]
    assert path_of(rest)[0] == "uploading"
    assert "part of batch" in rest["transitions"][0]["reason"]
    assert path_of(api.request("r-0")) == [
        *("pending", "processing", "pending", "processing", "processed", "delivering", "delivered")
    ]


def test_a_provider_that_refuses_everything_is_not_asked_for_ever(
    api, road, receiver, provider, settings
):
    settings.BATCHER_MAX_SPLITS = 3
    misbehave(provider, fault("fail_validation", code="odd", message="Not today."))
    send(api, receiver, 16, set())

    road.run()

    assert provider.stats()["batches"]["created"] == 7
    assert set(api.states().values()) == {"failed"}
    assert len(receiver.by_id()) == 16
