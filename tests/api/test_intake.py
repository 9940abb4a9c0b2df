"""Sending one request: accepted once, refused clearly, never half stored."""

from __future__ import annotations

import gzip
import json
from concurrent.futures import ThreadPoolExecutor

import pytest
from django.db import connection
from django.test import Client

from batching.api import reading
from batching.models import ApiKey, Flag, Request, RequestBody
from tests.api.conftest import Api, first_error, new_request

PATH = "/api/requests"


def test_new_request_is_stored_and_answered_with_202(api):
    answer = api.post(PATH, new_request("invoice 17/漢"))

    row = Request.objects.get()
    assert answer.status_code == 202
    assert answer.json() == {"id": row.key, "custom_id": "invoice 17/漢", "state": "pending"}


def test_same_request_again_is_the_first_one(api):
    first = api.post(PATH, new_request())

    again = api.post(PATH, new_request())

    assert (again.status_code, again.json()) == (200, first.json())
    assert Request.objects.count() == 1


def test_other_body_under_the_same_id_is_a_conflict(api):
    api.post(PATH, new_request())

    answer = api.post(PATH, new_request(body={"model": "gpt-4o", "input": "Hello"}))

    assert answer.status_code == 409
    assert first_error(answer)["code"] == "duplicate_custom_id"
    assert first_error(answer)["source"] == {"pointer": "/custom_id"}


def test_two_projects_may_use_the_same_id(api, stranger):
    api.post(PATH, new_request())

    assert stranger.post(PATH, new_request()).status_code == 202


def test_wrong_field_is_422_in_the_one_shape_of_errors(api):
    answer = api.post(PATH, new_request(method="GET"))

    assert answer.status_code == 422
    assert answer.json() == {
        "errors": [
            {
                "status": "422",
                "code": "validation_error",
                "title": "Validation Error",
                "detail": 'method must be "POST"',
                "source": {"pointer": "/method"},
            }
        ]
    }


@pytest.mark.parametrize(
    ("changes", "code", "pointer"),
    [
        ({"account": "nobody"}, "unknown_account", "/account"),
        (
            {"delivery_config": {"type": "destination", "name": "nowhere"}},
            "unknown_destination",
            "/delivery_config/name",
        ),
    ],
    ids=["account", "destination"],
)
def test_what_the_core_refuses_names_its_field(api, changes, code, pointer):
    answer = api.post(PATH, new_request(**changes))

    error = first_error(answer)
    assert (answer.status_code, error["code"], error["source"]) == (422, code, {"pointer": pointer})


def test_malformed_json_is_400(api):
    answer = api.post(PATH, b'{"custom_id": ')

    assert (answer.status_code, first_error(answer)["code"]) == (400, "malformed_json")


def test_body_over_the_bound_is_413(api, monkeypatch):
    monkeypatch.setattr(reading, "MAX_BODY_BYTES", 1_000)

    plain = api.post(PATH, b"x" * 1_001)
    zipped = api.post(PATH, gzip.compress(b"x" * 1_001), **{"Content-Encoding": "gzip"})

    assert [(a.status_code, first_error(a)["code"]) for a in (plain, zipped)] == [
        (413, "payload_too_large")
    ] * 2


def test_body_far_over_djangos_own_bound_is_taken(api):
    long = new_request(body={"model": "gpt-4o-mini", "input": "x", "user": "y" * 3_000_000})

    answer = api.post(PATH, long)

    assert answer.status_code in (202, 422)
    assert first_error(answer)["pointer"] == "/body" if answer.status_code == 422 else True


def test_gzip_is_taken(api):
    body = gzip.compress(json.dumps(new_request()).encode())

    assert api.post(PATH, body, **{"Content-Encoding": "gzip"}).status_code == 202


@pytest.mark.parametrize(
    ("body", "code"),
    [(b"no gzip", "malformed_gzip"), (gzip.compress(b"{}")[:-4], "malformed_gzip")],
    ids=["not gzip", "broken off"],
)
def test_what_is_no_gzip_is_400(api, body, code):
    answer = api.post(PATH, body, **{"Content-Encoding": "gzip"})

    assert (answer.status_code, first_error(answer)["code"]) == (400, code)


def test_other_encodings_and_forms_are_415(api):
    brotli = api.post(PATH, b"x", **{"Content-Encoding": "br"})
    form = api.post(PATH, b"x", content_type="multipart/form-data; boundary=a")

    assert (brotli.status_code, form.status_code) == (415, 415)


def test_maintenance_refuses_right_requests_and_names_wrong_ones(api):
    Flag.objects.create(name=Flag.MAINTENANCE, is_on=True)

    right, wrong = api.post(PATH, new_request()), api.post(PATH, {})

    assert (right.status_code, first_error(right)["code"]) == (503, "maintenance_mode")
    assert int(right["Retry-After"]) > 0
    assert wrong.status_code == 422
    assert not Request.objects.exists()


def test_body_of_a_request_is_stored_as_it_came(api):
    sent = b'{"custom_id":"a","url":"/v1/responses","method":"POST","body":{"model":"m", "n":1.10,"x":"\xe2\x80\xa8"},"delivery_config":{"type":"none"}}'

    assert api.post(PATH, sent).status_code == 202

    assert bytes(RequestBody.objects.get().body) == b'{"model":"m", "n":1.10,"x":"\xe2\x80\xa8"}'


@pytest.mark.slow
@pytest.mark.django_db(transaction=True)
def test_posts_in_parallel_are_each_stored_once(project):
    secret = ApiKey.issue(project, "parallel")[1]

    def send(number):
        try:
            return Api(Client(), secret).post(PATH, new_request(f"p-{number}")).status_code
        finally:
            connection.close()

    with ThreadPoolExecutor(8) as pool:
        statuses = list(pool.map(send, range(200)))

    assert statuses == [202] * 200
    assert Request.objects.count() == 200
