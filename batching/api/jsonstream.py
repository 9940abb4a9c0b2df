r"""A JSON text that is too big for memory, read as it comes: what holds its values, not the values.

Cuts the members of an object and the elements of an array out of the text, each as the bytes that came.
Checks the signs between them; whether a value is right is for whoever decodes it. Libraries that stream JSON
give values or events, from which a value's own bytes can't be had again. Called by doors that take a long list
in one body. Memory holds one value and one piece.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Final

import msgspec

from batching.wire import MALFORMED_JSON, MAX_DEPTH, NESTED_TOO_DEEP, Invalid

_BLANK: Final = re.compile(rb"[ \t\r\n]*+")
_SIGN: Final = re.compile(rb'["{}\[\]]')
_TEXT: Final = re.compile(rb'[^"\\]*+(?:\\.[^"\\]*+)*+', re.DOTALL)
_WORD: Final = re.compile(rb'[^\s,:{}\[\]"]*+')
_QUOTE: Final = ord('"')
_TURNS: Final = {b'"': 0, b"{": 1, b"[": 1, b"}": -1, b"]": -1}
_LONGEST_WORD, _LONGEST_NAME = 4_096, 1_024
_DEEPEST: Final = MAX_DEPTH + 8
"""Of any value that is cut; what holds for a body is checked by its reader."""


class TooLong(Exception):
    """A value is longer than it may be."""


class JsonText:
    """A text on its way in; each call goes on where the one before stopped.

    All raise Invalid when the text is no JSON, and whatever reading the pieces raises.
    """

    def __init__(self, pieces: Iterator[bytes]) -> None:
        self._pieces = pieces
        self._held = bytearray()
        self._at = 0
        """Where the next byte to be read is."""

    def members(self) -> Iterator[str]:
        """Yield the name of each member of the object here; its value is to be read before going on."""
        if not self._opens(b"{", b"}"):
            return
        while True:
            yield self._name()
            if not self._goes_on(b"}"):
                return

    def elements(self, longest: int) -> Iterator[bytes]:
        """Yield the elements of the array here. Raises TooLong for one of more bytes."""
        if not self._opens(b"[", b"]"):
            return
        while True:
            yield self.value(longest)
            if not self._goes_on(b"]"):
                return

    def value(self, longest: int) -> bytes:
        """Return the value here. Raises TooLong when it has more bytes."""
        is_long = self._next() in (b'"', b"{", b"[")
        length = self._length(longest) if is_long else self._word_length()
        start, self._at = self._at, self._at + length  # both may have been moved on the way
        with memoryview(self._held) as held:
            return bytes(held[start : self._at])

    def end(self) -> None:
        """Check that nothing follows."""
        if self._next():
            raise self._broken("nothing may follow the object")

    def _name(self) -> str:
        if self._next() != b'"':
            raise self._broken("a name in quotes is expected")
        try:
            name = msgspec.json.decode(self.value(_LONGEST_NAME), type=str)
        except (msgspec.DecodeError, TooLong) as problem:
            raise Invalid(MALFORMED_JSON, "not valid JSON: a name can't be read") from problem
        self._expect(b":")
        return name

    def _opens(self, start: bytes, end: bytes) -> bool:
        """Step into an array or object; False when it is empty, and passed."""
        self._expect(start)
        if self._next() == end:
            self._at += 1
            return False
        return True

    def _goes_on(self, end: bytes) -> bool:
        sign = self._next()
        if sign not in (b",", end):
            raise self._broken(f"a comma or {end.decode()} is expected")
        self._at += 1
        return sign == b","

    def _expect(self, sign: bytes) -> None:
        if self._next() != sign:
            raise self._broken(f"{sign.decode()} is expected")
        self._at += 1

    def _next(self) -> bytes:
        """Return the next byte that is not blank, and stop before it; empty at the end."""
        while True:
            self._at = self._past(_BLANK, self._at)
            if self._at < len(self._held):
                return bytes(self._held[self._at : self._at + 1])
            if not self._more():
                return b""

    def _word_length(self) -> int:
        length = 0
        while True:
            length = self._past(_WORD, self._at + length) - self._at
            if length > _LONGEST_WORD or not length:
                raise self._broken("a value is expected")
            if self._at + length < len(self._held) or not self._more():
                return length

    def _length(self, longest: int) -> int:
        """Return how long the text, array or object here is."""
        length, depth, in_text = 0, 0, False
        while True:
            if in_text:
                length, in_text = self._past_text(length)
            else:
                length, turn = self._past_sign(length)
                depth, in_text = depth + turn, turn == 0
            if length > longest:
                raise TooLong
            if depth > _DEEPEST:
                raise Invalid(NESTED_TOO_DEEP, f"nested deeper than {MAX_DEPTH} levels")
            if depth <= 0 and not in_text:
                return length

    def _past_text(self, length: int) -> tuple[int, bool]:
        """Go on in a text: returns the length behind what is there of it, and whether it goes on."""
        length = self._past(_TEXT, self._at + length) - self._at
        if self._at + length < len(self._held) and self._held[self._at + length] == _QUOTE:
            return length + 1, False
        self._require_more("a text has no end")
        return length, True

    def _past_sign(self, length: int) -> tuple[int, int]:
        """Step behind the next sign; returns the length there, and 1, -1, or 0 where a text begins."""
        while (found := _SIGN.search(self._held, self._at + length)) is None:
            length = len(self._held) - self._at
            self._require_more("an array or object has no end")
        return found.end() - self._at, _TURNS[found[0]]

    def _require_more(self, what: str) -> None:
        if not self._more():
            raise Invalid(MALFORMED_JSON, f"not valid JSON: it ends too soon, {what}")

    def _past(self, pattern: re.Pattern[bytes], at: int) -> int:
        found = pattern.match(self._held, at)
        return found.end() if found else at

    def _more(self) -> bool:
        """Take the next piece, and forget what was read; False at the end."""
        piece = next(self._pieces, b"")
        del self._held[: self._at]
        self._at = 0
        self._held += piece
        return bool(piece)

    def _broken(self, what: str) -> Invalid:
        ends = "" if self._at < len(self._held) else "it ends too soon, "
        return Invalid(MALFORMED_JSON, f"not valid JSON: {ends}{what}")
