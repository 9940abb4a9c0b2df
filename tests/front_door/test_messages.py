"""A client's message batch, from its requests to its last result, through the official Anthropic SDK."""

from __future__ import annotations

from datetime import timedelta

import anthropic
import pytest

from batching.models import Batch, ClientFile, Request, RequestBody, Submission
from tests.front_door.messages import HAIKU, ask
from tests.scenarios.provider import fault, misbehave
from tests.scenarios.road import TO_THE_PROVIDER

pytestmark = pytest.mark.django_db(transaction=True)


def test_a_batch_comes_back_whole_and_in_the_order_of_its_requests(message_door, end):
    batch = message_door.create(*(ask(f"r-{n}", f"Say {n}") for n in range(20)))
    assert (batch.processing_status, batch.request_counts.processing) == ("in_progress", 20)
    assert (batch.results_url, batch.ended_at) == (None, None)

    batch = end(batch)

    counts = batch.request_counts
    assert (counts.processing, counts.succeeded, counts.errored) == (0, 20, 0)
    came = message_door.results(batch)
    assert [one.custom_id for one in came] == [f"r-{n}" for n in range(20)]
    assert {one.result.message.model for one in came} == {HAIKU}
    assert all(one.result.message.usage.output_tokens for one in came)


def test_ids_and_times_are_what_the_sdk_expects(message_door, end):
    batch = end(message_door.create(ask("a")))

    assert batch.id.startswith("msgbatch_")
    assert batch.type == "message_batch"
    assert batch.expires_at - batch.created_at == timedelta(hours=24)
    assert batch.created_at <= batch.ended_at
    assert (batch.cancel_initiated_at, batch.archived_at) == (None, None)


def test_all_requests_are_processing_until_the_batch_has_ended(message_door, road):
    later = ask("later", model="claude-sonnet-4-5", max_wait_s=86_400)
    batch = message_door.create(ask("now"), later)
    road.step("read")
    road.later(seconds=61)
    road.until(lambda: Request.objects.undecided().count() == 1)

    batch = message_door.batches.retrieve(batch.id)

    assert (batch.processing_status, batch.results_url) == ("in_progress", None)
    assert batch.request_counts.processing == 2
    with pytest.raises(anthropic.AnthropicError, match="results_url"):
        message_door.results(batch)


def test_params_are_passed_on_byte_for_byte(message_door, road):
    message_door.create(ask("a", "Grüße\u2028 \U0001f600", metadata={"who": "me"}))
    road.step("read")

    (body,) = RequestBody.objects.all()
    sent = bytes(body.body).decode()
    assert "Grüße\u2028 \U0001f600" in sent
    assert bytes(body.metadata) == b'{"who":"me"}'


def test_a_provider_batch_that_expires_is_invisible_to_the_client(message_door, end, provider):
    misbehave(provider, fault("expire", times=1))
    batch = end(message_door.create(*(ask(f"r-{n}") for n in range(4))))

    assert (batch.request_counts.succeeded, batch.request_counts.expired) == (4, 0)
    assert Batch.objects.count() == 2


def test_one_batch_may_mix_models_and_repeat_the_ids_of_the_one_before(message_door, end):
    first = end(message_door.create(ask("a"), ask("b", model="claude-sonnet-4-5")))
    second = end(message_door.create(ask("a", "Else"), ask("b")))

    assert message_door.ends(first) == message_door.ends(second)
    assert message_door.ends(first) == {"a": "succeeded", "b": "succeeded"}
    assert Request.objects.filter(custom_id="a").count() == 2


def test_what_the_provider_refuses_is_an_errored_result_in_its_own_words(message_door, end):
    bad = ask("bad")
    bad["params"]["temperature"] = 7
    batch = end(message_door.create(ask("good"), bad))

    assert (batch.request_counts.succeeded, batch.request_counts.errored) == (1, 1)
    good, bad = message_door.results(batch)
    assert (good.result.type, bad.result.type) == ("succeeded", "errored")
    assert bad.result.error.type == "error"
    assert bad.result.error.error.type == "invalid_request_error"
    assert "temperature" in bad.result.error.error.message


