"""Forms with a file in them (multipart/form-data), read from the wire to the disk in constant memory.

Decides how long a field and how big a file may be. Django's own parser is not used: it spools a file of
hundreds of megabytes before a view sees it, and knows no chunked bodies. Called by the views of files and
uploads.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Final

from django.http import HttpRequest
from multipart import MultipartError, MultipartSegment, PushMultipartParser, parse_options_header

from batching.api import reading
from batching.api.openai.door import Problem
from batching.api.reading import MAX_UPLOAD_BYTES

_LONGEST_FIELD: Final = 8 * 1024
_MOST_FIELDS: Final = 32
_FRAME_BYTES: Final = 64 * 1024
"""What a form is longer than the file in it."""


@dataclass
class Form:
    """The fields of a form, and what its file was called."""

    fields: dict[str, str] = field(default_factory=dict)
    filename: str | None = None
    """None: there was no file."""


def read_form(
    request: HttpRequest, file_field: str, write: Callable[[bytes], None], *, at_most: int
) -> Form:
    """Read a form, passing the bytes of its file on as they come. Raises Problem, ApiError."""
    parser = PushMultipartParser(_boundary(request), max_segment_count=_MOST_FIELDS)
    reader = _Reader(file_field, write, at_most)
    try:
        with parser:
            for piece in reading.form_pieces(request, at_most=at_most + _FRAME_BYTES):
                for event in parser.parse(piece):
                    reader.take(event)
    except MultipartError as problem:
        raise Problem(400, f"The multipart body can't be read: {problem}.") from problem
    return reader.form


def _boundary(request: HttpRequest) -> str:
    kind, options = parse_options_header(request.META.get("CONTENT_TYPE", ""))
    if kind != "multipart/form-data" or not options.get("boundary"):
        raise Problem(400, "Send the body as multipart/form-data.")
    return str(options["boundary"])


class _Reader:
    """Takes the parser's events: the beginning of a field, its bytes, its end."""

    def __init__(self, file_field: str, write: Callable[[bytes], None], at_most: int) -> None:
        self.form = Form()
        self._file_field, self._write, self._left = file_field, write, at_most
        self._name = ""
        self._value = b""

    def take(self, event: MultipartSegment | bytearray | bytes | None) -> None:
        if isinstance(event, MultipartSegment):
            self._begin(event)
        elif event is None:
            self._end()
        elif self._name == self._file_field:
            self._pass_on(event)
        else:
            self._keep(event)

    def _begin(self, segment: MultipartSegment) -> None:
        self._name, self._value = segment.name or "", b""
        if self._name == self._file_field:
            if self.form.filename is not None:
                raise Problem(400, "Send one file.", param=self._file_field)
            self.form.filename = (segment.filename or "").replace("\0", "")[:512] or "upload"

    def _end(self) -> None:
        if self._name != self._file_field:
            self.form.fields[self._name] = self._value.decode("utf-8", "replace")

    def _pass_on(self, piece: bytearray | bytes) -> None:
        self._left -= len(piece)
        if self._left < 0:
            raise Problem(413, "The file is too large.", param=self._file_field)
        self._write(bytes(piece))

    def _keep(self, piece: bytearray | bytes) -> None:
        self._value += piece
        if len(self._value) > _LONGEST_FIELD:
            raise Problem(
                400, f"The field '{self._name[:100]}' is too long.", param=self._name[:100]
            )


__all__ = ["MAX_UPLOAD_BYTES", "Form", "read_form"]
