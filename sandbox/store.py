"""What outlives the process: a SQLite database and the files' bytes, in one data folder.

Used from the event loop (short statements) and from the one thread that works on batches. Batches
are saved with a version, so that a stage that was worked out from an older copy is thrown away.
Decides nothing about what a batch does; never holds a file's bytes in memory.
"""

from __future__ import annotations

import contextlib
import fcntl
import re
import secrets
import sqlite3
import string
import threading
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import IO, TypeVar

import msgspec

from sandbox.clock import Reading
from sandbox.objects import Batch, StoredFile
from sandbox.rules import Count, Tally

_SCHEMA = """
CREATE TABLE IF NOT EXISTS file (
    seq INTEGER PRIMARY KEY AUTOINCREMENT, id TEXT NOT NULL UNIQUE, purpose TEXT NOT NULL,
    expires_at REAL, is_deleted INTEGER NOT NULL DEFAULT 0, -- 2: its bytes are gone too
    doc BLOB NOT NULL);
CREATE TABLE IF NOT EXISTS batch (
    seq INTEGER PRIMARY KEY AUTOINCREMENT, id TEXT NOT NULL UNIQUE, version INTEGER NOT NULL,
    status TEXT NOT NULL, input_file_id TEXT NOT NULL, listed_at REAL NOT NULL, due_at REAL,
    doc BLOB NOT NULL);
CREATE INDEX IF NOT EXISTS batch_due ON batch (due_at) WHERE due_at IS NOT NULL;
CREATE TABLE IF NOT EXISTS line (
    batch INTEGER NOT NULL, number INTEGER NOT NULL, custom_id TEXT NOT NULL, outcome TEXT NOT NULL,
    PRIMARY KEY (batch, number)) WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS call (
    route TEXT NOT NULL, status TEXT NOT NULL, calls INTEGER NOT NULL, PRIMARY KEY (route, status));
CREATE TABLE IF NOT EXISTS scenario (
    generation INTEGER PRIMARY KEY AUTOINCREMENT, doc BLOB NOT NULL);
CREATE TABLE IF NOT EXISTS tally (
    rule TEXT PRIMARY KEY, fitted INTEGER NOT NULL, struck INTEGER NOT NULL);
CREATE TABLE IF NOT EXISTS fullest (model TEXT PRIMARY KEY, tokens INTEGER NOT NULL);
CREATE TABLE IF NOT EXISTS clock (
    only INTEGER PRIMARY KEY CHECK (only = 1), sandbox REAL NOT NULL, wall REAL NOT NULL);
CREATE TABLE IF NOT EXISTS receiver (
    only INTEGER PRIMARY KEY CHECK (only = 1), status INTEGER NOT NULL, delay_s REAL NOT NULL);
CREATE TABLE IF NOT EXISTS arrival (
    seq INTEGER PRIMARY KEY, at REAL NOT NULL, path TEXT NOT NULL, webhook_id TEXT NOT NULL,
    custom_id TEXT NOT NULL, is_replay INTEGER NOT NULL, answered INTEGER NOT NULL,
    size_bytes INTEGER NOT NULL, body TEXT NOT NULL);
"""
_FORGET = (
    "DELETE FROM file", "DELETE FROM batch", "DELETE FROM line", "DELETE FROM call",
    "DELETE FROM scenario", "DELETE FROM tally", "DELETE FROM receiver", "DELETE FROM arrival",
    "DELETE FROM fullest",
    # Batches are numbered from 1 again, so that the same calls bring the same answers.
    "DELETE FROM sqlite_sequence WHERE name = 'batch'",
)  # fmt: skip
BATCH = "batch_"
MESSAGE_BATCH = "msgbatch_"
"""How ids begin, by which the two sides know their batches."""
REQUESTS = "message_batch"
"""Purpose of a file that OpenAI's side never shows: the requests or results of a message batch."""
_UNSAFE = re.compile(r"[^A-Za-z0-9_.-]|^\.+")
_NEVER = 9e15
"""When a deleted batch is listed."""
T = TypeVar("T")
_LETTERS = string.ascii_letters + string.digits


