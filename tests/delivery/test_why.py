"""Why it is not done: the reasons, what comes next, when, and a guess that says what it was made from."""

from __future__ import annotations

from datetime import timedelta

import pytest

from batching.lifecycle import BatchState, RequestState
from batching.models import Batch, Flag, Turnaround
from delivery import health, why
from delivery.models import DestinationHealth
from tests.batching.rows import NOW, a_batch, a_destination, a_lane, a_project, a_request

pytestmark = pytest.mark.django_db

MINUTE = timedelta(minutes=1)
CLOCK = "2026-11-21 12:0{}:00 UTC"


@pytest.mark.parametrize("state", [str(s) for s in BatchState])
def test_every_state_of_a_batch_has_its_own_sentence(state):
    batch = a_batch(state=state, wait_reason="the lane is full", last_error="")

    told = why.of_batch(batch, NOW)

    assert all(reason[0].isupper() and reason.endswith(".") for reason in told.reasons)
    assert "None" not in str(told)


@pytest.mark.parametrize("state", [str(s) for s in RequestState])
@pytest.mark.parametrize("packed", [True, False])
def test_every_state_of_a_request_has_a_sentence(state, packed):
    request = a_request(state=state, batch=a_batch() if packed else None)

    told = why.of_request(request, NOW)

    assert all(reason[0].isupper() and reason.endswith(".") for reason in told.reasons)
    assert "None" not in str(told)


@pytest.mark.parametrize(
    ("fields", "expected"),
    [
        (
            {"state": "building", "request_count": 1234, "seal_by": NOW + MINUTE},
            "It is filling: 1,234 requests so far; it goes when it is full."
            " Next: it is sealed, full or not, at " + CLOCK.format(1) + ".",
        ),
        (
            {"state": "waiting_for_capacity", "wait_reason": "no room", "next_attempt_at": NOW},
            "It waits: no room. It has place 1 of 1 in its lane. Next: it is started as soon as it may.",
        ),
        (
            {
                "state": "processing",
                "provider_status": "in_progress",
                "provider_total": 10,
                "provider_completed": 3,
                "provider_failed": 1,
                "next_attempt_at": NOW + MINUTE,
            },
            "The provider works on it (in_progress): 4 of 10 done."
            " Next: the provider is asked about it, at " + CLOCK.format(1) + ".",
        ),
        (
            {"state": "failed", "last_error": "bad file"},
            "It failed: bad file. A person may restart it.",
        ),
        (
            {
                "state": "uploading",
                "request_count": 2,
                "last_error": "key revoked",
                "next_attempt_at": NOW + MINUTE,
            },
            "Its file of 2 requests is being uploaded. It has place 1 of 1 in its lane. Last trouble: key revoked."
            " Next: its file is uploaded, at " + CLOCK.format(1) + ".",
        ),
        (
            {
                "state": "processing",
                "wait_reason": "the provider has not answered since 2026-11-21 09:00 UTC",
                "next_attempt_at": NOW + MINUTE,
            },
            "The provider holds it: the provider has not answered since 2026-11-21 09:00 UTC."
            " Next: the provider is asked about it, at " + CLOCK.format(1) + ".",
        ),
    ],
    ids=["building", "waiting", "processing", "failed", "in-trouble", "silent"],
)
def test_a_batch_says_what_it_waits_for(fields, expected):
    assert str(why.of_batch(a_batch(**fields), NOW)) == expected


def test_a_request_goes_on_with_the_reasons_of_its_batch():
    lane = a_lane()
    a_batch(lane=lane, state="waiting_for_capacity", rank=1)
    batch = a_batch(lane=lane, state="uploaded", rank=2, paused_at=NOW, pause_reason="by anna")

    told = why.of_request(a_request(batch=batch), NOW)

    assert told.reasons == (
        f"It is in batch {batch.key}.",
        "Its file is at the provider.",
        "It is paused by anna; it is not started until someone resumes it.",
        "It has place 2 of 2 in its lane.",
    )


def test_progress_at_the_provider_becomes_an_estimate_that_says_its_basis():
    batch = a_batch(
        state="processing", create_started_at=NOW - 20 * MINUTE, polled_at=NOW,
        provider_total=100, provider_completed=40,
    )  # fmt: skip

    estimate = why.of_batch(batch, NOW).estimate

    assert (estimate.at, estimate.basis) == (NOW + 30 * MINUTE, "40 of 100 took 20 min")


