"""Uploads: streamed, each line by itself, or all lines or none."""

from __future__ import annotations

import gzip
import io
import json
import tracemalloc

import pytest
from django.test import RequestFactory

from batching.api import bulk, reading
from batching.api.urls import ROUTES
from batching.models import ApiKey, Flag, Request, Submission
from tests.api.conftest import first_error, ndjson, new_request

PATH, NDJSON = "/api/requests/bulk", "application/x-ndjson"


def upload(api, *lines, path=PATH, **headers):
    return api.post(path, ndjson(*lines), content_type=NDJSON, **headers)


def lines(count, prefix="r"):
    return [new_request(f"{prefix}-{n}") for n in range(count)]


def test_lines_are_stored_under_one_submission(api, project):
    answer = upload(api, *lines(3))

    submission = Submission.objects.get(project=project)
    assert answer.status_code == 202
    assert answer.json() == {
        "submission": submission.key,
        "accepted": 3,
        "duplicates": 0,
        "rejected": 0,
        "errors": [],
        "errors_left_out": 0,
    }
    assert submission.requests.count() == 3
    assert (submission.accepted, bool(submission.finished_at)) == (3, True)


def test_wrong_lines_are_told_by_number_and_the_others_stored(api):
    api.post("/api/requests", new_request("taken", body={"model": "other"}))

    answer = upload(
        *(api, new_request("a"), b"\n", b"  \r\n", b"{nonsense\n", new_request("b", method="GET")),
        *(new_request("taken"), new_request("a"), json.dumps(new_request("last")).encode()),
    )

    told = answer.json()
    assert (told["accepted"], told["duplicates"], told["rejected"]) == (2, 1, 3)
    assert [(e["line"], e["code"], e["pointer"]) for e in told["errors"]] == [
        (4, "malformed_json", ""),
        (5, "validation_error", "/method"),
        (6, "duplicate_custom_id", "/custom_id"),
    ]
    assert set(Request.objects.values_list("custom_id", flat=True)) == {"taken", "a", "last"}


def test_many_chunks_are_counted_together(api, monkeypatch):
    monkeypatch.setattr(bulk, "CHUNK_LINES", 10)

    told = upload(api, *lines(35)).json()

    assert (told["accepted"], Request.objects.count()) == (35, 35)


def test_errors_are_capped_and_the_rest_counted(api, monkeypatch):
    monkeypatch.setattr(bulk, "MAX_ERRORS", 5)
    monkeypatch.setattr(bulk, "CHUNK_LINES", 4)

    told = upload(api, *[b"x\n"] * 20).json()

    assert (told["rejected"], told["errors_left_out"]) == (20, 15)
    assert [e["line"] for e in told["errors"]] == [1, 2, 3, 4, 5]


def test_line_separators_inside_strings_cut_nothing(api):
    body = {"model": "m", "input": "a\u2028b\u2029c\x85d\x0be"}
    line = json.dumps(new_request(body=body), ensure_ascii=False).encode()

    told = upload(api, line + b"\n").json()

    assert (told["accepted"], told["rejected"]) == (1, 0)


def test_byte_order_mark_is_no_error(api):
    assert upload(api, b"\xef\xbb\xbf" + ndjson(new_request())).json()["accepted"] == 1


def test_over_long_line_is_an_error_of_its_own(api, monkeypatch):
    monkeypatch.setattr(reading, "MAX_BODY_BYTES", 2_000)

    told = upload(api, new_request("a"), b"x" * 5_000 + b"\n", new_request("b")).json()

    assert told["accepted"] == 2
    assert [(e["line"], e["code"]) for e in told["errors"]] == [(2, "too_large")]


def test_gzip_of_several_members_is_one_upload(api):
    body = gzip.compress(ndjson(*lines(5))) + gzip.compress(ndjson(*lines(5, "s")))

    told = upload(api, body, **{"Content-Encoding": "gzip"}).json()

    assert told["accepted"] == 10


