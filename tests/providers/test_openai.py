"""OpenAI's objects and calls: what is sent, how listings end, and what compatible servers write."""

from __future__ import annotations

import json
from datetime import UTC, datetime

import pytest
import responses
from responses import matchers

from batching.providers.base import Counts, ProviderError, RemoteError, Source, Status, Trouble
from batching.providers.openai import OpenAI, batch_of
from batching.providers.registry import provider_for

BASE_URL = "https://provider.test/v1"
SINCE = datetime(2026, 11, 1, tzinfo=UTC)
RECENT = int(SINCE.timestamp()) + 60
OLD = int(SINCE.timestamp()) - 60


@pytest.fixture
def provider():
    return provider_for("openai", base_url=f"{BASE_URL}/", api_key="sk-test")


def batch_with(**members):
    return batch_of({"id": "batch_1", "status": "in_progress", **members}, doubt=Trouble.RETRY)


def page_of(*objects, has_more: bool, after: str | None = None, path: str = "/batches") -> None:
    """Answer one page of a listing; without ``after`` the first one."""
    asked = {"after": after} if after else {}
    responses.get(
        BASE_URL + path,
        json={"object": "list", "data": list(objects), "has_more": has_more},
        match=[matchers.query_param_matcher(asked, strict_match=False)] if after else [_first_page],
    )


def _first_page(request) -> tuple[bool, str]:
    return "after" not in request.params, "not the first page"


def batch(number: int, created_at=RECENT) -> dict:
    return {"id": f"batch_{number}", "status": "in_progress", "created_at": created_at}


@pytest.mark.parametrize(
    ("word", "status"),
    [
        ("validating", Status.VALIDATING),
        ("Validating", Status.VALIDATING),
        ("IN_PROGRESS", Status.IN_PROGRESS),
        ("InProgress", Status.IN_PROGRESS),
        ("In Progress", Status.IN_PROGRESS),
        ("COMPLETED", Status.COMPLETED),
        ("Canceling", Status.CANCELLING),
        ("canceled", Status.CANCELLED),
    ],
)
def test_status_is_known_however_it_is_spelled(word, status):
    batch = batch_with(status=word)

    assert (batch.status, batch.raw_status) == (status, word)


@pytest.mark.parametrize("word", ["paused", "", None, 7, ["completed"], {"status": "completed"}])
def test_unknown_status_is_kept_and_logged(word, caplog):
    batch = batch_with(status=word)

    assert batch.status is Status.UNKNOWN
    assert not batch.status.is_final
    assert batch.raw["status"] == word
    assert "unknown provider batch status" in caplog.text


@pytest.mark.parametrize(
    ("given", "counts"),
    [
        (None, Counts()),
        ([], Counts()),
        ({"total": None, "completed": None, "failed": None}, Counts()),
        ({"total": 3, "completed": -1, "failed": "1"}, Counts(total=3)),
        ({"total": 3.0, "completed": True, "failed": 0}, Counts(failed=0)),
        ({"total": 2**40, "completed": 2}, Counts(completed=2)),
    ],
)
def test_only_whole_numbers_count(given, counts):
    assert batch_with(request_counts=given).counts == counts


@pytest.mark.parametrize(
    ("given", "at"),
    [
        (1790000000, datetime(2026, 9, 21, 14, 13, 20, tzinfo=UTC)),
        (1790000000.0, datetime(2026, 9, 21, 14, 13, 20, tzinfo=UTC)),
        ("2026-09-21T14:13:20Z", datetime(2026, 9, 21, 14, 13, 20, tzinfo=UTC)),
        ("2026-09-21T16:13:20+02:00", datetime(2026, 9, 21, 14, 13, 20, tzinfo=UTC)),
        ("2026-09-21T14:13:20", datetime(2026, 9, 21, 14, 13, 20, tzinfo=UTC)),
        ("soon", None),
        (10**18, None),
        (float("inf"), None),
        (True, None),
        (None, None),
    ],
)
def test_time_is_read_from_seconds_or_iso(given, at):
    assert batch_with(created_at=given).created_at == at


@pytest.mark.parametrize(
    ("members", "errors"),
    [
        ({"errors": None}, ()),
        (
            {"errors": {"object": "list", "data": [{"code": "c", "message": "m", "line": 2}]}},
            (RemoteError(code="c", message="m", line=2),),
        ),
        ({"errors": [{"code": "c"}, "m"]}, (RemoteError(code="c"), RemoteError(message="m"))),
        (
            {"errors": {"code": "c", "message": "m", "param": "p", "line": "2"}},
            (RemoteError(code="c", message="m", param="p"),),
        ),
        ({"errors": "m"}, (RemoteError(message="m"),)),
        ({"error": "m"}, (RemoteError(message="m"),)),
        ({"errors": {"data": None}}, (RemoteError(),)),
    ],
)
def test_errors_are_read_in_every_shape(members, errors):
    assert batch_with(**members).errors == errors


def test_metadata_and_files_may_be_null():
    batch = batch_with(metadata=None, output_file_id=None, error_file_id="", usage=None)

    assert batch.metadata == {}
    assert (batch.output_file_id, batch.error_file_id, batch.usage) == (None, None, None)


