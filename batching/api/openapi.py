"""The OpenAPI 3.1 document, printed from the table of routes and the types that the code itself uses.

Decides nothing that is not in `operations` or the wire types, so it can't disagree with them. `docs_views`
serves it.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from http import HTTPStatus
from typing import Any, Final

import msgspec

from batching.api import errors, examples, repeats
from batching.api.errors import Errors
from batching.api.operations import JSON, NDJSON, Answer, Body, Link, Operation, Route

VERSION: Final = "1"
_REF: Final = "#/components/schemas/{name}"
_ERROR_REF: Final = "#/components/responses/Error{status}"
_ERROR_HEADERS: Final = {
    401: {"WWW-Authenticate": "`Bearer`."},
    409: {"Retry-After": "Seconds; with `idempotency_in_flight`."},
    429: {"Retry-After": "Seconds until the next call is taken."},
    503: {"Retry-After": "Seconds."},
}
_PATH_VALUE = re.compile(r"<(?:\w+:)?(\w+)>")
_PATH_VALUES: Final = {
    "custom_id": "Your `custom_id`, percent-encoded (slashes may stay), or our `req_…` id.",
    "batch_id": "The batch's id, `bat_…`.",
    "lane_id": "The lane's id, a number.",
    "account": "The account's name, percent-encoded.",
    "submission_id": "The submission's id, `sub_…`.",
    "subscription_id": "The subscription's id, `evs_…`.",
    "replay_id": "The replay's id, `rpl_…`.",
    "destination_id": "The destination's id, `dst_…`.",
    "account_id": "The account's number, as the panel shows it.",
}
_TAGS: Final = {
    "requests": "Send requests, look at them, and change their course.",
    "batches": "The provider batches that requests travel in.",
    "lanes": "The queues of one account, model and endpoint: how full they are, and who waits.",
    "accounts": "Credentials and limits at providers.",
    "submissions": "Requests that were sent together.",
    "results": "Results for clients that pull.",
    "event-subscriptions": "Who is told when a batch or a submission ends.",
    "replays": "Results sent again, many at a time.",
    "hooks": "What providers call; signed by them.",
    "destinations": "Where results go, and how that stands.",
    "operation": "How the installation is.",
    "docs": "This document.",
}
_ABOUT: Final = (
    "Send LLM requests now, get each result delivered later, at batch prices. Every call but the health"
    " checks and this document needs `Authorization: Bearer <API key>`. Errors have one shape."
)
_ONE_PLACE: Final = [
    {
        "required": ["rabbitmq_queue"],
        "properties": {"rabbitmq_exchange": False, "rabbitmq_routing_key": False},
    },
    {
        "required": ["rabbitmq_exchange", "rabbitmq_routing_key"],
        "properties": {"rabbitmq_queue": False},
    },
]


def document(routes: Iterable[Route]) -> dict[str, Any]:
    """Return the document as JSON-like values."""
    routes = tuple(routes)
    schemas = _Schemas(routes)
    return {
        "openapi": "3.1.0",
        "info": {"title": "Batcher", "version": VERSION, "description": _ABOUT},
        "servers": [{"url": "/"}],
        "tags": [{"name": name, "description": about} for name, about in _TAGS.items()],
        "paths": {
            template(route): {
                method.lower(): _operation(route, method, operation, schemas)
                for method, operation in route.operations.items()
            }
            for route in routes
        },
        "components": {
            "schemas": schemas.components,
            "responses": {
                f"Error{status}": _error(status, schemas) for status in _error_statuses(routes)
            },
            "securitySchemes": {"apiKey": {"type": "http", "scheme": "bearer"}},
        },
    }


def template(route: Route) -> str:
    """Return the route's path as OpenAPI writes it: `/api/batches/{batch_id}`."""
    return "/" + _PATH_VALUE.sub(r"{\1}", route.path)


def tag(route: Route) -> str:
    """Return the group that a route belongs to."""
    words = route.path.split("/")
    if words[0] != "api":
        return "operation"
    return words[1] if words[1] in _TAGS else "docs"


class _Schemas:
    """The components, and where each type is found among them."""

    def __init__(self, routes: Iterable[Route]) -> None:
        types: dict[Any, None] = {Errors: None}
        for operation in (o for route in routes for o in route.operations.values()):
            types |= {operation.body.type: None} if operation.body else {}
            types |= {a.type: None for a in operation.answers.values() if a.type is not None}
        found, self.components = msgspec.json.schema_components(types, ref_template=_REF)
        self._of_type: dict[Any, Mapping[str, Any]] = dict(zip(types, found, strict=True))
        self.components["ToRabbitmq"]["oneOf"] = _ONE_PLACE

    def of(self, type_: Any) -> Mapping[str, Any]:
        """Return the reference to a type's schema."""
        return self._of_type[type_]


