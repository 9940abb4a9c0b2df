"""Schemathesis asks the API whatever its OpenAPI document allows, and much that it does not."""

from __future__ import annotations

import subprocess

import pytest

from batching.api import docs_views, openapi
from batching.api.urls import ROUTES
from tests.openapi.asking import ask

BOUNDED = ("--generation-deterministic", "--max-examples=5", "--no-color")
COVERAGE = (*BOUNDED, "--phases=examples,coverage")
CAPTURED = {"stdout": subprocess.PIPE, "stderr": subprocess.STDOUT, "timeout": 240}


@pytest.mark.slow
@pytest.mark.timeout(280)
def test_every_answer_is_one_that_the_document_has(server, key):
    asked = ask(server, key, *BOUNDED, **CAPTURED)

    calls = sum(len(route.operations) for route in ROUTES) - 1  # all but the document's own
    assert asked.returncode == 0, asked.stdout
    assert f"Tested: {calls}" in asked.stdout


@pytest.mark.slow
def test_what_the_document_leaves_out_is_found(server, key, monkeypatch):
    told = openapi.document(ROUTES)
    del told["paths"]["/api/batches/{batch_id}"]["get"]["responses"]["404"]
    monkeypatch.setattr(docs_views, "_values", lambda: told)
    docs_views._document.cache_clear()

    asked = ask(server, key, *COVERAGE, "--include-operation-id=show_batch", **CAPTURED)

    docs_views._document.cache_clear()
    assert asked.returncode == 1
    assert "Undocumented status code" in asked.stdout
