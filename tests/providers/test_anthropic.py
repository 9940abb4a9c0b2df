"""What is Anthropic's own: the body of a create, the counts that tell how a batch ended, nested errors."""

from __future__ import annotations

import json

import pytest
import responses

from batching.providers.anthropic import Anthropic, batch_of
from batching.providers.anthropic_lines import Envelope, read_answer, render_line, usage_of
from batching.providers.base import (
    Counts,
    Kind,
    ProviderError,
    Source,
    Status,
    TakesFiles,
    Trouble,
    Usage,
)
from batching.providers.http import Timeouts

BASE = "https://api.test"
BATCHES = f"{BASE}/v1/messages/batches"
NOTHING = {"processing": 0, "succeeded": 0, "errored": 0, "canceled": 0, "expired": 0}


@pytest.fixture
def provider():
    return Anthropic(base_url=BASE, api_key="sk-ant-key")


def shown(status: str = "in_progress", **facts) -> dict:
    return {"id": "msgbatch_1", "processing_status": status, "request_counts": NOTHING | facts}


def lines(tmp_path, *bodies: bytes):
    path = tmp_path / "lines.jsonl"
    rendered = (render_line(custom_id=f"r{n}", body=body) for n, body in enumerate(bodies))
    path.write_bytes(b"".join(rendered))
    return path


def test_it_takes_no_files(provider):
    assert not isinstance(provider, TakesFiles)


@pytest.mark.parametrize("amount", [1, 7, 16_384, -1])
def test_lines_become_the_body_of_a_create_however_it_is_read(tmp_path, amount):
    path = lines(tmp_path, b'{"a": 1,\n "b":[1.10]}', b"{}", b'{"c":"\\u2028\xc3\xa9"}')

    with Envelope(path) as body:
        size = body.len
        read = b"".join(iter(lambda: body.read(amount), b""))

    assert len(read) == size
    assert b'"params":{"a": 1,  "b":[1.10]}}' in read
    requests = json.loads(read)["requests"]
    assert [each["custom_id"] for each in requests] == ["r0", "r1", "r2"]
    assert requests[2]["params"] == {"c": "\u2028é"}


def test_a_create_says_its_size_and_carries_the_key_and_the_version(provider, tmp_path, serve):
    seen = {}

    def answer(handler):
        seen.update(handler.headers.items())
        seen["body"] = handler.rfile.read(int(handler.headers["Content-Length"]))
        body = json.dumps(shown(processing=1)).encode()
        handler.send_response(200)
        handler.send_header("Content-Length", str(len(body)))
        handler.end_headers()
        handler.wfile.write(body)

    url = serve(answer).removesuffix("/v1")
    ours = Anthropic(base_url=url, api_key="sk-ant-key")
    source = Source(path=lines(tmp_path, b'{"model":"m"}'))
    batch = ours.create(source=source, endpoint="/v1/messages", metadata={})

    assert (batch.id, batch.counts.total) == ("msgbatch_1", 1)
    assert seen["body"] == b'{"requests":[{"custom_id":"r0","params":{"model":"m"}}]}'
    assert (seen["x-api-key"], seen["anthropic-version"]) == ("sk-ant-key", "2023-06-01")
    assert seen["Content-Type"] == "application/json"


def test_a_create_that_is_cut_off_is_in_doubt(tmp_path, serve):
    url = serve(lambda handler: handler.gone.wait(5)).removesuffix("/v1")
    hasty = Timeouts(connect_s=1, silence_s=0.2, call_s=0.2, transfer_s=0.2)
    provider = Anthropic(base_url=url, api_key="k", timeouts=hasty)

    with pytest.raises(ProviderError) as failure:
        provider.create(source=Source(path=lines(tmp_path, b"{}")), endpoint="", metadata={})

    assert failure.value.trouble is Trouble.UNKNOWN


@pytest.mark.parametrize(
    ("status", "facts", "read"),
    [
        ("in_progress", {"processing": 3}, Status.IN_PROGRESS),
        ("canceling", {"processing": 3}, Status.CANCELLING),
        ("ended", {"succeeded": 2, "errored": 1}, Status.COMPLETED),
        ("ended", {"succeeded": 2, "expired": 1}, Status.EXPIRED),
        ("ended", {"succeeded": 1, "canceled": 2}, Status.CANCELLED),
        ("pondering", {"processing": 3}, Status.UNKNOWN),
    ],
)
def test_counts_tell_how_a_batch_ended(status, facts, read):
    batch = batch_of(shown(status, **facts), doubt=Trouble.RETRY)

    assert (batch.status, batch.raw_status, batch.counts.total) == (read, status, 3)


