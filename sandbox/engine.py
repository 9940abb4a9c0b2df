"""What happens to batches as time passes: finds the stage that is due, does its work, saves it.

Work is done in one thread, so that calls are answered meanwhile. Each stage is worked out from the
stored batch and saved in one transaction together with all that came of it; when a cancellation
was saved in between, the work is thrown away and the batch looked at anew. A killed sandbox
therefore goes on where it was. The stages themselves are in lifecycle.py.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import TypeVar

from sandbox import lifecycle
from sandbox.clock import Clock
from sandbox.errors import is_anthropic
from sandbox.faults import BatchRule, NoOutput
from sandbox.lines import StoppedError, Validation, Validator
from sandbox.objects import Batch, BatchError, StoredFile
from sandbox.results import ResultWriter
from sandbox.rules import RuleBook, Tally
from sandbox.scenario import parse
from sandbox.store import REQUESTS, Store, new_file_id
from sandbox.webhooks import Webhooks

logger = logging.getLogger(__name__)
T = TypeVar("T")

OUTPUT_KEPT_S = 30 * 24 * 60 * 60
_LONGEST_REST_S = 0.5
_TIDY_EVERY_S = 10.0


class Engine:
    """Moves the batches of one data folder on."""

    def __init__(self, store: Store, clock: Clock, seed: int) -> None:
        self.store = store
        self.clock = clock
        self.seed = seed
        self._books: dict[int, RuleBook] = {}
        self._thread = ThreadPoolExecutor(max_workers=1, thread_name_prefix="batches")
        self._stop = threading.Event()
        self._bell = asyncio.Event()
        self._webhooks = Webhooks()
        self.task: asyncio.Task[None] | None = None
        """Runs until close(); when it ends before that, the sandbox is broken."""

    def start(self) -> None:
        """Begin to move batches, those of the last run too."""
        self.store.remove_strays()
        self.task = asyncio.create_task(self._run())

    async def close(self) -> None:
        """Stop at the next line; what was begun is done again after the next start."""
        self._stop.set()
        if self.task is not None:
            self.task.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await self.task
        await self._webhooks.close()
        self._thread.shutdown()
        self.store.keep_reading(self.clock.reading())

    def wake(self) -> None:
        """Look at once for what is due."""
        self._bell.set()

    async def in_thread(self, work: Callable[[], T]) -> T:
        """Do some work between two stages, never beside one."""
        return await asyncio.get_running_loop().run_in_executor(self._thread, work)

    def book(self, generation: int | None = None) -> RuleBook:
        """Return the rules of a scenario; without a number, of the current one."""
        if generation is not None and generation in self._books:
            return self._books[generation]
        stored = self.store.scenario(generation)
        number, doc = stored if stored is not None else (0, b"{}")
        if number not in self._books:
            self._books[number] = RuleBook(number, parse(doc), self.seed)
        return self._books[number]

    def faults(self, batch: Batch) -> list[BatchRule]:
        """Return the rules that strike a batch."""
        return self.book(batch.generation).batch_faults(batch.drawn)

    async def _run(self) -> None:
        tidied = 0.0
        while True:
            self._bell.clear()
            rest = await self.in_thread(self._move_due)
            self._webhooks.send()
            now = asyncio.get_running_loop().time()
            if now - tidied > _TIDY_EVERY_S:
                tidied = now
                await self.in_thread(self._tidy)
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(self._bell.wait(), rest)

    def _move_due(self) -> float:
        """Move each batch that is due one stage on; return how many real seconds may pass now."""
        now = self.clock.now()
        for batch in self.store.running():
            if self._stop.is_set() or batch.due_at is None or batch.due_at > now:
                break
            self._move(batch)
        first = next(iter(self.store.running()), None)
        if first is None or first.due_at is None:
            return _LONGEST_REST_S
        rest = self.clock.real_seconds(first.due_at - self.clock.now())
        return min(max(rest, 0.0), _LONGEST_REST_S)

    def _tidy(self) -> None:
        self.store.sweep(self.clock.now())
        self.store.keep_reading(self.clock.reading())

    def _move(self, batch: Batch) -> None:
        stage = {"validating": self._validate, "in_progress": self._finalize}
        try:
            stage.get(batch.status, self._end)(batch)
        except StoppedError:
            return
        except Exception:
            # One batch that can't be worked on must not stop all others: it fails, in plain sight.
            logger.exception("batch can't be moved on", extra={"batch": batch.id})
            error = BatchError(code="internal_error", message="The sandbox failed; see its log.")
            lifecycle.refuse(batch, error)
            self.store.save(batch)

    def _validate(self, batch: Batch) -> None:
        book, faults, tally = self.book(batch.generation), self.faults(batch), self.store.tally()
        found, error = self._look(batch, book, faults, tally)
        batch.model = found.model
        if error is not None:
            lifecycle.refuse(batch, error)
        else:
            durations = lifecycle.durations_for(book.scenario.durations, faults)
            lifecycle.begin(batch, found, durations, faults)
            model = found.model or ""
            self.store.note_enqueued(model, self._enqueued(model) + found.tokens)
        self._save(batch, tally=tally)

    def _look(
        self, batch: Batch, book: RuleBook, faults: list[BatchRule], tally: Tally
    ) -> tuple[Validation, BatchError | None]:
        """Return what is in a batch, and why it fails; a message batch never fails as a whole."""
        if is_anthropic(batch.endpoint):
            return Validation(total=batch.total, model=batch.model, tokens=batch.tokens), None
        found = self._read_input(batch, book, tally)
        return found, found.error or self._refusal(batch, found, book, faults)

    def _read_input(self, batch: Batch, book: RuleBook, tally: Tally) -> Validation:
        path = self.store.path(batch.input_file_id)
        file = self.store.file(batch.input_file_id, batch.created_at)
        if file is None or file.purpose != "batch" or not path.exists():
            return Validation(error=_no_input(batch.input_file_id))
        limit = book.scenario.limits.file_bytes
        if file.size_bytes > limit:
            message = f"The batch input file is larger than the {limit} maximum."
            return Validation(error=BatchError(code="invalid_request", message=message))
        validator = Validator(
            endpoint=batch.endpoint,
            book=book,
            tally=tally,
            metadata=batch.metadata,
            stop=self._stop,
        )
        return validator.validate(path)

    def _refusal(
        self, batch: Batch, found: Validation, book: RuleBook, faults: list[BatchRule]
    ) -> BatchError | None:
        model = found.model or ""
        if error := lifecycle.imposed_error(faults, model):
            return error
        limit = book.token_limit(model)
        if limit is not None and self._enqueued(model) + found.tokens > limit:
            return lifecycle.queue_full(model, limit)
        return None

    def _enqueued(self, model: str) -> int:
        """Return the tokens of the model's batches that have been validated and have not ended."""
        return sum(other.tokens for other in self.store.running() if other.model == model)

    def _finalize(self, batch: Batch) -> None:
        durations = self.book(batch.generation).scenario.durations
        lifecycle.finalize(batch, lifecycle.durations_for(durations, self.faults(batch)))
        self._save(batch)

    def _end(self, batch: Batch) -> None:
        if not batch.total:  # cancelled before it was validated: there is nothing to say of lines
            lifecycle.end(batch, completed=0, failed=0, usage=None)
            self._save(batch)
            return
        tally = self.store.tally()
        writer = ResultWriter(
            batch=batch,
            book=self.book(batch.generation),
            tally=tally,
            seed=self.seed,
            now=batch.due_at or batch.created_at,
            stop=self._stop,
            keep=self.store.count_lines,
        )
        parts = [self.store.path(f"{batch.id}.{name}.part") for name in ("output", "error")]
        results = writer.write(self.store.path(batch.input_file_id), *parts)
        has_files = not any(isinstance(fault, NoOutput) for fault in self.faults(batch))
        output, errors = (self._adopt(batch, part, keep=has_files) for part in parts)
        batch.output_file_id = output.id if output else None
        batch.error_file_id = errors.id if errors else None
        lifecycle.end(
            batch, completed=results.completed, failed=results.failed, usage=results.usage
        )
        self._save(batch, files=[file for file in (output, errors) if file], tally=tally)

    def _adopt(self, batch: Batch, part: Path, *, keep: bool) -> StoredFile | None:
        """Turn a written file into one of the provider's; an empty one is no file at all."""
        size = part.stat().st_size
        if not size or not keep:
            part.unlink()
            return None
        kind = part.name.split(".")[1]
        created_at = batch.due_at or batch.created_at
        file = StoredFile(
            id=new_file_id(),
            filename=f"{batch.id}_{kind}.jsonl",
            purpose=REQUESTS if is_anthropic(batch.endpoint) else "batch_output",
            size_bytes=size,
            created_at=created_at,
            expires_at=created_at + (batch.output_expires_after_s or OUTPUT_KEPT_S),
        )
        part.rename(self.store.path(file.id))
        return file

    def _save(
        self, batch: Batch, *, files: list[StoredFile] | None = None, tally: Tally | None = None
    ) -> None:
        if self.store.save(batch, files=files or [], tally=tally):
            self.store.keep_reading(self.clock.reading())
            self._webhooks.note(batch, self.book().scenario.webhook)
            logger.info("batch moved", extra={"batch": batch.id, "status": batch.status})
            return
        for file in files or []:
            self.store.path(file.id).unlink(missing_ok=True)


def _no_input(file_id: str) -> BatchError:
    return BatchError(
        code="invalid_request",
        message=f"The input file '{file_id}' was not found or can't be used for batches.",
        param="file_id",
    )
