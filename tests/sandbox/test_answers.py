"""What the sandbox's models say, one by one and in batches."""

from __future__ import annotations

import base64
import json
import struct

import openai
import pytest
from openai.types import Completion, CreateEmbeddingResponse, ModerationCreateResponse
from openai.types.chat import ChatCompletion
from openai.types.responses import Response

from tests.sandbox.driving import CHAT, Driver, chat_line, line

BODIES = {
    "/v1/responses": ({"model": "gpt-5-nano", "input": "Name a river"}, Response),
    CHAT: ({"model": "gpt-4o-mini", "messages": [{"role": "user", "content": "Name a river"}]}, ChatCompletion),
    "/v1/completions": ({"model": "gpt-3.5-turbo-instruct", "prompt": "Name a river"}, Completion),
    "/v1/embeddings": ({"model": "text-embedding-3-small", "input": "Name a river"}, CreateEmbeddingResponse),
    "/v1/moderations": ({"model": "omni-moderation-latest", "input": "Name a river"}, ModerationCreateResponse),
}  # fmt: skip


@pytest.mark.parametrize("endpoint", BODIES)
def test_a_batch_answers_each_endpoint_in_the_sdks_own_shape(drive: Driver, endpoint):
    body, shape = BODIES[endpoint]

    batch = drive.run([line("row-1", endpoint, body)], endpoint)

    answer = drive.answers(batch)["row-1"]["response"]["body"]
    shape.model_validate(answer, strict=False)
    assert ("usage" in answer) == (endpoint != "/v1/moderations")
    assert batch.usage.total_tokens == answer.get("usage", {}).get("total_tokens", 0)


@pytest.mark.parametrize("endpoint", BODIES)
def test_a_synchronous_call_says_what_a_batch_says(drive: Driver, sandbox, endpoint):
    body, _shape = BODIES[endpoint]
    batch = drive.run([line("row-1", endpoint, body)], endpoint)

    direct = sandbox.control("POST", endpoint, body)

    batched = drive.answers(batch)["row-1"]["response"]["body"]
    assert _lasting(direct) == _lasting(batched)


def _lasting(answer: dict) -> dict:
    """Return an answer without its ids and times."""
    text = json.dumps(answer)
    identity = answer.get("id", "_").replace("-", "_").partition("_")[2]
    cleaned = json.loads(text.replace(identity, "ID") if identity else text)
    return {name: value for name, value in cleaned.items() if name not in ("created", "created_at")}


def test_answers_take_up_the_question_and_repeat(client):
    def ask(text):
        messages = [{"role": "user", "content": [{"type": "text", "text": text}]}]
        return client.chat.completions.create(model="gpt-4o", messages=messages)

    one, again, other = ask("Name a river"), ask("Name a river"), ask("Name a lake")

    assert one.choices[0].message.content == again.choices[0].message.content
    assert "Name a river" in one.choices[0].message.content
    assert "Name a lake" in other.choices[0].message.content
    assert one.id != again.id


def test_usage_grows_with_the_prompt(client):
    def tokens(text):
        return client.responses.create(model="gpt-4o", input=text).usage.input_tokens

    assert tokens("word " * 1000) > 100 * tokens("word")


def test_a_token_limit_cuts_the_answer(client):
    messages = [{"role": "user", "content": "Name a river"}]
    chat = client.chat.completions.create(model="gpt-4o", messages=messages, max_tokens=3)
    response = client.responses.create(model="gpt-4o", input="Name a river", max_output_tokens=3)

    assert (chat.choices[0].finish_reason, chat.usage.completion_tokens) == ("length", 3)
    assert response.status == "incomplete"
    assert response.incomplete_details.reason == "max_output_tokens"


def test_reasoning_models_think_first(client):
    response = client.responses.create(model="gpt-5-nano", input="Name a river")

    assert [part.type for part in response.output] == ["reasoning", "message"]
    assert 0 < response.usage.output_tokens_details.reasoning_tokens < response.usage.output_tokens


def test_several_choices_are_given(client):
    messages = [{"role": "user", "content": "Name a river"}]

    chat = client.chat.completions.create(model="gpt-4o", messages=messages, n=3)

    assert [choice.index for choice in chat.choices] == [0, 1, 2]


