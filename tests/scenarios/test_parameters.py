"""AC-16: whatever a client writes in a body arrives as it was written, at each door, and an id is one request's."""

from __future__ import annotations

import json

import pytest

from batching.models import Batch
from tests.scenarios.client import first_error, new_request
from tests.scenarios.provider import uploaded

BODIES = {
    "sampling": '{"model":"gpt-4o-mini", "input":"Hi","top_p":0.10,"temperature":1e0,"seed":9007199254740993}',
    "tools": '{"model":"gpt-4o-mini","input":"Hi","tools":[{"type":"function","name":"f","parameters":'
    '{"type":"object","properties":{"b":{},"a":{}},"required":[ ]}}],"tool_choice":"auto"}',
    "reasoning": '{"reasoning":{"effort":"low"},"model":"gpt-5-mini","input":"Hi","max_output_tokens":64}',
    "metadata": '{"model":"gpt-4o-mini","input":"Hi","metadata":{"z":"1","a":"\\u00e9\\ud83d\\ude00"},"x":null}',
    "twice": '{"model":"gpt-4o-mini","input":"Hi","user":"\\/a","user":"é 漢"}',
}


def with_body(custom_id: str, body: str) -> bytes:
    """Return a request whose body is this text, byte for byte."""
    line = json.dumps(new_request(custom_id) | {"body": "BODY"})
    return line.replace('"BODY"', body).encode()


def body_sent(provider, custom_id: str, api) -> bytes:
    """Return the body's bytes in the line that the provider got."""
    key = api.request(custom_id)["id"].encode()
    (line,) = (one for one in uploaded(provider, api.batch_of(custom_id)) if key in one)
    return line[line.index(b'"body":') + len(b'"body":') : -1]


@pytest.mark.parametrize("path", ["/api/requests", "/api/requests/bulk"], ids=["one", "bulk"])
def test_every_parameter_arrives_byte_for_byte(api, road, provider, path):
    for name, body in BODIES.items():
        assert api.call("POST", path, data=with_body(name, body)).status_code == 202

    road.run()

    sent = {name: body_sent(provider, name, api) for name in BODIES}
    assert sent == {name: body.encode() for name, body in BODIES.items()}
    assert set(api.states().values()) == {"processed"}


@pytest.mark.parametrize(
    "custom_id", ["row 1/é 漢", "a" * 512, '"\\', "💡"], ids=["words", "long", "quotes", "wide"]
)
def test_a_clients_id_and_metadata_come_back_as_they_were_given(api, road, receiver, custom_id):
    api.taken(custom_id, to=receiver.url(), metadata={"Ключ": "значение"})

    road.run()

    (told,) = receiver.bodies()
    assert (told["custom_id"], told["metadata"]) == (custom_id, {"Ключ": "значение"})
    assert Batch.objects.get().state == "delivered"


def test_an_id_that_is_taken_names_the_request_that_has_it(api):
    first = api.taken("d1")

    alone = api.send("d1", "Something else")
    bulk = api.call("POST", "/api/requests/bulk", data=with_body("d1", BODIES["tools"])).json()

    assert alone.status_code == 409
    assert first["id"] in first_error(alone)["detail"]
    assert first["id"] in bulk["errors"][0]["detail"]
