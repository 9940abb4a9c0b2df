"""Who gets in: a valid key, with the scope that the call needs, and nobody else."""

from __future__ import annotations

import re
from datetime import timedelta

import pytest
from django.utils import timezone

from batching.api import memory
from batching.api.openapi import template
from batching.api.urls import ROUTES
from batching.models import ApiKey, Project
from batching.models.projects import default_scopes
from tests.api.conftest import Api, first_error, new_request

GUARDED = [
    (
        method,
        re.sub(r"{\w+}", "x", template(route)),
        o.scope,
    )
    for route in ROUTES
    for method, o in route.operations.items()
    if o.scope
]
IDS = [f"{method} {path}" for method, path, _ in GUARDED]
OPEN = {
    *("/health", "/ready", "/api/openapi.json", "/api/docs"),
    *("/hooks/openai", "/hooks/openai/{account_id}"),  # signed instead
}


def call(api, method, path):
    return api.get(path) if method == "GET" else api.send(method, path, new_request())


def key(project, **how):
    return ApiKey.issue(project, "k", **how)


@pytest.mark.parametrize(("method", "path", "scope"), GUARDED, ids=IDS)
def test_no_call_without_a_key(anonymous, method, path, scope):
    answer = call(anonymous, method, path)

    assert (answer.status_code, first_error(answer)["code"]) == (401, "unauthorized")
    assert answer["WWW-Authenticate"] == "Bearer"


@pytest.mark.parametrize(("method", "path", "scope"), GUARDED, ids=IDS)
def test_no_call_without_its_scope(client, project, method, path, scope):
    others = set(default_scopes()) - {str(scope)}
    _, secret = key(project, scopes=others)

    answer = call(Api(client, secret), method, path)

    assert (answer.status_code, first_error(answer)["code"]) == (403, "insufficient_scope")


def test_only_these_are_open_to_all():
    operations = [(template(r), o) for r in ROUTES for o in r.operations.values()]

    assert {path for path, o in operations if o.scope is None} == OPEN


def test_unknown_revoked_and_expired_look_the_same(client, project):
    now = timezone.now()
    revoked, revoked_secret = key(project)
    revoked.revoke(now)
    _, expired_secret = key(project, expires_at=now - timedelta(seconds=1))

    answers = [
        Api(client, secret).get("/api/requests")
        for secret in (
            "bm_live_unknown",
            revoked_secret,
            expired_secret,
            "ключ".encode().decode("latin-1"),
        )
    ]

    assert {a.status_code for a in answers} == {401}
    assert len({a.content for a in answers}) == 1


@pytest.mark.parametrize("header", ["", "Basic abc", "Bearer", "Bearer ", "token abc"])
def test_other_schemes_are_no_keys(client, db, header):
    answer = client.get("/api/requests", headers={"Authorization": header})

    assert answer.status_code == 401


def test_key_in_the_query_is_no_key(client, project):
    _, secret = key(project)

    assert client.get(f"/api/requests?api_key={secret}").status_code == 401


def test_key_closes_by_itself_though_it_is_remembered(client, project):
    row, secret = key(project)
    caller = Api(client, secret)
    assert caller.get("/api/requests").status_code == 200
    row.revoke(timezone.now())

    memory.forget_all()  # what ten seconds do

    assert caller.get("/api/requests").status_code == 401


def test_use_is_noted_once_a_minute(client, project, django_assert_num_queries):
    row, secret = key(project)
    caller = Api(client, secret)

    caller.get("/api/requests")
    row.refresh_from_db()
    first_use = row.last_used_at
    with django_assert_num_queries(1):  # the list itself: the key is remembered
        caller.get("/api/requests")

    row.refresh_from_db()
    assert row.last_used_at == first_use is not None


def test_another_projects_things_are_not_there(api, stranger):
    api.post("/api/requests/bulk", b"", "application/x-ndjson")
    sent = api.post("/api/requests", new_request("mine")).json()

    for path in ("mine", sent["id"]):
        assert stranger.get(f"/api/requests/{path}").status_code == 404
        assert stranger.post(f"/api/requests/{path}/cancel").status_code == 404
    assert stranger.get("/api/requests").json()["data"] == []
    assert Project.objects.count() == 2
