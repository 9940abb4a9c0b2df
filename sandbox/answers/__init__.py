"""What the pretended models say: ``answer`` gives one call's answer, believable and repeatable.

The same seed and body always bring the same answer. A body that is obviously wrong for its
endpoint gets the 400 that OpenAI would give. Used for batch lines and for the synchronous calls.
"""

from __future__ import annotations

from collections.abc import Callable

from sandbox.answers import embeddings, messages, moderations, text
from sandbox.answers.call import Answer, Call
from sandbox.errors import MESSAGES, ApiError

_ENDPOINTS: dict[str, Callable[[Call], Answer]] = {
    "/v1/responses": text.respond,
    "/v1/chat/completions": text.chat,
    "/v1/completions": text.complete,
    "/v1/embeddings": embeddings.embed,
    "/v1/moderations": moderations.moderate,
}
ENDPOINTS = tuple(_ENDPOINTS)
"""Those of OpenAI's side."""
_ENDPOINTS[MESSAGES] = messages.message


def answer(endpoint: str, call: Call) -> Answer:
    """Answer one call of one of ENDPOINTS or /v1/messages; an invalid body is answered too, with its 400."""
    try:
        return _ENDPOINTS[endpoint](call)
    except ApiError as error:
        return Answer(status=error.status, body=error.body)
