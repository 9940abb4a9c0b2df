"""A client batch's output and error files, written out from the answers whenever somebody asks.

Decides how a line looks: as the provider wrote it, with the client's own custom_id; and the order: that of
the input file, which is the order of the requests' ids. Nothing is kept on disk. The OpenAI door streams
them, `clientbatch` measures them once when the batch has ended. Memory holds a few megabytes of answers.
"""

from __future__ import annotations

import logging
from collections.abc import Iterable, Iterator
from typing import Final

import msgspec
from django.db.models import F, QuerySet
from django.db.models.functions import Length

from batching import answerline, pages
from batching.answerline import Members
from batching.lifecycle import BAD_ENDS, RequestState
from batching.models import Answer, ClientFile, Request

logger = logging.getLogger(__name__)

GOOD_ENDS: Final = (
    RequestState.PROCESSED,
    RequestState.DELIVERING,
    RequestState.DELIVERED,
    RequestState.DELIVERY_FAILED,
)
"""States of a request that has a good answer, wherever its delivery is."""
_STATES: Final = {ClientFile.Side.OUTPUT: GOOD_ENDS, ClientFile.Side.ERRORS: BAD_ENDS}
_PAGE_ROWS, _GROUP_BYTES = 500, 4 * 1024 * 1024
_SHOWN = ("key", "custom_id", "state", "attempt", "error_code", "error_message")


def lines(submission_id: int, side: str) -> Iterator[bytes]:
    """Yield the lines of one of its files, in the order of the input."""
    for row, line in answers(submission_id, _STATES[ClientFile.Side(side)]):
        yield _line(row, line)


def answers(submission_id: int, states: Iterable[str]) -> Iterator[tuple[Request, bytes | None]]:
    """Yield its requests in those states with the line that answers each, in the order of the input."""
    rows = Request.objects.filter(submission=submission_id, state__in=list(states))
    for page in pages.in_order(rows.only(*_SHOWN), _PAGE_ROWS):
        for group in _groups(page):
            found = dict(_answers_to(group).values_list("request_id", "line"))
            for row in group:
                line = found.get(row.pk)
                yield row, None if line is None else bytes(line)


def _answers_to(rows: list[Request]) -> QuerySet[Answer]:
    return Answer.objects.filter(request__in=rows, attempt=F("request__attempt"))


def _groups(rows: list[Request]) -> Iterator[list[Request]]:
    """Cut a page where its answers so far are big enough to be read at once."""
    sizes = dict(_answers_to(rows).values_list("request_id", Length("line")))
    group, size = list[Request](), 0
    for row in rows:
        if group and size + sizes.get(row.pk, 0) > _GROUP_BYTES:
            yield group
            group, size = [], 0
        group.append(row)
        size += sizes.get(row.pk, 0)
    yield group


def _line(row: Request, line: bytes | None) -> bytes:
    found = _members(row, line)
    written = b'{"id":%b,"custom_id":%b,"response":%b,"error":%b}' % (
        bytes(found.id),
        msgspec.json.encode(row.custom_id),
        bytes(found.response),
        bytes(found.error),
    )
    return written.replace(b"\n", b" ") + b"\n"  # between tokens only: JSON has no other


def _members(row: Request, line: bytes | None) -> Members:
    """Cut the answer; without one, or after a bad end that it does not tell, the error is ours."""
    if line is None or row.state in (RequestState.EXPIRED, RequestState.CANCELLED):
        return _our_word(row, row.error_code, row.error_message)
    try:
        return answerline.members(line)
    except (ValueError, RecursionError):
        logger.exception("answer unreadable", extra={"request": row.key})
        return _our_word(row, "unreadable_answer", "the provider's line is stored and can't be cut")


def _our_word(row: Request, code: str, message: str) -> Members:
    error = {"code": code, "message": message}
    return Members(id=_raw(row.key), error=_raw(error))


def _raw(value: object) -> msgspec.Raw:
    return msgspec.Raw(msgspec.json.encode(value))