def test_what_came_before_a_break_is_stored_and_told(api, monkeypatch):
    monkeypatch.setattr(bulk, "CHUNK_LINES", 10)
    whole = gzip.compress(ndjson(*lines(5_000)), compresslevel=0)

    answer = upload(api, whole[:-100], **{"Content-Encoding": "gzip"})

    told = answer.json()
    assert (answer.status_code, told["rejected"]) == (202, 1)
    assert told["errors"][0]["code"] == "malformed_gzip"
    assert told["accepted"] == Request.objects.count() > 4_000
    assert Submission.objects.get().finished_at is None


def test_nothing_readable_at_all_is_400(api):
    answer = upload(api, b"no gzip", **{"Content-Encoding": "gzip"})

    assert (answer.status_code, first_error(answer)["code"]) == (400, "malformed_gzip")
    assert not Submission.objects.exists()


def test_upload_without_a_line_is_422(api):
    answer = upload(api, b"\n \n")

    assert (answer.status_code, first_error(answer)["code"]) == (422, "validation_error")


def test_atomic_upload_is_stored_whole(api):
    told = upload(api, *lines(3), path=f"{PATH}?atomic=true").json()

    assert (told["accepted"], Request.objects.count()) == (3, 3)


@pytest.mark.parametrize(
    ("wrong", "code"),
    [
        pytest.param({"method": "GET"}, "validation_error", id="wrong in itself"),
        pytest.param({"account": "nobody"}, "unknown_account", id="refused by the core"),
    ],
)
def test_atomic_upload_with_a_wrong_line_stores_nothing(api, wrong, code):
    answer = upload(api, *lines(3), new_request("bad", **wrong), path=f"{PATH}?atomic=true")

    assert answer.status_code == 422
    assert [(e["line"], e["code"]) for e in answer.json()["errors"]] == [(4, code)]
    assert not Request.objects.exists()
    assert not Submission.objects.exists()


def test_maintenance_refuses_uploads(api):
    Flag.objects.create(name=Flag.MAINTENANCE, is_on=True)

    assert upload(api, *lines(1)).status_code == 503


class ChunkedInput:
    """What a server hands on of a chunked body: no length, reads until nothing comes."""

    def __init__(self, pieces):
        self._pieces = iter(pieces)
        self._rest = b""
        self.most_asked = 0

    def read(self, size=-1):
        self.most_asked = max(self.most_asked, size)
        if not self._rest:
            self._rest = next(self._pieces, b"")
        piece, self._rest = self._rest[:size], self._rest[size:]
        return piece


def post_chunked(secret, stream):
    headers = {"Authorization": f"Bearer {secret}", "Transfer-Encoding": "chunked"}
    request = RequestFactory().post(PATH, b"", NDJSON, headers=headers)
    request.META.pop("CONTENT_LENGTH", None)
    request.META["wsgi.input"] = stream
    route = next(r for r in ROUTES if f"/{r.path}" == PATH)
    return route.answer(request)


def test_chunked_body_needs_no_length(project):
    whole = ndjson(*lines(50))
    stream = ChunkedInput(whole[at : at + 37] for at in range(0, len(whole), 37))

    answer = post_chunked(ApiKey.issue(project, "c")[1], stream)

    assert json.loads(answer.content)["accepted"] == 50


def test_long_garbage_without_line_breaks_takes_no_memory(project, monkeypatch):
    monkeypatch.setattr(reading, "MAX_BODY_BYTES", 1024 * 1024)
    secret = ApiKey.issue(project, "c")[1]
    stream = ChunkedInput(b"x" * 100_000 for _ in range(1_000))
    tracemalloc.start()

    answer = post_chunked(secret, stream)

    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert json.loads(answer.content)["errors"][0]["code"] == "too_large"
    assert peak < 20 * 1024 * 1024


def test_inflating_is_bounded_piece_by_piece():
    bomb = io.BytesIO(gzip.compress(b"\n" * 50_000_000))
    request = RequestFactory().post(PATH, b"", NDJSON, headers={"Content-Encoding": "gzip"})
    request.META |= {"wsgi.input": bomb, "CONTENT_LENGTH": str(len(bomb.getvalue()))}

    sizes = [len(piece) for piece in reading.pieces(request, at_most=100_000_000)]

    assert sum(sizes) == 50_000_000
    assert max(sizes) <= 256 * 1024
    bomb.seek(0)
    with pytest.raises(Exception, match="bytes are taken"):
        list(reading.pieces(request, at_most=1_000_000))
