"""Requests that are asked directly: once, within the cap, and never again when nobody knows what came of it."""

from __future__ import annotations

from datetime import timedelta

import pytest

from batching import direct
from batching.models import Answer, DirectCall, DirectSpend, Project
from batching.providers.base import Trouble
from tests.batching.fake_provider import bad, trouble
from tests.batching.rows import NOW, a_batch, a_lane, a_project, a_request, states_of

pytestmark = pytest.mark.django_db

MINUTE = timedelta(minutes=1)
BODY = {"model": "gpt-4o-mini", "input": "now", "max_output_tokens": 1000}
PRICE = 3 * 150 + 5 * 600  # of the fake provider's answer, at the ordinary price
BOOKED = 10 * 150 + 1000 * 600


def allow(cap="1.00", name="default") -> Project:
    project = a_project(name)
    project.deadline_policy, project.direct_cap = "direct", cap
    project.save()
    return project


def late(**fields):
    fields.setdefault("project", None)
    return a_request(body=BODY, deliver_by=NOW - MINUTE, **fields)


def again(row):
    return type(row).objects.get(pk=row.pk)


def spent() -> int:
    return sum(DirectSpend.objects.values_list("nano", flat=True))


def test_a_late_request_is_answered_at_the_ordinary_price(provider):
    allow()
    request, in_time = late(), a_request(deliver_by=NOW + MINUTE)

    assert direct.answer_late(NOW) == 1
    request = again(request)
    answer = Answer.objects.get(request=request)
    assert (request.state, request.cost_nano, answer.batch_id) == ("processed", PRICE, None)
    assert (answer.input_tokens, answer.output_tokens) == (3, 5)
    assert (spent(), states_of(in_time)) == (PRICE, ["pending"])


def test_it_leaves_its_file_and_the_batch_keeps_its_place(provider):
    allow()
    batch = a_batch(lane=a_lane(), state="waiting_for_capacity", input_file_id="file_1")
    request, other = late(batch=batch), a_request(batch=batch)
    direct.answer_late(NOW)

    assert states_of(batch, request, other) == ["uploading", "processed", "pending"]
    assert (again(request).batch, again(other).batch) == (None, batch)


def test_the_cap_holds_for_what_calls_may_cost(provider):
    allow(cap="0.00")
    Project.objects.update(direct_cap="0.01")
    DirectSpend.objects.create(project=a_project(), day=NOW.date(), nano=10**7 - 2 * BOOKED)
    requests = [late() for _ in range(3)]

    assert direct.answer_late(NOW) == 2
    assert states_of(*requests) == ["processed", "processed", "pending"]


def test_a_new_day_has_a_new_cap(provider):
    DirectSpend.objects.create(project=allow(), day=NOW.date(), nano=10**9)
    request = late()

    assert direct.answer_late(NOW) == 0
    assert direct.answer_late(NOW + timedelta(days=1)) == 1
    assert states_of(request) == ["processed"]


@pytest.mark.parametrize("cap", ["0", "5"])
def test_without_a_cap_or_a_price_nothing_is_asked(provider, cap):
    allow(cap=cap)
    request = late(lane=a_lane("nobody-knows-it" if cap == "5" else "gpt-4o-mini"))

    assert direct.answer_late(NOW) == 0
    assert (states_of(request), provider.calls) == (["pending"], [])


def test_an_exhausted_project_holds_up_no_other(provider):
    DirectSpend.objects.create(project=allow(), day=NOW.date(), nano=10**9)
    mine, theirs = late(), late(project=allow(name="other"))

    assert direct.answer_late(NOW) == 1
    assert states_of(mine, theirs) == ["pending", "processed"]


def test_a_refusal_is_the_end_and_costs_nothing(provider):
    allow()
    provider.refuse("ask", trouble(Trouble.REFUSED, code="invalid_value"))
    request = late()
    direct.answer_late(NOW)

    assert (again(request).state, again(request).error_code) == ("failed", "invalid_value")
    assert spent() == 0


def test_an_error_in_the_answer_is_the_requests_end(provider):
    allow()
    request = late()
    provider.answers[request.key] = bad(request.key, 400, "rude")
    direct.answer_late(NOW)

    assert (again(request).state, again(request).error_code) == ("failed", "rude")


def test_a_busy_provider_is_asked_again_later_and_three_times_in_all(provider):
    allow()
    provider.refuse("ask", trouble(Trouble.RETRY), times=9)
    request = late()

    asked = [direct.answer_late(NOW + minutes * MINUTE) for minutes in (0, 0, 1, 2, 3, 4)]
    assert asked == [1, 0, 1, 1, 0, 0]
    assert (states_of(request), spent()) == (["pending"], 0)


def test_what_is_in_doubt_is_not_asked_again_and_stays_booked(provider):
    allow()
    provider.refuse("ask", trouble(Trouble.UNKNOWN))
    request = late()

    assert [direct.answer_late(NOW), direct.answer_late(NOW + MINUTE)] == [1, 0]
    assert (again(request).state, again(request).error_code) == ("failed", "deadline_exceeded")
    assert spent() == BOOKED


def test_what_a_lost_worker_asked_is_in_doubt(provider, monkeypatch):
    allow()
    request = late()
    direct._claim(NOW)  # and there its worker ended

    assert direct.answer_late(NOW + MINUTE) == 0
    assert states_of(request) == ["processing"]
    direct.answer_late(NOW + 20 * MINUTE)
    assert again(request).error_code == "deadline_exceeded"
    assert DirectCall.objects.get().spent_nano is None