def test_cancelling_takes_back_what_no_provider_has(message_door, end):
    batch = message_door.create(ask("a"), ask("b"))

    stopped = message_door.batches.cancel(batch.id)
    assert (stopped.processing_status, stopped.request_counts.processing) == ("canceling", 2)
    assert stopped.cancel_initiated_at is not None
    assert message_door.batches.cancel(batch.id).processing_status == "canceling"

    batch = end(batch)
    assert batch.request_counts.canceled == 2
    assert message_door.ends(batch) == {"a": "canceled", "b": "canceled"}
    with pytest.raises(anthropic.BadRequestError, match="has ended"):
        message_door.batches.cancel(batch.id)


def test_cancelling_asks_the_provider_for_what_it_has(message_door, end, road):
    batch = message_door.create(*(ask(f"r-{n}") for n in range(3)))
    road.step("read")
    road.later(seconds=61)
    road.step(*TO_THE_PROVIDER)
    assert Batch.objects.get().state == "processing"

    message_door.batches.cancel(batch.id)
    batch = end(batch)

    counts = batch.request_counts
    assert counts.canceled + counts.succeeded == 3
    assert len(message_door.results(batch)) == 3


def test_a_batch_that_is_refused_after_all_says_so_for_each_request(
    message_door, end, message_account
):
    batch = message_door.create(ask("a"), ask("b"))
    message_account.is_enabled = False
    message_account.save()

    batch = end(batch)

    assert batch.request_counts.errored == 2
    assert message_door.ends(batch) == {"a": "errored", "b": "errored"}
    assert not Request.objects.exists()


def test_a_list_is_walked_both_ways(message_door, message_door_of):
    made = [message_door.create(ask("a")).id for _ in range(5)][::-1]
    message_door_of("theirs").create(ask("a"))

    assert [batch.id for batch in message_door.batches.list(limit=2)] == made
    page = message_door.batches.list(limit=2, after_id=made[1])
    assert ([batch.id for batch in page.data], page.has_more) == (made[2:4], True)
    assert (page.first_id, page.last_id) == (made[2], made[3])
    back = message_door.batches.list(limit=2, before_id=made[4])
    assert ([batch.id for batch in back.data], back.has_more) == (made[2:4], True)
    assert [batch.id for batch in back] == made[2:4] + made[:2]


def test_a_batch_that_has_ended_may_be_deleted(message_door, end):
    batch = message_door.create(ask("a"))
    with pytest.raises(anthropic.BadRequestError, match="cancel it first"):
        message_door.batches.delete(batch.id)

    batch = end(batch)
    gone = message_door.batches.delete(batch.id)

    assert (gone.id, gone.type) == (batch.id, "message_batch_deleted")
    with pytest.raises(anthropic.NotFoundError):
        message_door.batches.retrieve(batch.id)
    assert not list(message_door.batches.list())
    assert Request.objects.count() == 1


def test_results_are_gone_29_days_after_the_end(message_door, end, road):
    batch = end(message_door.create(ask("a")))
    road.later(days=29, seconds=1)

    old = message_door.batches.retrieve(batch.id)

    assert (old.archived_at - old.ended_at, old.results_url) == (timedelta(days=29), None)
    with pytest.raises(anthropic.NotFoundError):
        message_door.sdk.get(f"{batch.results_url}", cast_to=object)


def test_results_are_where_clients_reach_us(message_door, end, settings):
    batch = end(message_door.create(ask("a")))
    path = f"/v1/messages/batches/{batch.id}/results"
    assert batch.results_url == f"{message_door.url}{path}"

    settings.BATCHER_PUBLIC_URL = "https://batches.example.com/"
    batch = message_door.batches.retrieve(batch.id)
    assert batch.results_url == f"https://batches.example.com{path}"


def test_the_spooled_body_is_gone_when_it_is_read_and_never_among_the_files(
    message_door, door_of, road
):
    message_door.create(ask("a"))
    row = Submission.objects.get()
    file = door_of("ours").sdk.files
    assert not list(file.list())

    road.step("read")

    assert ClientFile.objects.get(pk=row.input_file_id).deleted_at is not None


def test_a_batch_may_name_where_its_results_go(message_door, end, receiver, road):
    place = {"type": "webhook", "webhook_url": receiver.url()}
    batch = end(message_door.create(ask("a"), extra_body={"delivery_config": place}))
    road.run()

    assert [one.custom_id for one in message_door.results(batch)] == ["a"]
    assert receiver.custom_ids() == ["a"]
