"""What a message batch's client is told of each end, whatever shape the provider's line has."""

from __future__ import annotations

import json

import pytest

from batching import messageresults
from batching.models import Answer, Submission
from tests.batching.rows import a_project, a_request

pytestmark = pytest.mark.django_db

MESSAGE = rb'{"id":"msg_1", "content":[{"text":"\ud83d half"}],"n":1.10}'
OPENAI = b'{"id":"x","custom_id":"r","response":{"status_code":%d,"request_id":"q1","body":%b}}'
REFUSED = b'{"type":"error","error":{"type":"billing_error","message":"Pay"},"request_id":"r"}'


def told(line: bytes | None = None, **row) -> bytes:
    """Return the result of the one request of a batch, answered with this line."""
    batch = Submission.objects.create(project=a_project(), kind="anthropic")
    request = a_request(
        **{"state": "processed", **row}, submission=batch, custom_id="c", scope=batch.key
    )
    if line is not None:
        Answer.objects.create(request=request, attempt=1, line=line)
    (said,) = messageresults.lines(batch)
    assert said.startswith(b'{"custom_id":"c","result":')
    assert said.endswith(b"}\n")
    return said.removeprefix(b'{"custom_id":"c","result":')[:-2]


@pytest.mark.parametrize(
    "line",
    [
        pytest.param(b'{"custom_id":"r","result":{"type":"succeeded","message":%b}}', id="theirs"),
        pytest.param(OPENAI.replace(b"%d", b"200"), id="openai"),
    ],
)
def test_a_message_is_the_providers_own_bytes(line):
    assert told(line % MESSAGE) == b'{"type":"succeeded","message":%b}' % MESSAGE


def test_an_error_of_theirs_is_handed_on_as_it_is():
    errored = b'{"type":"errored","error":%b}' % REFUSED

    assert told(b'{"custom_id":"r","result":%b}' % errored, state="failed") == errored
    assert told(OPENAI % (402, REFUSED), state="failed") == errored


def test_an_error_of_another_shape_is_put_into_their_words():
    body = b'{"error":{"message":"Slow down","type":"requests","param":null,"code":"rate"}}'

    assert json.loads(told(OPENAI % (429, body), state="failed")) == {
        "type": "errored",
        "error": {
            "type": "error",
            "error": {"type": "rate_limit_error", "message": "Slow down"},
            "request_id": "q1",
        },
    }


@pytest.mark.parametrize(
    ("state", "end"), [("cancelled", {"type": "canceled"}), ("expired", {"type": "expired"})]
)
def test_a_bad_end_of_ours_counts_whatever_the_provider_wrote(state, end):
    assert json.loads(told(OPENAI % (200, MESSAGE), state=state)) == end
    assert json.loads(told(state=state)) == end


@pytest.mark.parametrize("line", [None, b"\xff", b'{"response":7}', b"{}"])
def test_what_has_no_answer_that_can_be_read_is_an_api_error(line):
    said = json.loads(
        told(line, state="failed", error_code="too_large", error_message="It has grown")
    )

    assert said["error"]["error"]["type"] == "api_error"
    assert said["error"]["error"]["message"]