class FolderInUseError(OSError):
    """Another sandbox works in this data folder."""


class Store:
    """The data folder of one sandbox."""

    def __init__(self, folder: Path) -> None:
        """Open or make the folder; raise OSError when it can't be written or is in use."""
        self.files = folder / "files"
        self.files.mkdir(parents=True, exist_ok=True)
        self._lock_file = _lock(folder / "lock")
        self._lock = threading.RLock()
        try:
            self._db = sqlite3.connect(
                folder / "sandbox.sqlite3", check_same_thread=False, isolation_level=None
            )
            self._db.execute("PRAGMA journal_mode = WAL")
            self._db.execute("PRAGMA synchronous = NORMAL")
            self._db.executescript(_SCHEMA)
        except sqlite3.Error as error:
            raise OSError(f"database: {error}") from error

    def close(self) -> None:
        """Close the database and give the folder free."""
        self._db.close()
        self._lock_file.close()

    @contextlib.contextmanager
    def _transaction(self) -> Iterator[sqlite3.Connection]:
        with self._lock:
            self._db.execute("BEGIN IMMEDIATE")
            try:
                yield self._db
            except BaseException:
                self._db.execute("ROLLBACK")
                raise
            self._db.execute("COMMIT")

    def _rows(self, sql: str, *values: object) -> list[tuple[object, ...]]:
        with self._lock:
            return self._db.execute(sql, values).fetchall()

    # --- files ---

    def path(self, file_id: str) -> Path:
        """Return where a file's bytes lie; an id from outside can name nothing but a file of ours."""
        return self.files / _UNSAFE.sub("_", file_id)

    def add_file(self, file: StoredFile) -> None:
        """Keep a file whose bytes are in place."""
        with self._transaction() as db:
            _insert_file(db, file)

    def file(self, file_id: str, now: float) -> StoredFile | None:
        """Return a file of OpenAI's side that is neither deleted nor expired."""
        rows = self._rows(
            "SELECT doc FROM file WHERE id = ? AND NOT is_deleted AND purpose <> ?"
            " AND (expires_at IS NULL OR expires_at > ?)",
            file_id,
            REQUESTS,
            now,
        )
        return _decode(rows[0][0], StoredFile) if rows else None

    def file_page(
        self, now: float, *, purpose: str | None, after: str | None, limit: int, ascending: bool
    ) -> list[StoredFile]:
        """Return up to ``limit`` files behind ``after``, in the order they came or backwards."""
        rows = self._rows(
            "SELECT doc FROM file WHERE NOT is_deleted AND (expires_at IS NULL OR expires_at > ?1)"
            " AND (?2 IS NULL OR purpose = ?2) AND purpose <> ?6"
            " AND (?3 IS NULL OR seq * ?5 > ?5 * (SELECT seq FROM file WHERE id = ?3))"
            " ORDER BY seq * ?5 LIMIT ?4",
            now,
            purpose,
            after,
            limit,
            1 if ascending else -1,
            REQUESTS,
        )
        return [_decode(row[0], StoredFile) for row in rows]

    def delete_file(self, file_id: str) -> None:
        """Forget a file; its bytes stay until no running batch reads them."""
        with self._transaction() as db:
            db.execute("UPDATE file SET is_deleted = 1 WHERE id = ?", (file_id,))
        self.sweep(0.0)

    def sweep(self, now: float) -> None:
        """Remove the bytes of files that are deleted or expired and that no running batch reads."""
        rows = self._rows(
            "SELECT id FROM file WHERE is_deleted < 2 AND (is_deleted OR expires_at <= ?)"
            " AND id NOT IN (SELECT input_file_id FROM batch WHERE due_at IS NOT NULL)",
            now,
        )
        for (file_id,) in rows:
            self.path(str(file_id)).unlink(missing_ok=True)
            with self._transaction() as db:
                db.execute("UPDATE file SET is_deleted = 2 WHERE id = ?", (file_id,))

    def remove_strays(self) -> None:
        """Remove bytes that no file owns: what a killed sandbox was just writing."""
        known = {str(row[0]) for row in self._rows("SELECT id FROM file")}
        for path in self.files.iterdir():
            if path.name not in known:
                path.unlink(missing_ok=True)

    # --- batches ---

    def add_batch(self, batch: Batch) -> None:
        """Keep a new batch and number it."""
        with self._transaction() as db:
            cursor = db.execute(
                "INSERT INTO batch (id, version, status, input_file_id, listed_at, doc)"
                " VALUES (?, 0, ?, ?, ?, '')",
                (batch.id, batch.status, batch.input_file_id, batch.listed_at),
            )
            batch.seq = cursor.lastrowid or 0
            _update_batch(db, batch)

    def batch(self, batch_id: str) -> Batch | None:
        """Return a batch that is not deleted."""
        rows = self._rows("SELECT doc FROM batch WHERE id = ? AND listed_at < ?", batch_id, _NEVER)
        return _decode(rows[0][0], Batch) if rows else None

    def batch_page(
        self,
        now: float,
        kind: str,
        *,
        after: str | None,
        before: str | None = None,
        limit: int,
    ) -> list[Batch]:
        """Return up to ``limit`` batches of a kind (BATCH, MESSAGE_BATCH), newest first.

        They are the newest older than ``after``, or the oldest newer than ``before``; late ones
        are not among them.
        """
        rows = self._rows(
            "SELECT doc FROM batch WHERE listed_at <= ?1 AND substr(id, 1, length(?5)) = ?5"
            " AND (?2 IS NULL OR seq < (SELECT seq FROM batch WHERE id = ?2))"
            " AND (?3 IS NULL OR seq > (SELECT seq FROM batch WHERE id = ?3))"
            " ORDER BY seq * ?6 LIMIT ?4",
            now,
            after,
            before,
            limit,
            kind,
            -1 if before is None else 1,
        )
        page = [_decode(row[0], Batch) for row in rows]
        return page if before is None else page[::-1]

    def delete_batch(self, batch: Batch) -> None:
        """Forget a batch that has ended, and its files; what it cost is still counted."""
        with self._transaction() as db:
            db.execute("UPDATE batch SET listed_at = ? WHERE id = ?", (_NEVER, batch.id))
        for file_id in filter(None, (batch.input_file_id, batch.output_file_id)):
            self.delete_file(file_id)

    def running(self) -> list[Batch]:
        """Return all batches that are not at their end, the one that is due first in front."""
        rows = self._rows("SELECT doc FROM batch WHERE due_at IS NOT NULL ORDER BY due_at, seq")
        return [_decode(row[0], Batch) for row in rows]

    def save(
        self, batch: Batch, *, files: Sequence[StoredFile] = (), tally: Tally | None = None
    ) -> bool:
        """Save a batch with all that came of its stage; False when another was first."""
        with self._transaction() as db:
            if not _update_batch(db, batch):
                return False
            for file in files:
                _insert_file(db, file)
            _save_tally(db, tally or Tally())
        return True

    def count_lines(self, lines: Iterable[tuple[int, int, str, str]]) -> None:
        """Keep what became of lines (batch's number, line, custom_id, outcome); may be repeated."""
        with self._transaction() as db:
            db.executemany("INSERT OR REPLACE INTO line VALUES (?, ?, ?, ?)", lines)

    def note_enqueued(self, model: str, tokens: int) -> None:
        """Keep the most tokens of a model that were ever enqueued at once."""
        with self._transaction() as db:
            db.execute(
                "INSERT INTO fullest VALUES (?, ?)"
                " ON CONFLICT (model) DO UPDATE SET tokens = max(tokens, excluded.tokens)",
                (model, tokens),
            )

    # --- scenario, rules, calls, clock ---

    def put_scenario(self, doc: bytes) -> int:
        """Make a scenario the current one; its rules have not struck yet."""
        with self._transaction() as db:
            cursor = db.execute("INSERT INTO scenario (doc) VALUES (?)", (doc,))
            return cursor.lastrowid or 0

    def scenario(self, generation: int | None = None) -> tuple[int, bytes] | None:
        """Return a scenario with its number; without one, the current."""
        rows = self._rows(
            "SELECT generation, doc FROM scenario WHERE ?1 IS NULL OR generation = ?1"
            " ORDER BY generation DESC LIMIT 1",
            generation,
        )
        return msgspec.convert(rows[0], tuple[int, bytes]) if rows else None

    def tally(self) -> Tally:
        """Return how often each rule fitted and struck."""
        rows = msgspec.convert(
            self._rows("SELECT rule, fitted, struck FROM tally"), list[tuple[str, int, int]]
        )
        return Tally({rule: Count(fitted, struck) for rule, fitted, struck in rows})

    def save_tally(self, tally: Tally) -> None:
        """Keep what changed in a tally."""
        if tally.changed:
            with self._transaction() as db:
                _save_tally(db, tally)

    def count_call(self, route: str, status: str) -> None:
        """Count one HTTP call."""
        with self._transaction() as db:
            db.execute(
                "INSERT INTO call VALUES (?, ?, 1)"
                " ON CONFLICT (route, status) DO UPDATE SET calls = calls + 1",
                (route, status),
            )

    def last_reading(self) -> Reading | None:
        """Return the clock as it was kept last."""
        rows = msgspec.convert(
            self._rows("SELECT sandbox, wall FROM clock"), list[tuple[float, float]]
        )
        return Reading(sandbox=rows[0][0], wall=rows[0][1]) if rows else None

    def keep_reading(self, reading: Reading) -> None:
        """Keep the clock for the next start."""
        with self._transaction() as db:
            db.execute(
                "INSERT OR REPLACE INTO clock VALUES (1, ?, ?)", (reading.sandbox, reading.wall)
            )

    def query(self, sql: str, *values: object) -> list[tuple[object, ...]]:
        """Return the rows of a question that the statistics and the receiver ask."""
        return self._rows(sql, *values)

    def change(self, sql: str, *values: object) -> None:
        """Carry out one statement, in a transaction of its own."""
        with self._transaction() as db:
            db.execute(sql, values)

    def reset(self) -> None:
        """Forget everything but the time."""
        with self._transaction() as db:
            for statement in _FORGET:
                db.execute(statement)
        for path in self.files.iterdir():
            path.unlink(missing_ok=True)