def test_a_json_schema_is_followed(client):
    schema = {
        "type": "object",
        "properties": {
            "name": {"type": "string"},
            "length_km": {"type": "integer"},
            "kind": {"enum": ["river", "stream"]},
            "tags": {"type": "array", "items": {"type": "string"}},
            "wet": {"type": "boolean"},
            "nothing": {"type": "null"},
        },
    }
    form = {"type": "json_schema", "json_schema": {"name": "river", "schema": schema}}

    chat = client.chat.completions.create(
        model="gpt-4o", messages=[{"role": "user", "content": "One river"}], response_format=form
    )

    river = json.loads(chat.choices[0].message.content)
    assert river["name"] == "One river"
    assert isinstance(river["length_km"], int)
    assert river["kind"] in ("river", "stream")
    assert (river["tags"], river["wet"], river["nothing"]) == (["One river"], True, None)


def test_embeddings_are_unit_vectors_one_per_input(client):
    made = client.embeddings.create(
        model="text-embedding-3-large", input=["a", "b", "a"], encoding_format="float"
    )

    first, second, third = (part.embedding for part in made.data)
    assert [part.index for part in made.data] == [0, 1, 2]
    assert len(first) == 3072
    assert sum(value * value for value in first) == pytest.approx(1, abs=1e-5)
    assert first == third != second


def test_embeddings_honour_dimensions_and_base64(sandbox):
    body = {"model": "text-embedding-3-small", "input": "a", "dimensions": 256}

    floats = sandbox.control("POST", "/v1/embeddings", body)["data"][0]["embedding"]
    packed = sandbox.control("POST", "/v1/embeddings", body | {"encoding_format": "base64"})

    raw = base64.b64decode(packed["data"][0]["embedding"])
    assert len(floats) == 256
    assert struct.unpack("<256f", raw) == pytest.approx(floats, abs=1e-6)


@pytest.mark.parametrize(
    ("value", "count"),
    [("a", 1), (["a"], 1), (["a", "b"], 2), ([1, 2, 3], 1), ([[1], [2, 3]], 2)],
)
def test_every_form_of_embedding_input_is_taken(sandbox, value, count):
    body = {"model": "text-embedding-3-small", "input": value, "dimensions": 4}

    assert len(sandbox.control("POST", "/v1/embeddings", body)["data"]) == count


def test_moderations_flag_violence(client):
    results = client.moderations.create(input=["I love you", "I will attack"]).results

    assert [result.flagged for result in results] == [False, True]
    assert results[1].categories.violence is True


@pytest.mark.parametrize(
    ("endpoint", "body", "param"),
    [
        pytest.param("/v1/responses", {"model": "m"}, "input", id="responses"),
        pytest.param(CHAT, {"model": "m"}, "messages", id="chat"),
        pytest.param(CHAT, {"model": "m", "messages": []}, "messages", id="no messages"),
        pytest.param(CHAT, {"model": "m", "messages": ["x"]}, "messages[0].role", id="message"),
        pytest.param(CHAT, {"model": "m", "messages": [{"role": "user"}], "max_tokens": 0},
                     "max_tokens", id="limit"),
        pytest.param("/v1/completions", {"model": "m"}, "prompt", id="completions"),
        pytest.param("/v1/embeddings", {"model": "m"}, "input", id="embeddings"),
        pytest.param("/v1/embeddings", {"model": "m", "input": ""}, "input", id="empty input"),
        pytest.param("/v1/embeddings", {"model": "m", "input": "a", "dimensions": 0},
                     "dimensions", id="dimensions"),
        pytest.param("/v1/moderations", {"model": "m"}, "input", id="moderations"),
    ],
)  # fmt: skip
def test_an_obviously_wrong_body_is_refused_in_batch_and_directly(
    drive: Driver, endpoint, body, param
):
    batch = drive.run([line("row-1", endpoint, body)], endpoint)

    response = drive.rows(batch.error_file_id)[0]["response"]
    with pytest.raises(openai.BadRequestError) as caught:
        drive.client.post(endpoint.removeprefix("/v1"), body=body, cast_to=object)
    assert response["status_code"] == 400
    assert response["body"] == caught.value.response.json()
    assert response["body"]["error"]["param"] == param


def test_unknown_parameters_and_images_pass_through(drive: Driver):
    image = {"type": "image_url", "image_url": {"url": "data:image/png;base64,AAAA"}}
    messages = [{"role": "user", "content": [image, {"type": "text", "text": "What is it?"}]}]
    lines = [chat_line("row-1", messages=messages, brand_new_parameter={"a": [1]})]

    batch = drive.run(lines)

    text = drive.answers(batch)["row-1"]["response"]["body"]["choices"][0]["message"]["content"]
    assert "What is it?" in text
