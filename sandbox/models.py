"""/v1/models and the synchronous endpoints, which answer as a batch would.

Any model name is taken, but those the scenario calls unknown; the list only names some.
"""

from __future__ import annotations

import hashlib
import itertools

from aiohttp import web

from sandbox import checks
from sandbox.answers import answer
from sandbox.answers.call import Call, digest_of
from sandbox.errors import ApiError
from sandbox.names import MODELS
from sandbox.replies import ENGINE, reply

_CREATED_AT = 1_735_689_600
_calls = itertools.count(1)


async def index(request: web.Request) -> web.Response:
    """``GET /v1/models``."""
    book = request.app[ENGINE].book()
    known = [_model(name) for name in MODELS if book.is_known_model(name)]
    return reply({"object": "list", "data": known})


async def retrieve(request: web.Request) -> web.Response:
    """``GET /v1/models/{model}``."""
    name = request.match_info["model"]
    if not request.app[ENGINE].book().is_known_model(name):
        raise _no_model(name)
    return reply(_model(name))


async def direct(request: web.Request) -> web.Response:
    """``POST /v1/responses`` and the other endpoints, answered at once."""
    engine = request.app[ENGINE]
    body = await checks.json_body(request)
    if body.get("stream") is True:
        raise ApiError(400, "The sandbox does not stream.", param="stream")
    model = body.get("model")
    if isinstance(model, str) and not engine.book().is_known_model(model):
        raise _no_model(model)
    digest = digest_of(engine.seed, request.path, await request.read())
    identity = hashlib.blake2b(digest, digest_size=16, salt=next(_calls).to_bytes(8, "big"))
    call = Call(
        body=body,
        digest=digest,
        identity=identity.hexdigest(),
        created_at=int(engine.clock.now()),
        is_known_model=engine.book().is_known_model,
        is_batched=False,
    )
    given = answer(request.path, call)
    return reply(given.body, status=given.status)


def _model(name: str) -> dict[str, object]:
    return {"id": name, "object": "model", "created": _CREATED_AT, "owned_by": "sandbox"}


def _no_model(name: str) -> ApiError:
    return ApiError(
        404,
        f"The model '{name}' does not exist or you do not have access to it.",
        param="model",
        code="model_not_found",
    )