def new_file_id() -> str:
    """Return an id like ``file-8Xk…``."""
    return "file-" + "".join(secrets.choice(_LETTERS) for _ in range(22))


def new_batch_id() -> str:
    """Return an id like ``batch_68f0…``."""
    return f"batch_{secrets.token_hex(16)}"


def _lock(path: Path) -> IO[str]:
    file = path.open("w")
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError as error:
        file.close()
        raise FolderInUseError("another sandbox works in it") from error
    return file


def _decode(doc: object, kind: type[T]) -> T:
    return msgspec.json.decode(msgspec.convert(doc, bytes), type=kind)


def _insert_file(db: sqlite3.Connection, file: StoredFile) -> None:
    db.execute(
        "INSERT INTO file (id, purpose, expires_at, doc) VALUES (?, ?, ?, ?)",
        (file.id, file.purpose, file.expires_at, msgspec.json.encode(file)),
    )


def _update_batch(db: sqlite3.Connection, batch: Batch) -> bool:
    batch.version += 1
    cursor = db.execute(
        "UPDATE batch SET version = ?, status = ?, due_at = ?, doc = ? WHERE id = ? AND version = ?",
        (
            batch.version,
            batch.status,
            batch.due_at,
            msgspec.json.encode(batch),
            batch.id,
            batch.version - 1,
        ),
    )
    return cursor.rowcount == 1


def _save_tally(db: sqlite3.Connection, tally: Tally) -> None:
    db.executemany(
        "INSERT OR REPLACE INTO tally VALUES (?, ?, ?)",
        [(rule, count.fitted, count.struck) for rule, count in tally.changed.items()],
    )