@pytest.mark.parametrize(
    "fields",
    [{"provider_completed": 0}, {"provider_completed": 100}, {"polled_at": NOW - 19 * MINUTE}],
    ids=["nothing-done", "all-done", "overtaken"],
)
def test_there_is_no_estimate_without_a_ground(fields):
    usual = {"polled_at": NOW, "provider_total": 100, "provider_completed": 90}
    batch = a_batch(state="processing", create_started_at=NOW - 20 * MINUTE, **usual | fields)

    assert why.of_batch(batch, NOW).estimate is None


@pytest.mark.parametrize(
    ("age", "at", "share"),
    [(5, 5, "half"), (15, 5, "nine of ten")],
    ids=["young", "older"],
)
def test_without_progress_the_lanes_batches_are_the_ground(age, at, share):
    lane = a_lane()
    Turnaround.objects.create(lane=lane, p50_s=600, p90_s=1200, batches=9, spans_s=[600])
    batch = a_batch(lane=lane, state="processing", create_started_at=NOW - age * MINUTE)

    estimate = why.of_batch(batch, NOW).estimate

    assert estimate.at == NOW + at * MINUTE
    assert estimate.basis.startswith(f"{share} of the lane's batches took up to")


def test_a_lane_that_ended_too_few_batches_gives_no_estimate():
    batch = a_batch(state="processing", create_started_at=NOW)

    assert why.of_batch(batch, NOW).estimate is None


@pytest.mark.parametrize(
    ("fields", "expected"),
    [
        ({"delivered_at": NOW}, "The result was delivered at 2026-11-21 12:00:00 UTC."),
        ({"dead_at": NOW, "tries": 10}, "Delivery was given up after 10 tries"),
        (
            {"due_at": NOW + MINUTE, "tries": 2},
            "2 tries at delivery failed. Next: try 3 at delivery, at " + CLOCK.format(1) + ".",
        ),
        ({"due_at": NOW}, "The result is being delivered."),
    ],
    ids=["delivered", "given-up", "waiting", "due"],
)
def test_a_result_says_where_it_is(fields, expected):
    request = a_request(state="processed", destination=a_destination(), **fields)

    assert expected in str(why.of_request(request, NOW))


@pytest.mark.parametrize("held", ["paused", "disabled"])
def test_a_held_result_says_why(held):
    destination = a_destination(stop_reason="it asked us to", **{f"{held}_at": NOW})
    request = a_request(state="processed", destination=destination, due_at=NOW)

    told = why.of_request(request, NOW)

    assert f"The result is held: its destination is {held}: it asked us to." in told.reasons
    assert told.next == "it is sent when someone lets it go on"


def an_open_circuit(destination):
    DestinationHealth.objects.create(
        destination=destination, openings=1, open_until=NOW + MINUTE, failures_in_row=9,
        last_failure="status 503",
    )  # fmt: skip
    return destination


def test_a_result_behind_an_open_circuit_says_until_when():
    destination = an_open_circuit(a_destination())
    request = a_request(state="processed", destination=destination, due_at=NOW + MINUTE, tries=1)

    told = str(why.of_request(request, NOW))

    assert "circuit open until 12:01:00 UTC after 9 failures: status 503." in told


def test_a_delivering_batch_names_who_it_waits_for():
    batch = a_batch(state="delivering")
    slow, well = an_open_circuit(a_destination(name="crm")), a_destination(name="erp")
    for destination in (slow, slow, well):
        a_request(batch=batch, state="processed", destination=destination, due_at=NOW)

    told = why.of_batch(batch, NOW)

    assert told.reasons[1].startswith("2 of its results wait for crm: circuit open until 12:01:00")
    assert told.reasons[2] == "1 of its results wait for erp."


def test_a_project_reads_nothing_of_anothers_destination():
    batch, other = a_batch(state="delivering"), a_project("other")
    theirs = a_destination(project=other, name="secret-place")
    a_request(batch=batch, project=other, state="processed", destination=theirs, due_at=NOW)

    assert "secret" in str(why.of_batch(batch, NOW))
    assert "secret" not in str(why.of_batch(batch, NOW, project_id=a_project().pk))


def test_a_bad_end_says_its_error():
    request = a_request(state="failed", error_code="server_error", error_message="oh no")

    assert why.of_request(request, NOW).reasons[0] == "It is failed (server_error: oh no)."


