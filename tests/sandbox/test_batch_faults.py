"""Faults of whole batches: how they end, and how they look."""

from __future__ import annotations

import pytest

from tests.sandbox.driving import Driver, chat_lines, until


def rule(fault: str, **more) -> dict:
    return {"rules": [{"fault": fault, **more}]}


def test_a_batch_expires_after_so_many_answers(drive: Driver, sandbox):
    sandbox.set_scenario(rule("expire", after_answers=3, times=1))

    batch, next_batch = drive.run(chat_lines(5)), drive.run(chat_lines(5))

    unanswered = drive.rows(batch.error_file_id)
    assert (batch.status, batch.expired_at is not None) == ("expired", True)
    assert batch.completed_at is None
    assert (len(drive.answers(batch)), len(unanswered)) == (3, 2)
    assert {(row["response"], row["error"]["code"]) for row in unanswered} == {
        (None, "batch_expired")
    }
    assert batch.request_counts.model_dump() == {"total": 5, "completed": 3, "failed": 2}
    assert next_batch.status == "completed"


@pytest.mark.parametrize("answered", [0, 2])
def test_the_provider_cancels_a_batch_with_or_without_answers(drive: Driver, sandbox, answered):
    sandbox.set_scenario(rule("cancel_by_provider", after_answers=answered))

    batch = drive.run(chat_lines(5))

    assert (batch.status, batch.cancelled_at is not None) == ("cancelled", True)
    assert (batch.output_file_id is None) == (answered == 0)
    assert len(drive.answers(batch)) == answered
    assert {row["error"]["code"] for row in drive.rows(batch.error_file_id)} == {"batch_cancelled"}


def test_validation_fails_with_any_code(drive: Driver, sandbox):
    sandbox.set_scenario(
        rule("fail_validation", code="billing_hard_limit_reached", message="Pay first.", line=2)
    )

    batch = drive.run(chat_lines(3))

    (error,) = batch.errors.data
    assert batch.status == "failed"
    assert (error.code, error.message, error.line) == (
        "billing_hard_limit_reached",
        "Pay first.",
        2,
    )


def test_the_token_queue_is_full_at_validation(drive: Driver, sandbox):
    sandbox.set_scenario(rule("token_limit_exceeded", limit=90_000, times=1))

    batch = drive.run(chat_lines(1))

    (error,) = batch.errors.data
    assert (batch.status, error.code, error.line, error.param) == (
        "failed", "token_limit_exceeded", None, None,
    )  # fmt: skip
    assert error.message.startswith("Enqueued token limit reached for gpt-4o-mini in organization")
    assert "Limit: 90,000 enqueued tokens" in error.message
    assert drive.run(chat_lines(1)).status == "completed"


def test_finalizing_takes_its_time(drive: Driver, sandbox):
    sandbox.set_scenario(rule("slow", finalizing_s=100_000))
    batch = drive.create(chat_lines(3))
    until(lambda: drive.client.batches.retrieve(batch.id).status == "finalizing")

    waiting = drive.client.batches.retrieve(batch.id)
    sandbox.advance_clock(100_000)

    assert waiting.output_file_id is None
    assert drive.end(batch).status == "completed"


def test_a_new_batch_is_listed_late(drive: Driver, sandbox):
    sandbox.set_scenario(rule("list_lag", seconds=3600, times=1))
    late, at_once = drive.create(chat_lines(1)), drive.create(chat_lines(1))

    assert drive.client.batches.retrieve(late.id).id == late.id
    assert [batch.id for batch in drive.client.batches.list()] == [at_once.id]
    sandbox.advance_clock(3601)
    assert [batch.id for batch in drive.client.batches.list()] == [at_once.id, late.id]


@pytest.mark.parametrize("during", ["validating", "completed"])
def test_a_status_nobody_knows_is_shown(drive: Driver, sandbox, during):
    sandbox.set_scenario(rule("unknown_status", status="pondering", during=during))

    batch = drive.create(chat_lines(1))

    until(lambda: drive.client.batches.retrieve(batch.id).status == "pondering")


def test_a_completed_batch_has_no_files(drive: Driver, sandbox):
    sandbox.set_scenario(rule("no_output"))

    batch = drive.run(chat_lines(3))

    assert (batch.status, batch.request_counts.completed) == ("completed", 3)
    assert (batch.output_file_id, batch.error_file_id) == (None, None)


def test_a_batch_has_no_usage(drive: Driver, sandbox):
    sandbox.set_scenario(rule("no_batch_usage"))

    batch = drive.run(chat_lines(1))

    assert "usage" not in sandbox.control("GET", f"/v1/batches/{batch.id}")


@pytest.mark.parametrize(
    "counts", [{"total": "nine", "completed": -1, "failed": None}, None, "nine", []]
)
def test_counts_make_no_sense(drive: Driver, sandbox, counts):
    sandbox.set_scenario(rule("bad_counts", counts=counts))

    batch = drive.create(chat_lines(1))

    shown = sandbox.control("GET", f"/v1/batches/{batch.id}")
    assert shown["request_counts"] == counts


def test_bad_counts_may_keep_to_one_status(drive: Driver, sandbox):
    sandbox.set_scenario(rule("bad_counts", counts=None, during="validating"))

    assert drive.run(chat_lines(2)).request_counts.total == 2


@pytest.mark.parametrize(
    ("match", "struck"),
    [
        pytest.param({"metadata": {"run": "1"}}, True, id="metadata"),
        pytest.param({"metadata": {"run": "2"}}, False, id="other metadata"),
        pytest.param({"model": "gpt-4o*"}, True, id="model"),
        pytest.param({"model": "o3*"}, False, id="other model"),
        pytest.param({"endpoint": "/v1/responses"}, False, id="other endpoint"),
        pytest.param({"nth": 2}, False, id="second"),
    ],
)
def test_a_rule_strikes_the_batches_that_fit(drive: Driver, sandbox, match, struck):
    sandbox.set_scenario(rule("expire", match=match))

    batch = drive.run(chat_lines(2), metadata={"run": "1"})

    assert (batch.status == "expired") == struck


@pytest.mark.parametrize(
    ("name", "status", "answered"),
    [
        ("calm", "completed", 12),
        ("failed-lines", "completed", 10),
        ("expired", "expired", 2),
        ("cancelled", "cancelled", 1),
        ("queue-full", "failed", 0),
        ("broken-output", "completed", 12),
        ("odd-text", "completed", 12),
    ],
)
def test_a_ready_made_scenario_does_what_it_says(drive: Driver, sandbox, name, status, answered):
    sandbox.set_scenario(name)

    batch = drive.run(chat_lines(12))

    output = drive.raw(batch.output_file_id)
    assert batch.status == status
    assert output.count(b'"status_code":200') == answered


def test_a_batch_keeps_the_rules_it_was_created_under(drive: Driver, sandbox):
    sandbox.set_scenario({"rules": [{"fault": "expire"}, {"fault": "drop_line"}]})
    batch = drive.create(chat_lines(2))

    sandbox.clear_scenario()

    assert drive.end(batch).status == "expired"
