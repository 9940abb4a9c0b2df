"""Read settings from the environment, typed, and say plainly what is wrong with them.

Decides how a value is found (`NAME`, or a file named by `NAME_FILE` for secrets), how it is parsed, and
how a problem is worded. Each variable is declared once, where `batcher/settings.py` reads it; README's
table is generated from those declarations. All problems are collected and raised together by `finish`.
Never reads a value twice, never prints one, and knows nothing of Django but its exception.
"""

from __future__ import annotations

import os
import re
import secrets
import ssl
import tempfile
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, TypeVar
from urllib.parse import urlsplit

from cryptography.fernet import Fernet
from django.core.exceptions import ImproperlyConfigured

T = TypeVar("T")

Parser = Callable[[str], T]
"""Turns the text of a variable into its value; raises ValueError with what is accepted."""

_TRUE = frozenset({"1", "true", "yes", "on"})
_FALSE = frozenset({"", "0", "false", "no", "off"})


class WrongEnvironment(ImproperlyConfigured):
    """The environment can not be used; `problems` has one line for each wrong variable."""

    def __init__(self, problems: list[str]) -> None:
        super().__init__("\n".join(problems))
        self.problems = problems


@dataclass(frozen=True, kw_only=True)
class Variable:
    """One environment variable, as README shows it."""

    name: str
    """As it stands in the environment."""
    default: str
    """What holds when it is unset, in the words of the reader."""
    description: str
    """One sentence for README."""
    is_secret: bool
    """May also be given as a file, by `NAME_FILE`."""
    parse: Parser[Any] | None = None
    """Reads what an admin sets in the panel; None: only the environment may say it."""


class Environment:
    """Reads variables from a mapping and remembers what was declared and what was wrong."""

    def __init__(self, source: Mapping[str, str]) -> None:
        self._source = source
        self.declared: list[Variable] = []
        self.problems: list[str] = []

    def read(
        self,
        name: str,
        parse: Parser[T],
        *,
        default: str,
        description: str,
        shown: str | None = None,
    ) -> T:
        """Return the parsed value of `name`; a wrong one is noted and the default stands in."""
        self._declare(name, default if shown is None else shown, description, is_secret=False)
        return self._parsed(name, self._source.get(name, ""), parse, default)

    def live(
        self,
        name: str,
        parse: Parser[T],
        *,
        default: str,
        description: str,
        shown: str | None = None,
    ) -> T:
        """Like `read`, and an admin may override it in the panel while we run."""
        value = self.read(name, parse, default=default, description=description, shown=shown)
        self.declared[-1] = replace(self.declared[-1], parse=parse)
        return value

    def secret(
        self, name: str, parse: Parser[T], *, default: str = "", description: str, shown: str = ""
    ) -> T:
        """Like `read`, and the value may stand in a file that `<name>_FILE` names."""
        self._declare(name, shown, description, is_secret=True)
        return self._parsed(name, self._secret_text(name), parse, default)

    def made_once(self, name: str, path: Path, make: Callable[[], str], *, description: str) -> str:
        """Return the secret `name`; when it is unset, the one kept in `path`, made at the first start."""
        shown = f"made once, kept in DATA_DIR/secrets/{path.name}"
        self._declare(name, shown, description, is_secret=True)
        given = self._secret_text(name)
        if given or self.problems:
            return given  # nothing is made in a folder that may not be the one that is meant
        try:
            return keep_secret(path, make)
        except OSError as problem:
            self.problems.append(f"{name} can not be kept in {str(path)!r}: {problem.strerror}")
            return ""

    def gives(self, name: str) -> bool:
        """Tell whether `name` is set, by itself or by a file."""
        return bool(self._source.get(name) or self._source.get(f"{name}_FILE"))

    def finish(self) -> None:
        """Raise WrongEnvironment when any variable read so far was wrong."""
        if self.problems:
            raise WrongEnvironment(self.problems)

    def _declare(self, name: str, default: str, description: str, *, is_secret: bool) -> None:
        variable = Variable(
            name=name, default=default, description=description, is_secret=is_secret
        )
        self.declared.append(variable)

    def _parsed(self, name: str, given: str, parse: Parser[T], default: str) -> T:
        try:
            return parse(given.strip() or default)
        except ValueError as problem:
            self.problems.append(f"{name} {problem}")
        try:
            return parse(default)
        except ValueError:
            raise WrongEnvironment(self.problems) from None  # nothing to go on with

    def _secret_text(self, name: str) -> str:
        path = self._source.get(f"{name}_FILE", "")
        if not path:
            return self._source.get(name, "")
        if self._source.get(name):
            self.problems.append(f"{name} and {name}_FILE are both set; set only one of them")
        try:
            return Path(path).read_text(encoding="utf-8").strip()
        except (OSError, UnicodeDecodeError) as problem:
            self.problems.append(f"{name}_FILE must name a readable text file: {problem}")
            return ""