@responses.activate
def test_text_that_no_database_holds_is_replaced(provider):
    body = rb'{"id":"batch_1","status":"failed","errors":"a\u0000\ud800","x":[NaN,1e999]}'
    responses.get(f"{BASE_URL}/batches/batch_1", body=body)

    batch = provider.retrieve("batch_1")

    assert batch.errors == (RemoteError(message="a\ufffd\ufffd"),)
    assert json.dumps(batch.raw, allow_nan=False).encode()


@responses.activate
def test_create_sends_the_documented_members(provider):
    sent = {
        "input_file_id": "file_1",
        "endpoint": "/v1/responses",
        "completion_window": "24h",
        "metadata": {"batcher_batch": "bat_1"},
    }
    responses.post(f"{BASE_URL}/batches", json=batch(1), match=[matchers.json_params_matcher(sent)])

    provider.create(
        source=Source(file_id="file_1"),
        endpoint="/v1/responses",
        metadata={"batcher_batch": "bat_1"},
    )

    headers = responses.calls[0].request.headers
    assert headers["Authorization"] == "Bearer sk-test"
    assert headers["Accept-Encoding"] == "identity"


def test_upload_sends_purpose_name_and_content(serve, tmp_path):
    seen = []

    def answer(handler):
        seen.append(handler.rfile.read(int(handler.headers["Content-Length"])))
        body = b'{"id":"file_1","bytes":9,"filename":"in.jsonl"}'
        handler.wfile.write(b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n" % len(body) + body)

    path = tmp_path / "whatever"
    path.write_bytes(b'{"a":"\xe2"}\n')

    file = OpenAI(base_url=serve(answer), api_key="k").upload(path, filename="in.jsonl")

    assert (file.id, file.size_bytes, file.filename) == ("file_1", 9, "in.jsonl")
    assert b'name="purpose"\r\n\r\nbatch\r\n' in seen[0]
    assert b'name="file"; filename="in.jsonl"' in seen[0]
    assert b'\r\n\r\n{"a":"\xe2"}\n\r\n' in seen[0]


@responses.activate
def test_listing_goes_over_all_pages_up_to_the_time_asked_for(provider):
    page_of(batch(4), batch(3), has_more=True)
    page_of(batch(2), batch(1, OLD), has_more=True, after="batch_3")
    page_of(batch(0, OLD), has_more=True, after="batch_1")

    found = [each.id for each in provider.list_batches(since=SINCE)]

    assert found == ["batch_4", "batch_3", "batch_2"]
    assert responses.calls[0].request.params["limit"] == "100"


@responses.activate
def test_batch_that_moved_to_the_next_page_shows_up_once(provider):
    page_of(batch(2), batch(1), has_more=True)
    page_of(batch(1), batch(0), has_more=False, after="batch_1")

    assert [each.id for each in provider.list_batches(since=SINCE)] == [
        "batch_2",
        "batch_1",
        "batch_0",
    ]


@responses.activate
def test_listing_ends_when_the_server_ignores_where_to_go_on(provider):
    responses.get(f"{BASE_URL}/batches", json={"data": [batch(1)], "has_more": True})

    assert [each.id for each in provider.list_batches(since=SINCE)] == ["batch_1"]
    assert len(responses.calls) == 2


@responses.activate
def test_batch_without_a_time_is_listed_rather_than_lost(provider):
    page_of(batch(1, None), has_more=False)

    assert [each.id for each in provider.list_batches(since=SINCE)] == ["batch_1"]


@responses.activate
def test_bare_array_is_a_whole_listing(provider):
    responses.get(f"{BASE_URL}/batches", json=[batch(1), batch(0)])

    assert len(list(provider.list_batches(since=SINCE))) == 2


@pytest.mark.parametrize(
    "answer", [{}, {"data": None}, {"data": [7]}, {"data": [{"id": None}]}, {"error": "odd"}]
)
@responses.activate
def test_listing_that_cannot_be_read_is_never_an_empty_one(provider, answer):
    responses.get(f"{BASE_URL}/batches", json=answer)

    with pytest.raises(ProviderError) as failure:
        list(provider.list_batches(since=SINCE))

    assert failure.value.trouble is Trouble.RETRY


@responses.activate
def test_file_is_found_by_name_over_pages_leaving_out_broken_ones(provider):
    file = {"purpose": "batch", "bytes": 9, "filename": "wanted"}
    page_of({**file, "id": "f1", "filename": "x"}, has_more=True, path="/files")
    page_of(
        {**file, "id": "f2", "status": "error"},
        {**file, "id": "f3"},
        has_more=False,
        after="f1",
        path="/files",
    )

    assert provider.find_file("wanted").id == "f3"
    assert provider.find_file("wanted too") is None
    assert responses.calls[0].request.params["purpose"] == "batch"


@responses.activate
def test_id_from_outside_stays_in_its_place(provider):
    responses.get(f"{BASE_URL}/batches/..%2Ffiles%3Fa", json=batch(1))

    assert provider.retrieve("../files?a").id == "batch_1"


def test_account_without_a_key_sends_none(serve):
    seen = []

    def answer(handler):
        seen.append(handler.headers["Authorization"])
        handler.wfile.write(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\n{}")

    provider_for("openai", base_url=serve(answer), api_key="").check()

    assert seen == [None]


def test_unknown_kind_asks_for_a_person():
    with pytest.raises(ProviderError) as failure:
        provider_for("abacus", base_url=BASE_URL, api_key="k")

    assert failure.value.trouble is Trouble.CREDENTIALS
