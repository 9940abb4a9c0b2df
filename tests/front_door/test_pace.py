"""A key's pace of lines holds at the doors that speak another API, and is told in their words."""

from __future__ import annotations

import openai
import pytest

from batching.api import pace
from batching.models import Allowance, Request, Submission
from tests.front_door.conftest import line
from tests.front_door.messages import ask
from tests.front_door.test_one_call import ASYNC, chat, refusal

pytestmark = pytest.mark.django_db(transaction=True)


@pytest.fixture(autouse=True)
def nothing_in_hand():
    pace.forget()


def told(error):
    """Return what the headers of a refusal say of lines."""
    headers = error.response.headers
    assert 1 <= int(headers["retry-after"]) <= int(headers["ratelimit-reset"])
    return headers["ratelimit-limit"], headers["ratelimit-remaining"]


def test_a_batch_that_began_is_taken_whole_and_the_next_one_waits(door_of):
    door = door_of("ours", lines_per_minute=2)
    first = door.create(*(line(f"r-{n}") for n in range(4)))

    refused = refusal(door.create, line("a"))

    assert (refused.status_code, refused.code, refused.type) == (
        *(429, "rate_limited", "rate_limit_error"),
    )
    assert isinstance(refused, openai.RateLimitError)
    assert told(refused) == ("2", "0")
    assert int(refused.response.headers["retry-after"]) > 60
    assert Submission.objects.count() == 1
    assert door.batch(first).status == "validating"


def test_a_batch_that_is_refused_itself_costs_no_line(door_of):
    door = door_of("ours", lines_per_minute=1)

    refused = refusal(door.create, line("a"), metadata={"batcher_destination": "nobody"})

    assert refused.status_code == 400
    assert not Allowance.objects.filter(kind=pace.LINES).exists()
    assert door.create(line("a")).id


def test_lines_of_messages_are_told_too(message_door_of):
    door = message_door_of("ours", lines_per_minute=1, calls_per_minute=100)
    door.create(*(ask(f"r-{n}") for n in range(3)))

    with pytest.raises(Exception, match="may have 1 lines a minute") as caught:
        door.create(ask("a"))

    assert (caught.value.status_code, caught.value.type) == (429, "rate_limit_error")
    assert told(caught.value) == ("1", "0")


def test_one_call_is_one_line(door_of):
    door = door_of("ours", lines_per_minute=2)
    assert [chat(door, **ASYNC).status_code for _ in range(2)] == [202, 202]

    refused = refusal(chat, door, **ASYNC)

    assert (refused.status_code, refused.code) == (429, "rate_limited")
    assert told(refused) == ("2", "0")
    assert Request.objects.count() == 2


def test_all_doors_draw_on_one_bucket(door_of):
    door = door_of("ours", lines_per_minute=3)
    door.create(line("a"), line("b"), line("c"))

    assert refusal(chat, door, **ASYNC).status_code == 429
