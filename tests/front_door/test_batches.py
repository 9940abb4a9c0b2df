"""A client's batch, from its file to its last answer, through the official SDK."""

from __future__ import annotations

import json

import openai
import pytest

from batching.models import Batch, Request
from tests.front_door.conftest import ENDPOINT, MINI, jsonl, line
from tests.scenarios.provider import fault, misbehave
from tests.scenarios.road import TO_THE_PROVIDER

pytestmark = pytest.mark.django_db(transaction=True)


def test_a_batch_comes_back_whole_and_in_the_order_of_its_file(door, finish):
    batch = door.create(*(line(f"r-{n}", f"Say {n}") for n in range(20)), metadata={"run": "7"})
    assert (batch.status, batch.request_counts.total) == ("validating", 0)

    batch = finish(batch)

    assert batch.status == "completed"
    counts = batch.request_counts
    assert (counts.total, counts.completed, counts.failed) == (20, 20, 0)
    assert (batch.metadata, batch.error_file_id) == ({"run": "7"}, None)
    came = door.output(batch)
    assert [row["custom_id"] for row in came] == [f"r-{n}" for n in range(20)]
    assert {row["response"]["status_code"] for row in came} == {200}
    assert [set(row) for row in came] == [{"id", "custom_id", "response", "error"}] * 20
    used = sum(row["response"]["body"]["usage"]["prompt_tokens"] for row in came)
    assert batch.usage.input_tokens == used
    assert batch.usage.total_tokens == used + batch.usage.output_tokens


def test_times_and_ids_are_what_the_sdk_expects(door, finish):
    batch = finish(door.create(line("a")))

    assert batch.id.startswith("batch_")
    assert batch.input_file_id.startswith("file-")
    assert batch.expires_at - batch.created_at == 24 * 3600
    assert batch.created_at <= batch.in_progress_at <= batch.finalizing_at <= batch.completed_at
    file = door.sdk.files.retrieve(batch.output_file_id)
    assert (file.purpose, file.status) == ("batch_output", "processed")
    assert file.expires_at - file.created_at == 30 * 24 * 3600
    assert file.bytes == len(door.sdk.files.content(file.id).read())


def test_one_batch_may_mix_models_and_endpoints(door, finish):
    batch = finish(
        door.create(
            line("chat"),
            line("nano", model="gpt-4.1-nano"),
            line("answer", url="/v1/responses"),
            line("vector", url="/v1/embeddings", model="text-embedding-3-small"),
        )
    )

    assert batch.request_counts.completed == 4
    assert Batch.objects.count() == 4
    assert [row["custom_id"] for row in door.output(batch)] == ["chat", "nano", "answer", "vector"]


def test_the_next_batch_may_use_the_same_custom_ids(door, finish):
    first = finish(door.create(line("a", "One"), line("b")))
    second = finish(door.create(line("a", "Two"), line("b")))

    assert [row["custom_id"] for row in door.output(first)] == ["a", "b"]
    assert [row["custom_id"] for row in door.output(second)] == ["a", "b"]
    assert Request.objects.filter(custom_id="a").count() == 2


def test_output_can_be_read_while_the_rest_is_still_under_way(door, road):
    batch = door.create(line("now"), line("later", model="gpt-4.1-nano", max_wait_s=86_400))
    road.step("read")
    road.later(seconds=61)
    road.until(lambda: door.batch(batch).request_counts.completed == 1)

    batch = door.batch(batch)

    assert (batch.status, batch.completed_at) == ("in_progress", None)
    assert [row["custom_id"] for row in door.output(batch)] == ["now"]


def test_a_line_that_the_provider_refuses_is_in_the_error_file(door, finish, provider):
    misbehave(provider, fault("fail_line", body="Bad", status=400))
    batch = finish(door.create(line("good"), line("bad", "Bad"), line("fine")))

    counts = batch.request_counts
    assert (batch.status, counts.completed, counts.failed) == ("completed", 2, 1)
    (bad,) = door.errors(batch)
    assert (bad["custom_id"], bad["response"]["status_code"]) == ("bad", 400)
    assert [row["custom_id"] for row in door.output(batch)] == ["good", "fine"]


