"""The sandbox's control calls: scenario, clock, reset, statistics."""

from __future__ import annotations

import json
import urllib.error

import pytest

from tests.sandbox.driving import Driver, chat_lines, jsonl
from tests.sandbox_process import ROOT, SandboxProcess

READY_MADE = sorted(path.stem for path in (ROOT / "sandbox" / "scenarios").glob("*.json"))


def refused(sandbox: SandboxProcess, method: str, path: str, body: object) -> dict:
    with pytest.raises(urllib.error.HTTPError) as caught:
        sandbox.control(method, path, body)
    with caught.value as response:
        assert response.code == 400
        return json.loads(response.read())["error"]


def test_the_scenario_is_shown_replaced_and_taken_back(sandbox):
    sandbox.set_scenario({"description": "Mine", "rules": [{"fault": "expire", "times": 2}]})

    shown = sandbox.control("GET", "/sandbox/scenario")
    sandbox.clear_scenario()

    assert shown["description"] == "Mine"
    assert shown["rules"] == [
        {"fault": "expire", "match": {}, "times": 2, "rate": 1.0, "after_answers": 0}
    ]
    assert sandbox.control("GET", "/sandbox/scenario")["rules"] == []


@pytest.mark.parametrize("name", READY_MADE)
def test_every_ready_made_scenario_can_be_set(sandbox, name):
    sandbox.set_scenario(name)

    listed = {one["name"]: one for one in sandbox.control("GET", "/sandbox/scenarios")["data"]}
    assert sandbox.control("GET", "/sandbox/scenario")["description"] == listed[name]["description"]
    assert listed[name]["description"].endswith(".")


@pytest.mark.parametrize(
    ("scenario", "message"),
    [
        pytest.param({"rules": [{"fault": "expier"}]}, "Invalid value 'expier'", id="fault"),
        pytest.param({"rules": [{"fault": "expire", "after": 1}]}, "unknown field `after`", id="field"),
        pytest.param({"rulez": []}, "unknown field `rulez`", id="top"),
        pytest.param({"rules": [{"fault": "drop_line", "match": {"body": "("}}]}, "not a pattern", id="regex"),
        pytest.param({"rules": [{"fault": "drop_line", "match": {"nth": 0}}]}, "$.rules[0].match.nth", id="nth"),
        pytest.param({"rules": [{"fault": "expire", "match": {"custom_id": "x"}}]},
                     "`expire` can't match on `custom_id` - at `$.rules[0].match`", id="match"),
        pytest.param({"durations": {"in_progress_s": "long"}}, "$.durations.in_progress_s", id="type"),
        pytest.param({"durations": {"in_progress_s": -1}}, "$.durations.in_progress_s", id="negative"),
        pytest.param({"rules": [{"fault": "fail_line", "rate": 2}]}, "$.rules[0].rate", id="rate"),
    ],
)  # fmt: skip
def test_a_scenario_that_makes_no_sense_is_refused_and_changes_nothing(sandbox, scenario, message):
    sandbox.set_scenario({"description": "Mine"})

    error = refused(sandbox, "PUT", "/sandbox/scenario", scenario)

    assert message in error["message"]
    assert error["code"] == "invalid_scenario"
    assert sandbox.control("GET", "/sandbox/scenario")["description"] == "Mine"


def test_an_unknown_ready_made_scenario_is_refused(sandbox):
    error = refused(sandbox, "PUT", "/sandbox/scenario?ready_made=../calm", None)

    assert "no ready-made scenario" in error["message"]


@pytest.mark.parametrize("seconds", [-1, "ten", None, True])
def test_the_clock_only_moves_ahead(sandbox, seconds):
    assert (
        refused(sandbox, "POST", "/sandbox/clock", {"advance_s": seconds})["param"] == "advance_s"
    )


@pytest.mark.parametrize("speed", [0, -1, "fast", True])
def test_the_clock_never_stands_still(sandbox, speed):
    assert refused(sandbox, "POST", "/sandbox/clock", {"speed": speed})["param"] == "speed"


def test_the_clock_may_run_faster_for_a_while_and_goes_on_from_where_it_was(sandbox):
    before = sandbox.control("GET", "/sandbox/clock")

    faster = sandbox.control("POST", "/sandbox/clock", {"speed": 40_000})
    sandbox.control("POST", "/sandbox/clock", {"speed": before["speed"]})

    assert faster["speed"] == 40_000
    assert before["now"] <= faster["now"] < sandbox.control("GET", "/sandbox/clock")["now"]


def test_each_line_tells_what_became_of_it_in_every_batch(drive: Driver, sandbox):
    sandbox.set_scenario({"rules": [{"fault": "expire", "times": 1}]})
    first, second = drive.run(chat_lines(1)), drive.run(chat_lines(2))

    told = [json.loads(one) for one in sandbox.fetch("GET", "/sandbox/lines").splitlines()]

    again = {"batch": second.id, "outcome": "answered"}
    assert told == [
        {"custom_id": "row-1", "outcomes": [{"batch": first.id, "outcome": "expired"}, again]},
        {"custom_id": "row-2", "outcomes": [again]},
    ]


def test_statistics_count_calls_batches_and_lines(drive: Driver, sandbox):
    sandbox.set_scenario({"rules": [{"fault": "fail_line", "match": {"line": 3}}]})
    drive.run(chat_lines(3))
    drive.run(chat_lines(2))

    stats = sandbox.stats()

    assert stats["calls"]["batches.create"] == {"200": 2}
    assert stats["batches"] == {"created": 2, "by_status": {"completed": 2}}
    assert stats["lines"] == {
        "by_outcome": {"answered": 4, "failed": 1},
        "distinct": 3,
        "answered_again": 2,
        "answered_again_ids": {"row-1": 2, "row-2": 2},
    }
    assert stats["most_enqueued_tokens"]["gpt-4o-mini"] > 0
    assert [(rule["fitted"], rule["struck"]) for rule in stats["rules"]] == [(1, 1)]


def test_the_lines_of_a_batch_are_shown_as_they_came(drive: Driver, sandbox):
    sandbox.set_scenario({"rules": [{"fault": "expire", "after_answers": 1}]})
    raw = jsonl(chat_lines(2)).replace(b'"Say 2"', b'"Say  \\u0032"').strip()
    batch = drive.run([raw])

    shown = sandbox.lines(batch.id)
    content = sandbox.fetch("GET", f"/sandbox/batches/{batch.id}/lines")

    assert [one["custom_id"] for one in shown] == ["row-1", "row-2"]
    assert sorted(one["outcome"] for one in shown) == ["answered", "expired"]
    assert b'"Say  \\u0032"' in content


def test_a_reset_forgets_everything(drive: Driver, sandbox):
    sandbox.set_scenario("failed-lines")
    drive.run(chat_lines(3))

    sandbox.reset()

    assert sandbox.stats() == {
        "calls": {},
        "batches": {"created": 0, "by_status": {}},
        "files": 0,
        "lines": {"by_outcome": {}, "distinct": 0, "answered_again": 0, "answered_again_ids": {}},
        "most_enqueued_tokens": {},
        "rules": [],
    }
    assert sandbox.control("GET", "/sandbox/scenario")["rules"] == []
    assert not list((sandbox.data_dir / "state" / "files").iterdir())


def test_the_front_page_says_what_this_is(sandbox):
    assert sandbox.control("GET", "/")["object"] == "sandbox"
