"""What is written about the API is what the API does."""

from __future__ import annotations

import json
from pathlib import Path

import msgspec
import pytest
from django.conf import settings
from django.contrib.staticfiles import finders
from django.urls import get_resolver

from batching import wire
from batching.api import openapi
from batching.api.errors import STATUSES, TITLES, Errors
from batching.api.operations import NDJSON
from batching.api.urls import ROUTES, urlpatterns
from tests.api.conftest import ndjson, new_request
from tests.api.test_reads import answered, in_batch, send

OPERATIONS = [(route, m, o) for route in ROUTES for m, o in route.operations.items()]
IDS = [f"{m} {openapi.template(route)}" for route, m, _ in OPERATIONS]


@pytest.fixture
def document(anonymous):
    return anonymous.get("/api/openapi.json").json()


def decode_lines(content, type):  # noqa: A002  # as msgspec calls it
    return msgspec.json.Decoder(type).decode_lines(content)


def references(value):
    """Yield every `$ref` in the document."""
    if isinstance(value, dict):
        yield from ([value["$ref"]] if "$ref" in value else [])
        value = list(value.values())
    if isinstance(value, list):
        for inner in value:
            yield from references(inner)


def test_document_has_every_route_and_no_other(document):
    served = {
        (f"/{p.pattern._route}", m)
        for p, route in zip(urlpatterns, ROUTES, strict=False)
        for m in route.operations
    }
    written = {(path, m.upper()) for path, calls in document["paths"].items() for m in calls}

    assert len(urlpatterns) == len(ROUTES) + 1
    assert len(written) == len(served)
    assert written == {(openapi.template(route), m) for route, m, _ in OPERATIONS}


def test_every_route_leads_to_its_view():
    for route in ROUTES:
        path = openapi.template(route).format(**dict.fromkeys(openapi._PATH_VALUES, "a"))
        assert get_resolver().resolve(path).func == route.answer


def test_document_is_whole(document):
    schemas, failures = (document["components"][kind] for kind in ("schemas", "responses"))
    ids = [call["operationId"] for calls in document["paths"].values() for call in calls.values()]

    assert document["openapi"].startswith("3.1")
    assert {r.rpartition("/")[2] for r in references(document)} <= {*schemas, *failures}
    assert len(ids) == len(set(ids))


@pytest.mark.parametrize(("route", "method", "operation"), OPERATIONS, ids=IDS)
def test_every_call_is_described(document, route, method, operation):
    call = document["paths"][openapi.template(route)][method.lower()]

    assert call["summary"].endswith(".")
    assert {p["name"] for p in call["parameters"]} >= {p.name for p in operation.query}
    assert all(a.get("description") or a["$ref"] for a in call["responses"].values())
    assert ("401" in call["responses"]) == bool(call["security"])


@pytest.mark.parametrize(("route", "method", "operation"), OPERATIONS, ids=IDS)
def test_every_answer_has_a_schema_and_an_example(document, route, method, operation):
    for answer in document["paths"][openapi.template(route)][method.lower()]["responses"].values():
        if "$ref" in answer:
            answer = document["components"]["responses"][answer["$ref"].rpartition("/")[2]]
        for content in answer["content"].values():
            assert content["schema"]
            assert content.get("example", content.get("examples")), "none in `examples`"


def test_every_field_of_a_request_has_its_rule(document):
    schema = document["components"]["schemas"]["NewRequest"]
    about = json.dumps(schema, ensure_ascii=False)

    for pointer, rule in wire.RULES.items():
        if pointer.count("/") == 1:
            assert json.dumps(rule)[1:-1] in about, pointer
    required = {"custom_id", "url", "method", "body", "delivery_config"}
    assert set(schema["required"]) == required
    assert schema["additionalProperties"] is False


def test_examples_can_be_sent(api):
    for route, _, operation in OPERATIONS:
        if operation.body and operation.scope and "<" not in route.path:
            answer = api.post(
                f"/{route.path}", operation.body.example.encode(), operation.body.media_type
            )
            assert answer.status_code in operation.answers, answer.getvalue()
            assert json.loads(answer.getvalue()).get("rejected", 0) == 0


def test_answers_have_the_types_that_are_written(api):
    key = send(api, "a")
    row = answered(
        *(api and _first(), b'{"id":"1","response":{"status_code":200,"body":{}},"error":null}')
    )
    batch = in_batch(row)
    paths = {
        "/api/requests/{custom_id}": "/api/requests/a",
        "/api/batches/{batch_id}": f"/api/batches/{batch.key}",
        "/api/submissions/{submission_id}": f"/api/submissions/{key}",
    }
    for route, method, operation in OPERATIONS:
        path = paths.get(openapi.template(route), openapi.template(route))
        if method == "GET" and "{" not in path:
            answer = api.get(path)
            written = operation.answers[answer.status_code]
            assert answer["Content-Type"].partition(";")[0] == written.media_type
            if written.type is not None:
                read = decode_lines if written.media_type == NDJSON else msgspec.json.decode
                read(answer.getvalue(), type=written.type)


def _first():
    from batching.models import Request

    return Request.objects.get()


def test_failed_calls_have_the_type_that_is_written(api):
    for answer in (
        *(api.get("/api/nowhere"), api.post("/api/requests", b"{"), api.post("/health")),
        api.post("/api/requests/bulk?atomic=true", ndjson(new_request(method="GET"))),
    ):
        errors = msgspec.json.decode(answer.content, type=Errors).errors
        assert {e.status for e in errors} == {str(answer.status_code)}


def test_error_codes_are_written_down():
    text = (Path(settings.BASE_DIR) / "docs" / "api.md").read_text(encoding="utf-8")

    assert [c for c in {*STATUSES, *TITLES} if f"`{c}`" not in text] == []


def test_calls_are_written_down():
    text = (Path(settings.BASE_DIR) / "docs" / "api.md").read_text(encoding="utf-8")

    assert [name for name in IDS if f"`{name}`" not in text] == []


def test_docs_page_has_every_call_and_only_our_own_files(anonymous):
    answer = anonymous.get("/api/docs")

    page = answer.content.decode()
    for route, method, operation in OPERATIONS:
        assert f'id="{operation.name}"' in page
        assert f'data-method="{method}" data-path="{openapi.template(route)}"' in page
    for sent in ("http://127.0.0.1:9000", "https?", "https://example.com"):
        page = page.replace(sent, "")
    assert "//" not in page
    assert "default-src 'none'" in answer["Content-Security-Policy"]
    for name in ("api-docs/docs.css", "api-docs/docs.js"):
        assert finders.find(name)
        assert settings.STATIC_URL + name in page


def test_unexpected_failure_tells_an_id_and_nothing_else(api, monkeypatch, caplog):
    from batching import intake

    def fail(*_args, **_how):
        raise RuntimeError("secret inside")

    monkeypatch.setattr(intake, "accept", fail)

    answer = api.post("/api/requests", new_request())

    error = answer.json()["errors"][0]
    assert (answer.status_code, error["code"]) == (500, "internal_error")
    assert b"secret" not in answer.content
    ids = [getattr(record, "error_id", None) for record in caplog.records]
    assert error["meta"]["error_id"] in ids
    assert "secret inside" in caplog.text
