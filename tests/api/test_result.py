"""The result of one request, fetched whole or in parts."""

from __future__ import annotations

import hashlib
import json

import pytest

from batching.models import Answer, Request
from delivery import results
from tests.api.conftest import first_error
from tests.batching.rows import a_request, an_answer


@pytest.fixture
def row(project):
    request = a_request(project=project, custom_id="big/one", state="delivered")
    body = {"status_code": 200, "request_id": "r", "body": {"output": "0123456789" * 20_000}}
    an_answer(request, json.dumps({"id": "1", "response": body, "error": None}).encode())
    return request


def path(row, query=""):
    return f"/api/requests/{row.key}/result{query}"


def test_the_whole_is_what_a_destination_gets(api, row):
    for place in (path(row), "/api/requests/big/one/result", path(row, "?attempt=1")):
        answer = api.get(place)

        body = answer.getvalue()
        assert answer.status_code == 200
        assert body == results.whole(row)
        assert answer["ETag"] == f'"{hashlib.sha256(body).hexdigest()}"'
        assert answer["Content-Length"] == str(len(body))


@pytest.mark.parametrize(
    ("header", "first", "last"),
    [("bytes=0-9", 0, 9), ("bytes=100000-", 100_000, None), ("bytes=-7", -7, None)],
)
def test_a_part_is_a_part_of_the_same_bytes(api, row, header, first, last):
    whole = results.whole(row)

    answer = api.get(path(row), Range=header)

    wanted = whole[first:] if last is None else whole[first : last + 1]
    assert answer.status_code == 206
    assert answer.getvalue() == wanted
    begins = len(whole) + first if first < 0 else first
    assert answer["Content-Range"] == f"bytes {begins}-{begins + len(wanted) - 1}/{len(whole)}"


def test_a_part_beyond_the_end_is_told_the_size(api, row):
    answer = api.get(path(row), Range="bytes=9999999-")

    assert (answer.status_code, first_error(answer)["code"]) == (416, "range_not_satisfiable")
    assert answer["Content-Range"] == f"bytes */{len(results.whole(row))}"


def test_conditions_are_judged_by_the_digest(api, row):
    etag = api.get(path(row))["ETag"]

    assert api.get(path(row), **{"If-None-Match": etag}).status_code == 304
    assert api.get(path(row), **{"If-Match": '"other"'}).status_code == 412
    other = api.get(path(row), **{"If-Range": '"other"', "Range": "bytes=0-1"})
    assert (other.status_code, len(other.getvalue())) == (200, len(results.whole(row)))


def test_another_projects_result_is_not_there(stranger, row):
    for query in ("", "?attempt=1"):
        assert stranger.get(path(row, query)).status_code == 404


def test_without_an_end_there_is_nothing_yet(api, project):
    answer = api.get(path(a_request(project=project, state="processing")))

    assert (answer.status_code, first_error(answer)["code"]) == (404, "not_found")


def test_what_was_sent_anew_or_is_not_kept_is_gone(api, row):
    Answer.objects.filter(request=row).delete()
    dropped = api.get(path(row))
    Request.objects.filter(pk=row.pk).update(attempt=2)
    superseded = api.get(path(row, "?attempt=1"))

    assert [dropped.status_code, superseded.status_code] == [410, 410]
    assert first_error(superseded)["code"] == "result_gone"


def test_a_bad_end_has_a_result_too(api, project):
    row = a_request(project=project, state="expired", error_code="e", error_message="m")

    told = json.loads(api.get(path(row)).getvalue())

    assert (told["outcome"], told["error"]) == ("expired", {"code": "e", "message": "m"})


def test_an_id_that_ends_like_this_path_is_found(api, project):
    a_request(project=project, custom_id="my/result")

    assert api.get("/api/requests/my/result").json()["custom_id"] == "my/result"
    assert api.get("/api/requests/your/result").status_code == 404


def test_a_key_that_may_not_read_gets_nothing(client, project, row):
    from batching.models import ApiKey
    from tests.api.conftest import Api

    sender = Api(client, ApiKey.issue(project, "sender", scopes=["submit"])[1])

    assert sender.get(path(row)).status_code == 403
