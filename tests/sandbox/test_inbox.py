"""The built-in receiver keeps what it got and answers as it is told."""

from __future__ import annotations

import urllib.error
import urllib.request

import pytest

from sandbox.faults import AnyRule
from tests.sandbox.test_control import refused
from tests.sandbox_process import SandboxProcess


def deliver(
    sandbox: SandboxProcess, body: bytes = b'{"custom_id":"a"}', path: str = "/receiver"
) -> int:
    headers = {"webhook-id": "req_1-1", "x-batcher-custom-id": "a", "x-replay": "1"}
    call = urllib.request.Request(sandbox.url + path, body, headers, method="POST")
    try:
        with urllib.request.urlopen(call, timeout=10) as answer:
            return answer.status
    except urllib.error.HTTPError as answer:
        with answer:
            return answer.code


def test_it_takes_webhooks_without_a_key_and_keeps_them_newest_first(sandbox):
    assert [deliver(sandbox, b"one"), deliver(sandbox, b"two", "/receiver/orders")] == [200, 200]

    told = sandbox.control("GET", "/sandbox/receiver")

    assert (told["taken"], told["refused"], told["status"]) == (2, 0, 200)
    newest, oldest = told["arrivals"]
    assert (newest["body"], newest["path"]) == ("two", "/receiver/orders")
    assert oldest["webhook_id"] == "req_1-1"
    assert (oldest["custom_id"], oldest["is_replay"], oldest["size_bytes"]) == ("a", True, 3)


def test_it_fails_when_told_to_until_it_is_mended(sandbox):
    sandbox.control("PUT", "/sandbox/receiver", {"status": 503})
    broken = deliver(sandbox)
    sandbox.control("DELETE", "/sandbox/receiver")

    assert [broken, deliver(sandbox)] == [503, 200]
    told = sandbox.control("GET", "/sandbox/receiver")
    assert (told["taken"], told["refused"]) == (1, 1)
    assert [one["answered"] for one in told["arrivals"]] == [200, 503]


def test_it_goes_on_over_a_restart_and_forgets_at_a_reset(sandbox):
    sandbox.control("PUT", "/sandbox/receiver", {"status": 500})
    deliver(sandbox)
    sandbox.restart()

    told = sandbox.control("GET", "/sandbox/receiver")
    sandbox.reset()

    assert (told["status"], len(told["arrivals"])) == (500, 1)
    told = sandbox.control("GET", "/sandbox/receiver")
    assert (told["status"], told["arrivals"]) == (200, [])


@pytest.mark.parametrize("manner", [{"status": 99}, {"status": "no"}, {"delay_s": -1}, {"code": 1}])
def test_a_manner_that_makes_no_sense_is_refused(sandbox, manner):
    assert refused(sandbox, "PUT", "/sandbox/receiver", manner)["code"] == "invalid_receiver"
    assert sandbox.control("GET", "/sandbox/receiver")["status"] == 200


def test_every_fault_is_listed_with_what_it_strikes(sandbox):
    listed = {one["name"]: one for one in sandbox.control("GET", "/sandbox/faults")["data"]}

    assert set(listed) == {kind.__struct_config__.tag for kind in AnyRule.__args__}
    assert {one["strikes"] for one in listed.values()} == {"calls", "batches", "lines"}
    assert listed["drop_line"]["strikes"] == "lines"
    assert all(one["description"].endswith(".") for one in listed.values())


def test_a_key_of_the_sandbox_guards_what_is_told_but_not_what_comes(tmp_path):
    with SandboxProcess.start(tmp_path, api_key="the-key") as guarded:
        assert deliver(guarded) == 200
        assert guarded.control("GET", "/sandbox/receiver")["taken"] == 1
        guarded.api_key = "another"
        with pytest.raises(urllib.error.HTTPError) as caught:
            guarded.control("PUT", "/sandbox/receiver", {"status": 503})
        caught.value.close()
