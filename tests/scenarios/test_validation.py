"""Scenario 35: what is refused, with the place where it is wrong, and what is taken."""

from __future__ import annotations

import pytest

from tests.scenarios.client import MINI, first_error, new_request

WEBHOOK = {"type": "webhook", "webhook_url": "http://receiver:8080/w"}


def without(member: str) -> dict:
    line = new_request("v1", to=WEBHOOK)
    del line[member]
    return line


def changed(**members) -> dict:
    return new_request("v1", to=WEBHOOK) | members


def delivered_to(**delivery) -> dict:
    return new_request("v1", to=delivery)


REFUSED = {
    "no custom_id": (without("custom_id"), "/custom_id"),
    "empty custom_id": (changed(custom_id=""), "/custom_id"),
    "no delivery_config": (without("delivery_config"), "/delivery_config"),
    "body without model": (changed(body={}), "/body/model"),
    "body is a string": (changed(body="Hi"), "/body"),
    "model is a number": (changed(body={"model": 4}), "/body/model"),
    "method GET": (changed(method="GET"), "/method"),
    "unknown url": (changed(url="/v1/invalid"), "/url"),
    "unknown delivery type": (delivered_to(type="fax"), "/delivery_config/type"),
    "webhook without url": (delivered_to(type="webhook"), "/delivery_config/webhook_url"),
    "webhook to nowhere": (
        delivered_to(type="webhook", webhook_url="not-a-valid-url"),
        "/delivery_config/webhook_url",
    ),
    "webhook by ftp": (
        delivered_to(type="webhook", webhook_url="ftp://receiver/w"),
        "/delivery_config/webhook_url",
    ),
    "rabbitmq without queue": (delivered_to(type="rabbitmq"), "/delivery_config/rabbitmq_queue"),
    "rabbitmq with an empty queue": (
        delivered_to(type="rabbitmq", rabbitmq_queue=""),
        "/delivery_config/rabbitmq_queue",
    ),
    "exchange without routing key": (
        delivered_to(type="rabbitmq", rabbitmq_exchange="x"),
        "/delivery_config/rabbitmq_routing_key",
    ),
    "extra top-level key": (changed(urgent=True), "/urgent"),
    "extra delivery key": (delivered_to(**WEBHOOK, retries=3), "/delivery_config/retries"),
}


@pytest.mark.parametrize(("line", "pointer"), REFUSED.values(), ids=REFUSED)
def test_what_is_wrong_is_named(api, line, pointer):
    """Scenario 35. House: one shape for all errors, each with a code and a pointer."""
    answer = api.post("/api/requests", line)

    assert answer.status_code == 422
    error = first_error(answer)
    assert (error["code"], error["status"]) == ("validation_error", "422")
    assert error["source"] == {"pointer": pointer}
    assert error["detail"]
    assert api.requests() == []


def to(url: str, **body) -> dict:
    return changed(url=url, body={"model": MINI, **body})


PARTS = [{"type": "input_text", "text": "See"}, {"type": "input_image", "image_url": "data:,"}]
TAKEN = {
    "responses": to("/v1/responses", input="Hi"),
    "chat": to("/v1/chat/completions", messages=[{"role": "user", "content": "Hi"}]),
    "completions": to("/v1/completions", prompt="Once"),
    "embeddings of several texts": to("/v1/embeddings", input=["a", "b"]),
    "moderations": to("/v1/moderations", input=["a"]),
    "content in parts": to("/v1/responses", input=[{"role": "user", "content": PARTS}]),
    "role tool": to("/v1/chat/completions", messages=[{"role": "tool", "content": None}]),
    "a parameter nobody knows": to("/v1/responses", input="Hi", from_next_year={"a": [1]}),
    "single-label host": changed(
        delivery_config={"type": "webhook", "webhook_url": "HTTP://python-http-webhook:8080/x"}
    ),
    "queue": delivered_to(type="rabbitmq", rabbitmq_queue="results"),
    "exchange and routing key": delivered_to(
        type="rabbitmq", rabbitmq_exchange="x", rabbitmq_routing_key="y"
    ),
    "none": delivered_to(type="none"),
}


@pytest.mark.parametrize("line", TAKEN.values(), ids=TAKEN)
def test_what_is_right_is_taken(api, line):
    """Scenario 35. House: exchange and routing key are taken; of the body only the model is looked at."""
    answer = api.post("/api/requests", line)

    assert answer.status_code == 202, answer.text
    assert api.request("v1")["delivery_config"] == line["delivery_config"]


def test_without_a_key_nobody_gets_in(api, live_server):
    from tests.scenarios.client import Client

    with Client(live_server.url, "bm_live_wrong") as stranger:
        assert stranger.send("v1").status_code == 401
    assert api.requests() == []
