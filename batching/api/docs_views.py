"""The OpenAPI document, and a page to read it and try each call, from our own files only.

The page is written by a template from the same table; its script only fills in a call and shows the answer.
An API key typed there stays in the page.
"""

from __future__ import annotations

from functools import cache
from typing import Any, Final

import msgspec
from django.http import HttpRequest, HttpResponse
from django.template.loader import render_to_string
from django.utils.html import format_html, format_html_join
from django.utils.safestring import SafeString

from batching.api import openapi
from batching.api.operations import Answer, operation, render

_POLICY: Final = (
    "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' data:;"
    " connect-src 'self'; form-action 'none'; base-uri 'none'; frame-ancestors 'none'"
)


@operation(scope=None, answers={200: Answer("The document.")})
def openapi_document(request: HttpRequest) -> HttpResponse:
    """Get the OpenAPI 3.1 document."""
    return render(_document())


@operation(scope=None, answers={200: Answer("The page.", media_type="text/html")})
def docs_page(request: HttpRequest) -> HttpResponse:
    """Open the page to read about each call and try it."""
    headers = {"Content-Security-Policy": _POLICY}
    return HttpResponse(_page(), headers=headers)


@cache
def _document() -> bytes:
    return msgspec.json.encode(_values())


@cache
def _values() -> dict[str, Any]:
    from batching.api.urls import ROUTES  # the table holds this very view

    return openapi.document(ROUTES)


@cache
def _page() -> str:
    shown = _values()
    calls = _calls(shown)
    groups = [
        {**group, "calls": [c for c in calls if group["name"] in c["tags"]]}
        for group in shown["tags"]
    ]
    fields = shown["components"]["schemas"]["NewRequest"]
    return render_to_string(
        "api/docs.html",
        {
            "about": _coded(shown["info"]["description"]),
            "groups": groups,
            "fields": _fields(fields),
        },
    )


def _calls(shown: dict[str, Any]) -> list[dict[str, Any]]:
    return [
        {
            **call,
            "about": _coded(call["description"]),
            "path": path,
            "method": method.upper(),
            "is_open": not call["security"],
            "example": _example(call),
            "responses": {
                status: _named(shown, answer) for status, answer in call["responses"].items()
            },
            "media_type": next(iter(call.get("requestBody", {}).get("content", {})), ""),
        }
        for path, calls in shown["paths"].items()
        for method, call in calls.items()
    ]


def _named(shown: dict[str, Any], answer: dict[str, Any]) -> dict[str, Any]:
    """Return an answer that may only be named, as it is written."""
    name = answer.get("$ref", "").rpartition("/")[2]
    return shown["components"]["responses"][name] if name else answer


def _example(call: dict[str, Any]) -> str:
    for sent in call.get("requestBody", {}).get("content", {}).values():
        example = sent["example"]
        if isinstance(example, list):
            return "".join(f"{msgspec.json.encode(line).decode()}\n" for line in example)
        return msgspec.json.format(msgspec.json.encode(example), indent=2).decode()
    return ""


def _fields(schema: dict[str, Any]) -> list[dict[str, Any]]:
    """Return the fields of a request with what each must be."""
    return [
        {"name": name, "is_required": name in schema["required"], "about": _coded(_about(field))}
        for name, field in schema["properties"].items()
    ]


def _about(field: dict[str, Any]) -> str:
    """Return a field's description; that of an optional one stands on the type that is not null."""
    choices = (field, *field.get("anyOf", ()))
    return next((str(c["description"]) for c in choices if "description" in c), "")


def _coded(text: str) -> SafeString:
    """Return a text for the page, with what stands between backticks as code."""
    wraps = ("{}", "<code>{}</code>")
    parts = (format_html(wraps[at % 2], word) for at, word in enumerate(text.split("`")))
    return format_html_join("", "{}", ((part,) for part in parts))