def test_a_provider_batch_that_expires_is_invisible_to_the_client(door, finish, provider):
    misbehave(provider, fault("expire", times=1))
    batch = finish(door.create(*(line(f"r-{n}") for n in range(4))))

    assert (batch.status, batch.expired_at) == ("completed", None)
    assert batch.request_counts.completed == 4
    assert Batch.objects.count() == 2


def test_wrong_lines_are_told_with_their_numbers_and_nothing_is_stored(door, finish):
    wrong = door.create(
        line("a"),
        b"{not json\n",
        b"\n",
        line("a"),
        {"custom_id": "c", "method": "POST", "url": "/v1/nothing", "body": {"model": MINI}},
        {"method": "POST", "url": ENDPOINT, "body": {"model": MINI}},
        {"custom_id": "e", "method": "POST", "url": ENDPOINT, "body": {}},
        {
            "custom_id": "f",
            "method": "POST",
            "url": ENDPOINT,
            "body": {"model": MINI, "stream": True},
        },
    )
    assert wrong.status == "validating"

    wrong = finish(wrong)

    assert wrong.status == "failed"
    assert [(e.line, e.code, e.param) for e in wrong.errors.data] == [
        (2, "invalid_json_line", None),
        (4, "duplicate_custom_id", "custom_id"),
        (5, "invalid_url", "url"),
        (6, "missing_required_parameter", "custom_id"),
        (7, "invalid_request", "body.model"),
        (8, "streaming_unsupported", "body.stream"),
    ]
    assert (wrong.output_file_id, wrong.request_counts.total) == (None, 0)
    assert not Request.objects.exists()


def test_of_very_many_wrong_lines_the_first_thousand_are_told(door, finish):
    batch = finish(door.create(*([b"?\n"] * 1_500)))

    assert len(batch.errors.data) == 1_001
    assert batch.errors.data[-1].message.startswith("500 more lines")


def test_an_empty_file_fails(door, finish):
    batch = finish(door.create(b"\n\n"))

    (error,) = batch.errors.data
    assert (batch.status, error.code, error.line) == ("failed", "empty_file", None)


def test_a_file_deleted_before_it_was_read_fails_its_batch(door, finish):
    file = door.upload(line("a"))
    batch = door.sdk.batches.create(
        input_file_id=file.id, endpoint=ENDPOINT, completion_window="24h"
    )
    door.sdk.files.delete(file.id)

    batch = finish(batch)

    assert (batch.status, batch.errors.data[0].param) == ("failed", "file_id")


def test_a_batch_cancelled_before_it_was_read_sends_nothing(door, road):
    batch = door.create(line("a"))

    assert door.sdk.batches.cancel(batch.id).status == "cancelling"
    road.run()

    assert door.batch(batch).status == "cancelled"
    assert not Request.objects.exists()


def test_a_batch_cancelled_while_it_waits_ends_every_line(door, road):
    batch = door.create(line("a"), line("b"))
    road.step("read", "pack")

    door.sdk.batches.cancel(batch.id)
    road.run()

    batch = door.batch(batch)
    assert (batch.status, batch.request_counts.failed) == ("cancelled", 2)
    assert [row["error"]["code"] for row in door.errors(batch)] == ["batch_cancelled"] * 2


def test_a_batch_cancelled_at_the_provider_is_cancelled_there_too(door, road, provider):
    misbehave(provider, fault("slow", in_progress_s=80_000))
    batch = door.create(line("a"), line("b"))
    road.step("read")
    road.later(seconds=61)
    road.until(lambda: Batch.objects.filter(state="processing").exists(), by=TO_THE_PROVIDER)

    assert door.sdk.batches.cancel(batch.id).status == "cancelling"
    road.until(lambda: door.batch(batch).status == "cancelled")

    assert door.batch(batch).request_counts.failed == 2


def test_what_has_ended_can_not_be_cancelled(door, finish):
    batch = finish(door.create(line("a")))

    with pytest.raises(
        openai.BadRequestError, match="Cannot cancel a batch with status 'completed'"
    ):
        door.sdk.batches.cancel(batch.id)


