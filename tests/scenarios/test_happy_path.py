"""Scenarios 1, 4, 23, 36: a request goes all the way, and its answer comes back as the provider wrote it."""

from __future__ import annotations

import json
from concurrent.futures import ThreadPoolExecutor

import pytest
from django.db import connections
from standardwebhooks import Webhook

from batching import settling
from batching.models import Destination
from tests.scenarios.client import new_request, path_of
from tests.scenarios.provider import fault, misbehave, remote_batch, uploaded, written
from tests.scenarios.road import TO_THE_PROVIDER

BATCH_WAY = [
    *("building", "uploading", "uploaded", "submitting", "processing", "completed"),
    *("downloading", "ready_to_deliver", "delivering", "delivered"),
]
REQUEST_WAY = ["pending", "processing", "processed", "delivering", "delivered"]


def test_a_request_comes_back_to_its_webhook(api, road, receiver):
    """Scenario 1. House: the batch's log has submitting and ready_to_deliver, and our plain names."""
    taken = api.taken("a1", to=receiver.url())
    assert (taken["custom_id"], taken["state"]) == ("a1", "pending")

    road.run()

    request, batch = api.request("a1"), api.only_batch()
    assert path_of(batch) == BATCH_WAY
    assert batch["transitions"][0]["from_state"] is None
    assert path_of(request) == REQUEST_WAY
    assert [attempt["outcome"] for attempt in request["attempts"]] == ["delivered"]
    assert receiver.custom_ids() == ["a1"]


def test_the_provider_gets_exactly_a_line_with_the_body_as_it_was_sent(api, road, provider):
    """Scenario 1. House: the custom_id on the provider's wire is our token, never the client's id."""
    body = b'{"model": "gpt-4o-mini",  "input":"Hi", "new_parameter":{"b":1.0,"a":[]}}'
    line = json.dumps(new_request("a1") | {"body": "?"}).encode().replace(b'"?"', body)
    taken = api.call("POST", "/api/requests", data=line).json()

    road.run()

    (sent,) = uploaded(provider, api.only_batch())
    assert set(json.loads(sent)) == {"custom_id", "url", "method", "body"}
    assert json.loads(sent)["custom_id"] == taken["id"]
    assert body in sent


def test_the_webhook_gets_the_providers_line_and_headers_to_trust_it_by(
    api, road, receiver, provider
):
    """Scenario 1. House: the line goes with the client's id, an outcome, metadata, usage and cost."""
    taken = api.taken("a1", to=receiver.url(), metadata={"customer": "42"})

    road.run()

    line = written(provider, api.only_batch())[taken["id"]]
    (call,) = receiver.calls
    came = call.json()
    assert line[line.index(b'"response":') : -len(b',"error":null}')] in call.body
    assert (came["id"], came["custom_id"]) == (json.loads(line)["id"], "a1")
    assert (came["error"], came["outcome"]) == (None, "succeeded")
    assert came["metadata"] == {"customer": "42"}
    assert came["usage"]["input_tokens"] > 0
    assert call.headers["content-type"] == "application/json"
    assert call.headers["idempotency-key"] == call.headers["webhook-id"]
    assert call.headers["x-batcher-custom-id"] == "a1"
    assert call.headers["x-batcher-request-id"] == taken["id"]
    assert Webhook(Destination.objects.get().secret).verify(call.body, call.headers) == came


@pytest.mark.slow
def test_results_go_out_while_the_rest_of_the_file_is_still_read(
    api, road, receiver, provider, monkeypatch
):
    """Scenario 4: 5,000 lines, read so slowly that early results are delivered in the meantime."""
    lines = [new_request(f"r-{n}", to=receiver.url() if n < 300 else None) for n in range(5_000)]
    api.send_bulk(lines)
    road.until(lambda: api.batches(state="completed") != [], by=(*TO_THE_PROVIDER, "poll"))
    seen = []
    monkeypatch.setattr(settling, "chunks", _slowly(settling.chunks, receiver, api, seen))
    monkeypatch.setattr(settling, "_CHUNK_LINES", 500)

    with ThreadPoolExecutor(1) as other_worker:
        collected = other_worker.submit(_collect, road)
        while not collected.done():
            road.step("send")
        collected.result()
    road.run()

    assert seen == ["downloading"] * 9
    batch = api.only_batch()
    assert (batch["state"], batch["answered_count"]) == ("delivered", 5_000)
    assert batch["requests"] == {"delivered": 300, "processed": 4_700}
    assert receiver.custom_ids() == sorted(f"r-{n}" for n in range(300))


def _slowly(chunks, receiver, api, seen):
    """Read on only when one more result was delivered; note in which state the batch is then."""

    def read(lines):
        for number, chunk in enumerate(chunks(lines)):
            if number:
                receiver.wait_for(number)
                seen.append(api.only_batch()["state"])
            yield chunk

    return read


def _collect(road):
    road.step("collect")
    connections.close_all()


def test_a_batch_completes_without_any_usage(api, road, receiver, provider):
    """Scenario 23."""
    misbehave(provider, fault("no_batch_usage"), fault("no_usage"))
    api.taken("u1", to=receiver.url())

    road.run()

    batch, request = api.only_batch(), api.request("u1")
    assert batch["state"] == "delivered"
    assert set(batch["usage"].values()) == {None}
    assert request["usage"] is None or set(request["usage"].values()) == {None}
    assert receiver.bodies()[0]["usage"] is None
    assert "usage" not in remote_batch(provider, batch)


TEXT = "em dash — and 🎉, 漢字"
LONG = f"{TEXT} \u2028 and what stands behind a line separator"


def test_text_of_any_script_makes_the_whole_way(api, road, receiver, provider):
    """Scenario 36, with a custom_id that no header may hold as it is."""
    good = new_request("größe-漢", LONG, to=receiver.url(), metadata={"note": "🎉"})
    bad = new_request("bad", f"{TEXT} !", to=receiver.url())
    misbehave(provider, fault("fail_line", body=" !", status=400, message=f"no: {TEXT}"))
    upload = "\n".join(json.dumps(line, ensure_ascii=False) for line in (good, bad))
    assert api.call("POST", "/api/requests/bulk", data=upload.encode()).json()["accepted"] == 2

    road.run()

    sent = uploaded(provider, api.batch_of("bad"))
    assert [json.loads(each.decode())["body"]["input"] for each in sent] == [LONG, f"{TEXT} !"]
    assert LONG.encode() in sent[0]
    came = receiver.by_id()
    assert TEXT in json.dumps(came["größe-漢"]["response"]["body"], ensure_ascii=False)
    assert came["größe-漢"]["metadata"] == {"note": "🎉"}
    assert came["bad"]["response"]["body"]["error"]["message"] == f"no: {TEXT}"
    assert api.request("bad")["error"]["message"] == f"no: {TEXT}"
    named = {call.headers["x-batcher-custom-id"] for call in receiver.calls}
    assert named == {"bad", "gr%C3%B6%C3%9Fe-%E6%BC%A2"}
