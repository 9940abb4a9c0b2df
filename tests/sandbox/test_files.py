"""The sandbox's /v1/files, driven by the official SDK."""

from __future__ import annotations

import socket
import urllib.error

import openai
import pytest
import requests

from tests.sandbox.driving import Driver, chat_lines, jsonl, until


def test_an_uploaded_file_comes_back_byte_for_byte(client):
    content = b'{"text":"\xe2\x80\xa8 \x00 \r\n"}\r\n\n' * 50_000

    file = client.files.create(file=("odd.jsonl", content), purpose="batch")

    assert (file.bytes, file.filename, file.purpose) == (len(content), "odd.jsonl", "batch")
    assert client.files.content(file.id).read() == content


def test_content_says_how_long_it_is(client):
    file = client.files.create(file=("a.jsonl", b"x" * 1000), purpose="batch")

    with client.files.with_streaming_response.content(file.id) as response:
        assert response.headers["content-length"] == "1000"
        assert len(response.read()) == 1000


def test_a_batch_file_is_kept_for_thirty_days_and_any_other_for_good(client):
    batch = client.files.create(file=("a.jsonl", b"{}"), purpose="batch")
    other = client.files.create(file=("a.txt", b"{}"), purpose="user_data")

    assert batch.expires_at == batch.created_at + 30 * 86_400
    assert other.expires_at is None


def test_an_expiry_in_bracketed_fields_is_honoured(client, sandbox):
    expiry = {"anchor": "created_at", "seconds": 3600}
    file = client.files.create(file=("a.jsonl", b"{}"), purpose="batch", expires_after=expiry)

    assert file.expires_at - file.created_at in (3600, 3601)
    sandbox.advance_clock(3700)
    with pytest.raises(openai.NotFoundError):
        client.files.retrieve(file.id)


def test_retrieve_shows_the_whole_object_with_its_null_members(client, sandbox):
    file = client.files.create(file=("a.txt", b"abc"), purpose="user_data")

    shown = sandbox.control("GET", f"/v1/files/{file.id}")

    assert shown == {
        "id": file.id,
        "object": "file",
        "bytes": 3,
        "created_at": file.created_at,
        "expires_at": None,
        "filename": "a.txt",
        "purpose": "user_data",
        "status": "processed",
        "status_details": None,
    }
    assert file.id.startswith("file-")


@pytest.mark.parametrize(
    ("kind", "body", "message"),
    [
        pytest.param("application/json", b"{}", "Expected a multipart", id="JSON"),
        pytest.param("multipart/form-data", b"x", "boundary missed", id="no boundary"),
        pytest.param("multipart/form-data; boundary=x", b"junk", "can't be read", id="junk"),
        pytest.param("multipart/form-data; boundary=x",
                     b'--x\r\nContent-Disposition: form-data; name="file"; filename="a"\r\n\r\nab',
                     "can't be read", id="cut"),
        pytest.param("multipart/form-data; boundary=x",
                     b'--x\r\nContent-Disposition: form-data; name="purpose"\r\n\r\nbatch\r\n--x--\r\n',
                     "Missing required parameter: 'file'", id="no file"),
    ],
)  # fmt: skip
def test_a_body_that_is_no_upload_is_refused(client, sandbox, kind, body, message):
    headers = {"authorization": "Bearer any", "content-type": kind}

    response = requests.post(f"{sandbox.base_url}/files", body, headers=headers, timeout=10)

    assert response.status_code == 400
    assert message in response.json()["error"]["message"]
    assert client.files.list().data == []
    assert not list((sandbox.data_dir / "state" / "files").iterdir())


def test_an_upload_that_breaks_off_leaves_nothing(client, sandbox):
    address = sandbox.url.removeprefix("http://").split(":")
    head = (
        b"POST /v1/files HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer any\r\n"
        b"Content-Type: multipart/form-data; boundary=x\r\nContent-Length: 999999\r\n\r\n"
        b'--x\r\nContent-Disposition: form-data; name="file"; filename="a.jsonl"\r\n\r\n'
    )
    files = sandbox.data_dir / "state" / "files"

    with socket.create_connection((address[0], int(address[1]))) as connection:
        connection.sendall(head + b"y" * 300_000)
        until(lambda: any(files.iterdir()))

    until(lambda: not any(files.iterdir()))
    assert client.files.list().data == []