@pytest.mark.parametrize("counts", [None, [], {"processing": "nine"}, {"succeeded": -1}])
def test_counts_that_make_no_sense_are_unknown(counts):
    batch = batch_of(shown("ended") | {"request_counts": counts}, doubt=Trouble.RETRY)

    assert (batch.status, batch.counts) == (Status.COMPLETED, Counts())


def test_results_are_there_when_their_url_is_and_known_by_the_batchs_id():
    ended = shown("ended") | {"results_url": "https://elsewhere.test/x"}

    assert batch_of(ended, doubt=Trouble.RETRY).output_file_id == "msgbatch_1"
    assert batch_of(shown("ended"), doubt=Trouble.RETRY).output_file_id is None


@responses.activate
def test_results_come_from_the_base_url_whatever_the_batch_says(provider, tmp_path):
    responses.get(f"{BATCHES}/msgbatch_1/results", body=b"{}\n")

    assert provider.download("msgbatch_1", into=tmp_path / "results") == 3


@responses.activate
def test_an_id_can_not_leave_its_place_in_the_url(provider):
    responses.get(f"{BATCHES}/..%2F..%2Fmodels", json=shown())

    assert provider.retrieve("../../models").id == "msgbatch_1"


@responses.activate
def test_a_listing_goes_on_from_its_last_id(provider):
    pages = [{"data": [shown() | {"id": f"b{n}"}], "has_more": n == 1} for n in (1, 2)]
    responses.get(BATCHES, json=pages[0])
    responses.get(BATCHES, json=pages[1])
    since = batch_of(shown() | {"created_at": 0}, doubt=Trouble.RETRY).created_at

    found = [batch.id for batch in provider.list_batches(since=since)]

    assert found == ["b1", "b2"]
    assert "after_id=b1" in responses.calls[1].request.url


@pytest.mark.parametrize(
    ("word", "status", "is_retryable"),
    [
        ("invalid_request_error", 400, False),
        ("not_found_error", 404, False),
        ("billing_error", 402, False),
        ("rate_limit_error", 429, True),
        ("timeout_error", 504, True),
        ("api_error", 500, True),
        ("overloaded_error", 529, True),
    ],
)
def test_each_error_says_whether_another_try_may_help(word, status, is_retryable):
    error = {"type": "error", "error": {"type": word, "message": "said"}}
    raw = json.dumps({"custom_id": "r", "result": {"type": "errored", "error": error}}).encode()

    answer = read_answer(raw)

    assert (answer.kind, answer.status_code) == (Kind.FAILED, status)
    assert (answer.error_code, answer.error_message) == (word, "said")
    assert answer.is_retryable is is_retryable


@pytest.mark.parametrize("result", [b"null", b"7", b'"x"', b'{"type":"odd"}', b'{"type":[]}',
                                    b'{"type":"errored","error":"boom"}'])  # fmt: skip
def test_a_result_that_makes_no_sense_is_a_failure_of_its_request(result):
    answer = read_answer(b'{"custom_id":"r","result":%b}' % result)

    assert (answer.kind, answer.custom_id, answer.is_retryable) == (Kind.FAILED, "r", False)
    assert answer.error_code


def test_an_answer_with_half_a_surrogate_pair_is_read():
    raw = rb'{"custom_id":"r","result":{"type":"succeeded","message":{"x":"\ud83d","usage":null}}}'

    assert (read_answer(raw).kind, read_answer(raw).raw) == (Kind.SUCCEEDED, raw)


def test_what_the_cache_took_is_part_of_the_input():
    usage = {"input_tokens": 9, "cache_creation_input_tokens": 100, "output_tokens": 4}

    assert usage_of(usage | {"cache_read_input_tokens": 300}) == Usage(
        input_tokens=409, cached_tokens=300, output_tokens=4, written_tokens=100
    )
    assert usage_of(usage) == Usage(input_tokens=109, output_tokens=4, written_tokens=100)
    assert usage_of({"input_tokens": "many"}) == Usage()