def test_a_request_that_is_sent_again_says_so():
    assert "It is sent for the 3. time." in why.of_request(a_request(attempt=3), NOW).reasons


@pytest.mark.parametrize(("state", "most"), [("waiting_for_capacity", 2), ("delivering", 3)])
@pytest.mark.parametrize("size", [1, 30])
def test_an_answer_takes_the_same_few_queries_for_any_size(
    state, most, size, django_assert_max_num_queries
):
    batch = a_batch(state=state)
    for _ in range(size):
        a_batch(lane=batch.lane, state=state)
        a_request(batch=batch, state="processed", destination=a_destination(), due_at=NOW)
    row = Batch.objects.select_related("lane__account").get(pk=batch.pk)

    with django_assert_max_num_queries(most):
        why.of_batch(row, NOW)


def test_a_held_request_takes_one_query(django_assert_num_queries):
    request = a_request(state="processed", destination=a_destination(), due_at=NOW)

    with django_assert_num_queries(1):
        assert why.of_request(request, NOW)
    assert health.of(request.destination, now=NOW).sentence == ""


def test_a_request_that_is_asked_directly_says_so():
    told = why.of_request(a_request(state="processing", batch=None), NOW)

    assert told.reasons == ("No batch brings it in time, so the provider is asked directly.",)


def in_line(lane, tokens, **fields):
    fields = {"state": "waiting_for_capacity", "next_attempt_at": NOW} | fields
    return a_batch(lane=lane, token_estimate=tokens, **fields)


def learned(lane):
    Turnaround.objects.create(lane=lane, p50_s=600, p90_s=1200, batches=9, spans_s=[600])
    return lane


def test_a_batch_that_waits_is_guessed_by_the_queuefuls_before_it():
    lane = learned(a_lane(token_limit=100))
    in_line(lane, 90, state="processing")
    first, last = in_line(lane, 60), in_line(lane, 80)

    near, far = (why.of_batch(batch, NOW).estimate for batch in (first, last))

    assert (near.at, far.at) == (NOW + 20 * MINUTE, NOW + 30 * MINUTE)
    assert far.basis.startswith("a guess: 2 queuefuls go before it")


@pytest.mark.parametrize(
    ("fields", "at"),
    [
        ({"state": "building", "seal_by": NOW + 5 * MINUTE}, NOW + 15 * MINUTE),
        ({"next_attempt_at": NOW + 3 * MINUTE}, NOW + 13 * MINUTE),
        ({"state": "uploading"}, NOW + 10 * MINUTE),
    ],
    ids=["building", "backing off", "uploading"],
)
def test_what_has_to_pass_before_it_may_go_is_in_the_guess(fields, at):
    batch = in_line(learned(a_lane(token_limit=100)), 10, **fields)

    assert why.of_batch(batch, NOW).estimate.at == at


@pytest.mark.parametrize("held", ["batch", "lane", "account", "silent"])
def test_nobody_guesses_when_a_person_or_an_outage_ends(held):
    lane = learned(a_lane(token_limit=100))
    batch = in_line(lane, 10, paused_at=NOW if held == "batch" else None)
    batch.lane.paused_at = NOW if held == "lane" else None
    batch.lane.account.paused_at = NOW if held == "account" else None
    batch.lane.account.silent_since = NOW if held == "silent" else None

    assert why.of_batch(batch, NOW).estimate is None


def test_a_batch_that_fills_says_that_maintenance_keeps_others_out():
    Flag.objects.create(name=Flag.MAINTENANCE, is_on=True, reason="moving house")
    said = (
        "Maintenance mode is on (moving house): new requests are refused, what was taken goes on."
    )

    building, waiting = a_batch(state="building"), in_line(a_lane(), 10)

    assert said in why.of_batch(building, NOW).reasons
    assert said in why.of_request(a_request(), NOW).reasons
    assert said not in why.of_batch(waiting, NOW).reasons


def test_a_waiting_batch_costs_few_questions(django_assert_max_num_queries):
    lane = learned(a_lane(token_limit=100))
    batch = [in_line(lane, 10) for _ in range(5)][-1]
    batch = Batch.objects.select_related("lane__account").get(pk=batch.pk)

    with django_assert_max_num_queries(6):
        why.of_batch(batch, NOW)
