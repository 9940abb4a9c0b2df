"""Calls of the API as values: who may make them, what they take and answer, and how they fail.

`operation` puts a view behind its guard and notes what the OpenAPI document says of it; `Route` joins the
operations of one path, answers a wrong method, and turns every exception into JSON. `urls` has the
table of routes. Never knows what any operation does.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from functools import partial, wraps
from typing import Any, Final

from django.http import HttpRequest, HttpResponse, HttpResponseBase
from django.urls import URLPattern, path

from batching.api import errors, pace, repeats, waiting
from batching.api.auth import caller_of
from batching.api.errors import ApiError, Source
from batching.api.squeeze import squeezed
from batching.lifecycle import Stale
from batching.models.projects import Scope
from batching.steering import Refused
from batching.wire import Invalid

View = Callable[..., HttpResponseBase]

JSON: Final = "application/json"
NDJSON: Final = "application/x-ndjson"


@dataclass(frozen=True, kw_only=True)
class Parameter:
    """One parameter of the query."""

    name: str
    about: str
    """What it does, as a sentence."""
    schema: Mapping[str, Any] = field(default_factory=lambda: {"type": "string"})


@dataclass(frozen=True, kw_only=True)
class Body:
    """What a call sends."""

    type: Any
    """The wire type of the body, or of each of its lines."""
    example: str
    media_type: str = JSON


@dataclass(frozen=True, kw_only=True)
class Link:
    """A call that goes on from an answer, as OpenAPI describes it."""

    to: str
    """The other operation's name."""
    values: Mapping[str, str] = field(default_factory=dict)
    """Where each of its parameters is found: a runtime expression, such as `$response.body#/id`."""
    body: Mapping[str, str] = field(default_factory=dict)
    """The same for members of its body."""


@dataclass(frozen=True)
class Answer:
    """What a call answers when it goes well."""

    about: str
    type: Any = None
    """The type of the body, or of each of its lines; None: it is described by its media type alone."""
    media_type: str = JSON
    """Empty: there is no body."""
    other_media_types: tuple[str, ...] = ()
    """What it may be instead, when the client asks for it."""
    headers: Mapping[str, str] = field(default_factory=dict)
    """What each of its own headers says."""
    links: tuple[Link, ...] = ()


@dataclass(frozen=True, kw_only=True)
class Operation:
    """What the OpenAPI document and the docs page say of a view."""

    view: View
    scope: Scope | None
    answers: Mapping[int, Answer]
    query: tuple[Parameter, ...]
    body: Body | None
    fails: tuple[int, ...]
    """Statuses of errors beside those that every call may have."""

    @property
    def name(self) -> str:
        """The operation's id."""
        return self.view.__name__

    @property
    def summary(self) -> str:
        """The first sentence of the view's docstring."""
        return self._about[0].strip()

    @property
    def description(self) -> str:
        """The rest of the view's docstring."""
        return " ".join(self._about[2].split())

    @property
    def _about(self) -> tuple[str, str, str]:
        return (self.view.__doc__ or "").partition("\n")


def operation(
    *,
    scope: Scope | None,
    answers: Mapping[int, Answer],
    query: tuple[Parameter, ...] = (),
    body: Body | None = None,
    fails: tuple[int, ...] = (),
    knows_repeats: bool = False,
) -> Callable[[View], View]:
    """Put a view behind its guard: the key's scope and pace, and no parameter that it does not know.

    A POST with an ``Idempotency-Key`` is done once, unless the view ``knows_repeats`` itself. The view is called with the request, the Caller (not when ``scope`` is None: open to all), and the
    path's values.
    """

    def guard(view: View) -> View:
        known = frozenset(p.name for p in query)

        @wraps(view)
        def guarded(request: HttpRequest, **values: str) -> HttpResponseBase:
            caller = None if scope is None else caller_of(request, scope)
            if caller is not None:
                pace.spend_call(request, caller.key)
            for name in request.GET:
                if name not in known:
                    raise wrong_parameter(name, "is not a parameter of this call")
            if caller is None:
                return view(request, **values)
            if knows_repeats:
                return view(request, caller, **values)
            return repeats.once(request, caller.key, partial(view, request, caller, **values))

        guarded.operation = Operation(  # type: ignore[attr-defined]  # read by Route
            view=view, scope=scope, answers=answers, query=query, body=body, fails=fails
        )
        return guarded

    return guard


def wrong_parameter(name: str, why: str) -> ApiError:
    """Return the error for a query parameter."""
    name = name[:100]
    source = Source(parameter=name)
    return ApiError("invalid_parameter", f"{name} {why}", source=source)


def flag(request: HttpRequest, name: str) -> bool:
    """Return a query parameter that is true or false, false when it is not given. Raises ApiError."""
    given = request.GET.get(name, "false").lower()
    if given not in ("true", "1", "false", "0"):
        raise wrong_parameter(name, "must be true or false")
    return given in ("true", "1")


class Route:
    """One path and its operations by HTTP method.

    ``unlisted`` ones answer as well but are kept out of the documents.
    """

    def __init__(
        self, path: str, *, unlisted: Mapping[str, View] | None = None, **views: View
    ) -> None:
        self.path = path
        """As Django's `path` reads it."""
        self.operations: dict[str, Operation] = {
            method: view.operation  # type: ignore[attr-defined]  # set by `operation`
            for method, view in views.items()
        }
        self._views = {**(unlisted or {}), **views}
        if "GET" in self._views:
            self._views.setdefault("HEAD", self._views["GET"])

    @property
    def pattern(self) -> URLPattern:
        """The route as Django's resolver takes it."""
        return path(self.path, self.answer)

    def answer(self, request: HttpRequest, **values: str) -> HttpResponseBase:
        """Answer a call to this path, whatever happens."""
        with waiting.at_work():
            return pace.tell(request, squeezed(request, self._answer_somehow(request, values)))

    def _answer_somehow(self, request: HttpRequest, values: Mapping[str, str]) -> HttpResponseBase:
        try:
            return self._answer(request, values)
        except ApiError as problem:
            return problem.response()
        except Invalid as problem:
            source = Source(pointer=problem.pointer)
            return ApiError(problem.code, problem.detail, source=source).response()
        except Refused as problem:
            return ApiError(problem.code, problem.detail).response()
        except Stale:
            detail = "it changed while you asked; look again"
            return ApiError("changed_meanwhile", detail).response()
        except Exception as problem:  # the edge: a program gets JSON, the log the trace
            return errors.unexpected(request.path, problem)

    def _answer(self, request: HttpRequest, values: Mapping[str, str]) -> HttpResponseBase:
        view = self._views.get(request.method or "")
        if view is None:
            allowed = ", ".join(sorted(self._views))
            detail = f"{request.method} is not one of {allowed}"
            raise ApiError("method_not_allowed", detail, headers={"Allow": allowed})
        return view(request, **values)


def render(encoded: bytes, status: int = 200) -> HttpResponse:
    """Return a JSON answer."""
    return HttpResponse(encoded, content_type=JSON, status=status)
