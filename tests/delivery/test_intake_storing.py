"""Storing messages: a verdict for each, a row for each refused one, and nothing twice."""

from __future__ import annotations

import json
from dataclasses import replace

import pytest
from django.db import OperationalError

from batching import intake
from batching.models import Request
from delivery import intake_storing
from delivery.intake_messages import Arrived, read
from delivery.intake_storing import Read, store
from delivery.models import Rejection
from tests.api.conftest import new_request
from tests.batching.rows import NOW, a_project, an_account, log_of

pytestmark = pytest.mark.django_db


@pytest.fixture(autouse=True)
def ours(db):
    an_account()
    return a_project("default")


def came(*requests, **facts):
    """Return a message that holds these requests, read."""
    sent = list(requests) if len(requests) > 1 else requests[0]
    body = sent if isinstance(sent, bytes) else json.dumps(sent).encode()
    return Read(message=Arrived(body=body, **facts), contents=read(body))


def stored(*messages):
    return store("in", messages, now=NOW)


def is_refused(verdict):
    return bool(verdict.faults)


def test_messages_are_stored_together_and_each_has_its_verdict():
    verdicts = stored(came(new_request("a")), came(new_request("b"), new_request("c")), came(b"7"))

    assert [is_refused(v) for v in verdicts] == [False, False, True]
    assert [t.custom_id for v in verdicts for t in v.taken] == ["a", "b", "c"]
    assert Request.objects.count() == 3
    assert "queue in" in log_of(Request.objects.get(custom_id="a"))[0][4]


def test_the_same_again_is_taken_and_is_the_first_request():
    [first] = stored(came(new_request("a")))

    [again, twice] = stored(came(new_request("a"), is_redelivered=True), came(new_request("a")))

    assert again.taken == twice.taken == first.taken
    assert Request.objects.count() == 1


def test_another_body_under_the_same_id_is_refused():
    stored(came(new_request("a")))

    [verdict] = stored(came(new_request("a", body={"model": "gpt-4o-mini", "input": "Other"})))

    assert [(f.code, f.pointer) for f in verdict.faults] == [("duplicate_custom_id", "/custom_id")]
    assert Rejection.objects.get().code == "duplicate_custom_id"


def test_a_wrong_request_refuses_its_message_and_leaves_the_right_ones_stored():
    stored(came(new_request("a"), new_request("b", account="nobody"), new_request("c", url="/x")))

    row = Rejection.objects.get()
    assert (row.taken_count, row.fault_count) == (1, 2)
    assert row.faults.splitlines() == [
        "/2/url: url must be one of " + row.faults.split("one of ")[1].splitlines()[0],
        "/1/account: no account 'nobody' for you",
    ]
    assert list(Request.objects.values_list("custom_id", flat=True)) == ["a"]


def test_the_header_names_the_project():
    other = a_project("other")

    [mine, nobodys] = stored(
        came(new_request("a"), project="other"), came(new_request("a"), project="nobody")
    )

    assert Request.objects.get().project == other
    assert not is_refused(mine)
    assert [f.code for f in nobodys.faults] == ["unknown_project"]


def test_a_refused_message_is_kept_with_its_beginning():
    body = b'{"\x00\xff\xe2\x80\xa8' + b"x" * 5000

    stored(came(body, message_id="m-1"))

    row = Rejection.objects.get()
    assert row.beginning.startswith('{"\\x00\\xff\\u2028xxx')
    assert row.size_bytes == len(body)
    assert (row.queue, row.message_id, row.received_at) == ("in", "m-1", NOW)


def test_a_refused_message_that_comes_again_after_a_lost_reject_has_one_row():
    message = came(b"{bad")
    stored(message)

    again = replace(message, message=replace(message.message, is_redelivered=True))
    assert is_refused(stored(again)[0])
    assert Rejection.objects.count() == 1

    stored(message)  # a second one, published anew
    assert Rejection.objects.count() == 2


def test_a_message_that_breaks_us_is_set_aside_alone(monkeypatch, caplog):
    def accept(project, lines, **how):
        if any(line.custom_id == "evil" for line in lines):
            raise ValueError("a fault of ours")
        return accept_really(project, lines, **how)

    accept_really = intake.accept
    monkeypatch.setattr(intake_storing.intake, "accept", accept)
    messages = [came(new_request(name)) for name in ("a", "b", "evil", "c", "d")]

    verdicts = stored(*messages)

    assert [is_refused(v) for v in verdicts] == [False, False, True, False, False]
    assert Rejection.objects.get().code == "internal_error"
    assert Request.objects.count() == 4
    assert "a fault of ours" in caplog.text


def test_when_every_message_breaks_us_none_is_refused(monkeypatch):
    def accept(*_args, **_how):
        raise ValueError("a wrong setting")

    monkeypatch.setattr(intake_storing.intake, "accept", accept)

    with pytest.raises(intake_storing.NothingStored, match="a wrong setting"):
        stored(came(new_request("a")), came(new_request("b")), came(b"{bad"))
    assert Rejection.objects.count() == 0


def test_trouble_of_the_database_refuses_nothing(monkeypatch):
    def accept(*_args, **_how):
        raise OperationalError("gone")

    monkeypatch.setattr(intake_storing.intake, "accept", accept)

    with pytest.raises(OperationalError):
        stored(came(new_request("a")), came(b"{bad"))
    assert Rejection.objects.count() == 0