def test_a_deleted_file_is_gone(client):
    file = client.files.create(file=("a.jsonl", b"{}"), purpose="batch")

    deleted = client.files.delete(file.id)

    assert (deleted.id, deleted.object, deleted.deleted) == (file.id, "file", True)
    with pytest.raises(openai.NotFoundError, match=f"No such File object: {file.id}"):
        client.files.content(file.id)
    assert client.files.list().data == []


def test_lists_page_filter_and_turn_round(client):
    made = [client.files.create(file=(f"{n}.jsonl", b"{}"), purpose="batch").id for n in range(5)]
    client.files.create(file=("other.txt", b"{}"), purpose="user_data")

    first = client.files.list(purpose="batch", limit=2)
    pages = [file.id for file in client.files.list(purpose="batch", limit=2)]
    oldest = client.files.list(purpose="batch", order="asc", after=made[1], limit=2)

    assert [file.id for file in first.data] == [made[4], made[3]]
    assert first.has_more is True
    assert pages == made[::-1]
    assert [file.id for file in oldest.data] == made[2:4]


@pytest.mark.parametrize(
    ("filename", "purpose", "expiry", "message"),
    [
        pytest.param("a.jsonl", "batsch", None, "Invalid value: 'batsch'", id="purpose"),
        pytest.param("a.csv", "batch", None, "Must be .jsonl", id="extension"),
        pytest.param("a.jsonl", "batch", ("created_at", 60), "below minimum", id="short expiry"),
        pytest.param("a.jsonl", "batch", ("now", 7200), "Invalid value: 'now'", id="anchor"),
    ],
)
def test_a_wrong_upload_is_refused_and_leaves_nothing(client, filename, purpose, expiry, message):
    expires = openai.omit if expiry is None else {"anchor": expiry[0], "seconds": expiry[1]}

    with pytest.raises(openai.BadRequestError, match=message):
        client.files.create(file=(filename, b"{}"), purpose=purpose, expires_after=expires)

    assert client.files.list().data == []


@pytest.mark.parametrize("limit", [0, 10_001])
def test_a_limit_out_of_range_is_refused(client, limit):
    with pytest.raises(openai.BadRequestError) as caught:
        client.files.list(limit=limit)

    assert caught.value.param == "limit"


def test_deleting_the_input_of_a_running_batch_does_not_hurt_it(drive: Driver, sandbox):
    sandbox.set_scenario({"durations": {"in_progress_s": 10}})
    batch = drive.create(chat_lines(3))
    while drive.client.batches.retrieve(batch.id).status == "validating":
        pass

    drive.client.files.delete(batch.input_file_id)

    assert drive.end(batch).request_counts.completed == 3


def test_lines_are_split_at_newline_bytes_only(drive: Driver):
    odd = "a\u2028b\u2029c\x85d\x0be\x0cf"
    raw = jsonl(chat_lines(1)).replace(b"Say 1", odd.encode())
    raw = raw.replace(b"\x0b", b"\\u000b").replace(b"\x0c", b"\\u000c").rstrip(b"\n")

    batch = drive.run([raw])

    assert (batch.status, batch.request_counts.total) == ("completed", 1)


@pytest.mark.parametrize(
    "file_id", ["..", "../sandbox.sqlite3", "..%2Fsandbox.sqlite3", "%2Fetc%2Fpasswd"]
)
def test_an_id_names_no_other_file_of_the_computer(drive: Driver, sandbox, file_id):
    sandbox.set_scenario({"rules": [{"fault": "truncate_download", "keep": 1}]})
    with pytest.raises(openai.NotFoundError):
        drive.client.get(f"/files/{file_id}/content", cast_to=object)

    created = drive.client.batches.create(
        input_file_id=file_id, endpoint="/v1/responses", completion_window="24h"
    )

    assert drive.end(created).errors.data[0].param == "file_id"
    with pytest.raises(urllib.error.HTTPError, match="404"):
        sandbox.lines(created.id)