def test_batches_are_listed_newest_first_a_page_at_a_time(door):
    made = [door.create(line("a")).id for _ in range(5)]

    first = door.sdk.batches.list(limit=2)

    assert ([batch.id for batch in first.data], first.has_more) == (made[:-3:-1], True)
    assert [batch.id for batch in door.sdk.batches.list(limit=2)] == made[::-1]


def test_results_go_to_the_place_that_the_batch_names(door, finish, receiver, road):
    batch = door.create(
        line("a"),
        line("b", delivery_config={"type": "none"}),
        metadata={"batcher_webhook_url": receiver.url()},
    )

    batch = finish(batch)
    road.run()

    assert receiver.custom_ids() == ["a"]
    assert [row["custom_id"] for row in door.output(batch)] == ["a", "b"]


def test_a_place_in_an_extra_field_works_as_well(door, finish, receiver, road):
    config = {"type": "webhook", "webhook_url": receiver.url()}
    batch = door.create(line("a"), extra_body={"delivery_config": config})

    finish(batch)
    road.run()

    assert receiver.custom_ids() == ["a"]


def test_another_projects_ids_are_not_there(door, door_of):
    batch = door.create(line("a"))
    stranger = door_of("theirs").sdk

    for call, name in (
        (stranger.batches.retrieve, batch.id),
        (stranger.batches.cancel, batch.id),
        (stranger.files.retrieve, batch.input_file_id),
        (stranger.files.content, batch.input_file_id),
        (stranger.files.delete, batch.input_file_id),
    ):
        with pytest.raises(openai.NotFoundError):
            call(name)
    with pytest.raises(openai.BadRequestError):
        stranger.batches.create(
            input_file_id=batch.input_file_id, endpoint=ENDPOINT, completion_window="24h"
        )
    assert stranger.batches.list().data == []


@pytest.mark.parametrize(
    ("changes", "param"),
    [
        pytest.param({"input_file_id": "file-none"}, "input_file_id", id="no file"),
        pytest.param({"endpoint": "/v1/nothing"}, "endpoint", id="no endpoint"),
        pytest.param({"completion_window": "1h"}, "completion_window", id="no window"),
        pytest.param({"metadata": {str(n): "x" for n in range(17)}}, "metadata", id="metadata"),
        pytest.param(
            {"metadata": {"batcher_destination": "nobody"}}, "delivery_config.name", id="place"
        ),
        pytest.param(
            {"output_expires_after": {"anchor": "created_at", "seconds": 1}},
            "output_expires_after.seconds",
            id="expiry",
        ),
    ],
)
def test_a_wrong_batch_is_refused_in_openais_words(door, changes, param):
    asked = {
        "input_file_id": door.upload(line("a")).id,
        "endpoint": ENDPOINT,
        "completion_window": "24h",
        **changes,
    }

    with pytest.raises(openai.BadRequestError) as refused:
        door.sdk.batches.create(**asked)

    assert set(refused.value.body) == {"message", "type", "param", "code"}
    assert refused.value.body["type"] == "invalid_request_error"
    assert refused.value.param == param


def test_a_killed_reader_leaves_nothing_twice(door, finish, road, monkeypatch):
    from batching import clientbatch

    monkeypatch.setattr(clientbatch, "_CHUNK_LINES", 10)
    store, calls = clientbatch._store, []

    def dies(batch, lines):
        calls.append(len(lines))
        if len(calls) == 3:
            raise MemoryError("killed")
        store(batch, lines)

    monkeypatch.setattr(clientbatch, "_store", dies)
    batch = door.create(*(line(f"r-{n}") for n in range(40)))
    road.step("read")
    assert (Request.objects.count(), door.batch(batch).status) == (20, "validating")

    road.later(minutes=1)
    batch = finish(batch)

    assert Request.objects.count() == 40
    assert [row["custom_id"] for row in door.output(batch)] == [f"r-{n}" for n in range(40)]


def test_an_answer_is_handed_on_as_the_provider_wrote_it(door, finish):
    batch = finish(door.create(line("Zürich/1 \u2028 ✓")))

    content = door.sdk.files.content(batch.output_file_id).read()

    assert content.count(b"\n") == 1
    assert json.loads(content)["custom_id"] == "Zürich/1 \u2028 ✓"
    assert jsonl(json.loads(content))