def _operation(
    route: Route, method: str, operation: Operation, schemas: _Schemas
) -> dict[str, Any]:
    needs = f"Needs the scope `{operation.scope}`." if operation.scope else "Open to all."
    shown: dict[str, Any] = {
        "operationId": operation.name,
        "tags": [tag(route)],
        "summary": operation.summary,
        "description": f"{operation.description} {needs}".strip(),
        "security": [{"apiKey": []}] if operation.scope else [],
        "parameters": [*_path_values(route), *_query(operation), *_headers(operation, method)],
        "responses": _responses(operation, method, schemas),
    }
    if operation.body:
        shown["requestBody"] = {"required": True, "content": _sent(operation.body, schemas)}
    return shown


def _path_values(route: Route) -> list[dict[str, Any]]:
    return [
        {
            "name": name,
            "in": "path",
            "required": True,
            "description": _PATH_VALUES[name],
            "schema": {"type": "string"},
        }
        for name in _PATH_VALUE.findall(route.path)
    ]


def _query(operation: Operation) -> list[dict[str, Any]]:
    return [
        {"name": p.name, "in": "query", "description": p.about, "schema": p.schema}
        for p in operation.query
    ]


def _sent(body: Body, schemas: _Schemas) -> dict[str, Any]:
    if body.media_type == NDJSON:
        each = schemas.of(body.type)
        example = [msgspec.json.decode(line) for line in body.example.splitlines()]
        return {NDJSON: {"schema": _line_by_line(each), "example": example}}
    example = msgspec.json.decode(body.example)
    return {JSON: {"schema": schemas.of(body.type), "example": example}}


def _headers(operation: Operation, method: str) -> list[dict[str, Any]]:
    if method != "POST" or not operation.scope:
        return []
    about = "Of your making: the call is done once, and a repeat within 24 hours is answered alike."
    schema = {"type": "string", "minLength": 1, "maxLength": 255}
    return [{"name": repeats.HEADER, "in": "header", "description": about, "schema": schema}]


def _line_by_line(each: Mapping[str, Any]) -> dict[str, Any]:
    """Return the schema of NDJSON: of all its lines as one array, as OpenAPI 3.2 words it."""
    about = "One JSON object on each line; described as the array of all lines."
    return {"type": "array", "description": about, "items": each, "minItems": 1}


def _responses(operation: Operation, method: str, schemas: _Schemas) -> dict[str, Any]:
    shown = {str(status): _answer(a, schemas) for status, a in operation.answers.items()}
    for status in _failures(operation, method):
        shown[str(status)] = {"$ref": _ERROR_REF.format(status=status)}
    return shown


def _failures(operation: Operation, method: str) -> list[int]:
    """Return the statuses that say a call went wrong."""
    guard = (400, 401, 403, 429) if operation.scope else (400,)
    if method == "POST" and operation.scope:
        guard = (*guard, 409, 422)
    return sorted({*operation.fails, *guard, 500} - set(operation.answers))


def _error_statuses(routes: Iterable[Route]) -> list[int]:
    return sorted(
        {
            status
            for route in routes
            for method, operation in route.operations.items()
            for status in _failures(operation, method)
        }
    )


def _error(status: int, schemas: _Schemas) -> dict[str, Any]:
    """Return what a failed call answers with this status, with an example for each code."""
    codes = [code for code, of in errors.STATUSES.items() if of == status]
    if status == errors.status_of("validation_error"):
        codes = ["validation_error", "invalid_state", *codes]
    shown = {code: {"value": examples.shown_error(code)} for code in codes}
    return {
        "description": HTTPStatus(status).phrase,
        "headers": _answered_headers(_ERROR_HEADERS.get(status, {})),
        "content": {JSON: {"schema": schemas.of(Errors), "examples": shown}},
    }


def _answered_headers(headers: Mapping[str, str]) -> dict[str, Any]:
    return {
        name: {"description": about, "schema": {"type": "string"}}
        for name, about in headers.items()
    }


def _answer(answer: Answer, schemas: _Schemas) -> dict[str, Any]:
    shown: dict[str, Any] = {
        "description": answer.about,
        "headers": _answered_headers(answer.headers),
        "content": {answer.media_type: _content(answer, schemas)} if answer.media_type else {},
    }
    for media_type in answer.other_media_types:
        example = examples.OF_MEDIA_TYPE[media_type]
        shown["content"][media_type] = {"schema": {"type": "string"}, "example": example}
    if answer.links:
        shown["links"] = {link.to: _link(link) for link in answer.links}
    return shown


def _content(answer: Answer, schemas: _Schemas) -> dict[str, Any]:
    if answer.type is None:
        schema = {"type": "object" if answer.media_type == JSON else "string"}
        return {"schema": schema, "example": examples.OF_MEDIA_TYPE[answer.media_type]}
    each, example = schemas.of(answer.type), examples.shown(answer.type)
    if answer.media_type == NDJSON:
        each, example = _line_by_line(each) | {"minItems": 0}, [example]
    return {"schema": each} | ({"example": example} if example is not None else {})


def _link(link: Link) -> dict[str, Any]:
    shown: dict[str, Any] = {"operationId": link.to}
    if link.values:
        shown["parameters"] = dict(link.values)
    if link.body:
        shown["requestBody"] = dict(link.body)
    return shown