def keep_secret(path: Path, make: Callable[[], str]) -> str:
    """Return the text of `path`; make it first, readable by its owner only, when it is missing.

    Two processes that start together end up with the same text: the file appears whole, by link.
    """
    if not path.exists():
        path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
        draft = path.with_name(f".{path.name}.{secrets.token_hex(8)}")
        draft.touch(mode=0o600)
        draft.write_text(make() + "\n", encoding="utf-8")
        try:
            os.link(draft, path)
        except FileExistsError:
            pass  # another process was first: its text is the one
        finally:
            draft.unlink()
    return path.read_text(encoding="utf-8").strip()


def text(value: str) -> str:
    """Accept any text."""
    return value


def long_text(least: int) -> Parser[str]:
    """Accept nothing, or text of at least `least` characters."""

    def parse(value: str) -> str:
        if value and len(value) < least:
            raise ValueError(f"must have {least} or more characters, not {len(value)}")
        return value

    return parse


def flag(value: str) -> bool:
    """Accept the usual words for yes and no."""
    if value.lower() in _TRUE:
        return True
    if value.lower() in _FALSE:
        return False
    raise ValueError(f"must be 1, true, yes, on, 0, false, no or off, not {value!r}")


def whole_number(least: int, most: int) -> Parser[int]:
    """Accept a whole number from `least` to `most`."""

    def parse(value: str) -> int:
        if not re.fullmatch(r"-?[0-9]{1,18}", value) or not least <= int(value) <= most:
            raise ValueError(f"must be a whole number from {least} to {most}, not {value!r}")
        return int(value)

    return parse


def listed(value: str) -> list[str]:
    """Accept texts between commas; empty ones are left out."""
    return [part.strip() for part in value.split(",") if part.strip()]


def ports(value: str) -> list[int]:
    """Accept one or more ports between commas."""
    return [whole_number(1, 65_535)(part) for part in listed(value)]


def certificates(value: str) -> Path | None:
    """Accept nothing, or the path of a readable PEM file with at least one certificate."""
    if not value:
        return None
    path = Path(value).expanduser().absolute()
    try:
        ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT).load_verify_locations(path)
    except (OSError, ssl.SSLError) as problem:
        raise ValueError(f"must name a readable PEM file of certificates: {problem}") from problem
    return path


def seconds(value: str) -> tuple[float, ...]:
    """Accept one to a hundred numbers of seconds between commas, each up to 30 days."""
    try:
        found = tuple(float(part) for part in listed(value))
    except ValueError:
        raise ValueError(f"must be seconds between commas, not {value!r}") from None
    if not 1 <= len(found) <= 100 or not all(0 <= one <= 30 * 86_400 for one in found):
        raise ValueError(f"must be 1 to 100 numbers from 0 to 2592000, not {value!r}")
    return found


def writable_folder(value: str) -> Path:
    """Accept the path of a folder that this user may write to; it is made when it is missing."""
    path = Path(value).expanduser().absolute()
    try:
        path.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=path):
            return path
    except OSError as problem:
        raise ValueError(
            f"must be a folder that this user may write to; {str(path)!r}: {problem.strerror}"
        ) from problem


def checked(parse: Parser[T], check: Callable[[T], object]) -> Parser[T]:
    """Accept what `parse` accepts and `check` raises no ValueError about."""

    def parse_and_check(value: str) -> T:
        parsed = parse(value)
        check(parsed)
        return parsed

    return parse_and_check


def one_of(*choices: str) -> Parser[str]:
    """Accept one of `choices`, in any case."""

    def parse(value: str) -> str:
        if value.upper() not in choices:
            raise ValueError(f"must be one of {', '.join(choices)}, not {value!r}")
        return value.upper()

    return parse


def url(*schemes: str) -> Parser[str]:
    """Accept nothing, or a URL whose scheme is one of `schemes`; the message never shows the URL."""

    def parse(value: str) -> str:
        accepted = ", ".join(f"{scheme}://" for scheme in schemes)
        if value and urlsplit(value).scheme not in schemes:
            raise ValueError(f"must be a URL that starts with one of {accepted}")
        return value

    return parse


def web_url(value: str) -> str:
    """Accept nothing, or an http(s) URL with a host; the slash at its end is dropped."""
    if value and (urlsplit(value).scheme not in {"http", "https"} or not urlsplit(value).hostname):
        raise ValueError("must be a URL like https://host or http://host:port/path")
    return value.rstrip("/")


def origins(value: str) -> list[str]:
    """Accept origins of web pages between commas: scheme, host, maybe a port, and no path."""
    found = listed(value)
    for origin in found:
        parts = urlsplit(origin)
        if parts.scheme not in {"http", "https"} or f"{parts.scheme}://{parts.netloc}" != origin:
            raise ValueError(f"must be origins like https://app.example.com, not {origin!r}")
        if not parts.hostname or "@" in parts.netloc or "*" in parts.netloc:
            raise ValueError(f"must name each origin whole, not {origin!r}")
    return found


def fernet_problems(name: str, keys: list[str]) -> list[str]:
    """Return one line when any of `keys` is no Fernet key."""
    for key in keys:
        try:
            Fernet(key)
        except ValueError:
            return [
                f"{name} must be Fernet keys (32 bytes in URL-safe base64) between commas; make one with "
                '`python -c "from cryptography.fernet import Fernet; print(Fernet.generate_key().decode())"`'
            ]
    return []
