"""Crowd one lane of a running Batcher, disturb its provider, and check that every request ended right.

    BATCHER_ADMIN_PASSWORD=… make run         # in one terminal, without a provider key
    python -m benchmarks.crowded --url http://127.0.0.1:8000 --key bm_live_… --password …

The panel sets 300,000 enqueued tokens; 40 batches of mixed size and priority are posted for two lanes that share
them. The sandbox, whose clock runs fast, is silent for two hours of its time, lets two batches expire
with a part of their answers, refuses one for a single bad line, and bounces one as over its token limit. In the end each
request must have ended once and rightly, the sandbox must have answered each line once, and neither our
figures nor the sandbox's may ever have been above the limit. Prints a table; exit code 1 on any breach. Takes five
to fifteen minutes: a bounced batch waits for five, and what was being created when the provider fell silent is looked for for ten.
"""

from __future__ import annotations

import argparse
import json
import random
import sys
import threading
import time
import uuid
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Any

from benchmarks.crowd import Ended, Panel, Sandbox
from benchmarks.mixed import Api

_SAY = sys.stdout.write
_LIMIT = 300_000
_MODEL = "gpt-5-mini"
_ACCOUNT = "sandbox"
_BATCHES, _NEAR_LIMIT, _MIDDLING = 40, 6, 10
_LINE_TOKENS = 500
_TEXT = "All happy families are alike; each unhappy family is unhappy in its own way. Paid: 48.20. "
"""Our estimate of it is a little above what the sandbox counts, so its queue never overflows by honest error."""
_TEXT_TOKENS = 28
_POISON = "POISON"
_POISON_CODE = "invalid_value"
_OUTAGE_S = 7_200
_SPEED = 240.0
_DURATIONS = {"validating_s": 30, "in_progress_s": 900, "finalizing_s": 60, "cancelling_s": 30}
_JSON = {"content_type": "application/json"}


@dataclass(kw_only=True)
class Planned:
    """One batch that is to be made."""

    name: str
    lines: int
    priority: int
    endpoint: str
    key: str = ""
    """Its id at Batcher, once it is packed."""
    fate: str = ""
    """What is done to it: expire, bounce, poison, or nothing."""
    after_answers: int = 0
    started_s: float | None = None

    def custom_ids(self) -> list[str]:
        """Return the ids of its requests."""
        return [f"{self.name}-{number:04}" for number in range(self.lines)]


def planned(run: str, seed: int) -> list[Planned]:
    """Return 40 batches: six near the limit, ten middling, the rest small, in random order."""
    rng = random.Random(seed)  # noqa: S311  # a benchmark's sizes
    tokens = [rng.randrange(250_000, 285_000) for _ in range(_NEAR_LIMIT)]
    tokens += [rng.randrange(50_000, 120_000) for _ in range(_MIDDLING)]
    tokens += [rng.randrange(2_000, 15_000) for _ in range(_BATCHES - len(tokens))]
    rng.shuffle(tokens)
    made = [
        Planned(
            name=f"{run}-{number:02}",
            lines=size // _LINE_TOKENS,
            priority=rng.choice((-10, 0, 0, 0, 10)),
            endpoint=rng.choice(("/v1/responses", "/v1/chat/completions")),
        )
        for number, size in enumerate(tokens)
    ]
    by_size = sorted(made, key=lambda batch: batch.lines)
    for batch, fate in zip((by_size[-1], by_size[-8], by_size[-10], by_size[-9]),
                           ("expire", "expire", "bounce", "poison"), strict=True):  # fmt: skip
        batch.fate = fate
        batch.after_answers = batch.lines // 3 if fate == "expire" else 0
    return made


def _body(batch: Planned, custom_id: str, number: int) -> dict[str, Any]:
    is_bad = batch.fate == "poison" and number == batch.lines // 2
    text = f"{_POISON if is_bad else ''} {custom_id} {_TEXT * (_LINE_TOKENS // _TEXT_TOKENS)}"
    if batch.endpoint == "/v1/responses":
        return {"model": _MODEL, "input": text}
    return {"model": _MODEL, "messages": [{"role": "user", "content": text}]}


def _lines(batch: Planned) -> Iterator[bytes]:
    for number, custom_id in enumerate(batch.custom_ids()):
        yield (
            json.dumps(
                {
                    "custom_id": custom_id,
                    "url": batch.endpoint,
                    "method": "POST",
                    "body": _body(batch, custom_id, number),
                    "delivery_config": {"type": "none"},
                    "priority": batch.priority,
                    "max_wait_s": 3_600,
                }
            ).encode()
            + b"\n"
        )


@dataclass
class Watcher:
    """Asks again and again how much is reserved, and keeps the most that it saw."""

    api: Api
    most: int = 0
    looks: int = 0
    limits: set[int] = field(default_factory=set)
    done: threading.Event = field(default_factory=threading.Event)

    def start(self) -> None:
        """Begin to look, in a thread."""
        threading.Thread(target=self._look_on, daemon=True).start()

    def _look_on(self) -> None:
        while not self.done.wait(0.25):
            page = json.loads(self.api.call(f"/api/lanes?model={_MODEL}&account={_ACCOUNT}"))
            for lane in page["data"]:
                tokens = lane["figures"]["tokens"]
                self.most = max(self.most, tokens["used"])
                self.limits.add(tokens["limit"])
            self.looks += 1


class Drive:
    """One run against one server."""

    def __init__(self, options: argparse.Namespace) -> None:
        self._api = Api(options.url, options.key)
        self._sandbox = Sandbox(options.sandbox)
        self._panel = Panel(options.url, options.password)
        self._run = uuid.uuid4().hex[:8]
        self._seconds = options.seconds
        self._batches = planned(self._run, options.seed)
        self._watcher = Watcher(self._api)
        self._results: dict[str, list[dict[str, Any]]] = {}
        self._ended = Ended(options.url, options.key)
        self._figures: dict[str, object] = {}
        self._breaches: list[str] = []
        self._began = time.monotonic()

    def drive(self) -> bool:
        """Post, disturb, wait for the end, check; True when nothing was breached."""
        self._panel.limit_tokens(_MODEL, _LIMIT)
        self._post()
        self._sandbox.run_at(_SPEED)
        self._sandbox.play(self._scenario(bounces=True))
        self._watcher.start()
        self._steer("resume")
        self._say("the account is resumed")
        self._until("the bounced batch waits", lambda: bool(self._backed_off()))
        self._until("a third has been answered", lambda: self._pulled() > self._count // 3)
        self._outage()
        self._until("all have ended", lambda: self._pulled() >= self._count)
        self._until("", lambda: not self._open())
        self._watcher.done.set()
        self._check()
        self._tell()
        return not self._breaches

    @property
    def _count(self) -> int:
        return sum(batch.lines for batch in self._batches)

    def _post(self) -> None:
        """Make the batches one by one, while none of them may be started."""
        self._steer("pause")
        for batch in self._batches:
            self._api.call("/api/requests/bulk", b"".join(_lines(batch)))
            last = batch.custom_ids()[-1]
            self._until("", lambda last=last: bool(self._request(last)["batch"]))  # type: ignore[misc]
            batch.key = self._request(last)["batch"]
            self._api.call(f"/api/batches/{batch.key}/seal", b"{}", **_JSON)
        self._until("", lambda: self._count_in("waiting_for_capacity") >= _BATCHES)
        whole = sum(one["token_estimate"] for one in self._api.batches() if self._is_ours(one))
        self._say(f"{len(self._batches)} batches wait: {self._count:,} requests, {whole:,} tokens")
        self._figures["tokens in all"] = f"{whole:,}"

    def _steer(self, deed: str) -> None:
        reason = json.dumps({"reason": "a drive"}).encode()
        self._api.call(f"/api/accounts/{_ACCOUNT}/{deed}", reason, **_JSON)

    def _request(self, custom_id: str) -> dict[str, Any]:
        found: dict[str, Any] = json.loads(self._api.call(f"/api/requests/{custom_id}"))
        return found

    def _is_ours(self, shown: dict[str, Any]) -> bool:
        return shown["id"] in {batch.key for batch in self._batches}

    def _count_in(self, *states: str) -> int:
        return sum(one["state"] in states for one in self._api.batches() if self._is_ours(one))

    def _open(self) -> list[str]:
        return [b["id"] for b in self._api.batches() if b["state"] not in ("delivered", "failed")]

    def _backed_off(self) -> list[dict[str, Any]]:
        """Return the bounced batch while it waits for its next try."""
        key = next(batch.key for batch in self._batches if batch.fate == "bounce")
        shown = json.loads(self._api.call(f"/api/batches/{key}"))
        names = [moved["transition"] for moved in shown["transitions"]]
        return [shown] if "back_off" in names else []

    def _scenario(self, *, bounces: bool = False, is_silent: bool = False) -> dict[str, Any]:
        def keyed(batch: Planned) -> dict[str, Any]:
            return {"metadata": {"batcher_batch": batch.key}}

        fated = {
            fate: [batch for batch in self._batches if batch.fate == fate]
            for fate in ("expire", "bounce")
        }
        rules: list[dict[str, Any]] = [
            {"fault": "expire", "match": keyed(one), "after_answers": one.after_answers, "times": 1}
            for one in fated["expire"]
        ]
        rules.append(
            {"fault": "refuse_line", "match": {"body": _POISON}, "code": _POISON_CODE,
             "message": "the line is bad"}
        )  # fmt: skip
        if bounces:
            rules += [
                {"fault": "token_limit_exceeded", "match": keyed(one), "times": 1}
                for one in fated["bounce"]
            ]
        if is_silent:
            silent = {"route": ["files.*", "batches.*"]}
            rules.insert(
                0, {"fault": "http_error", "match": silent, "status": 503, "style": "html"}
            )
        limits = {"enqueued_tokens": {_MODEL: _LIMIT}}
        return {"durations": _DURATIONS, "limits": limits, "rules": rules}

    def _outage(self) -> None:
        """Let the provider be silent for two hours of its time; no batch may change its state."""
        self._until("", lambda: len(self._held()) > 0)
        self._sandbox.play(self._scenario(is_silent=True))
        silent_from, began = self._sandbox.now(), time.monotonic()
        time.sleep(3)  # what was under way when it fell silent comes to its end
        before = self._held()
        self._until("", lambda: self._sandbox.now() > silent_from + _OUTAGE_S)
        after = self._held()
        self._sandbox.play(self._scenario())
        self._figures["silent for"] = f"{time.monotonic() - began:.0f} s, two hours of its clock"
        self._figures["batches it held meanwhile"] = len(before)
        self._require(before == after, f"batches changed in the outage: {before} → {after}")
        self._say("the provider answers again")

    def _held(self) -> dict[str, str]:
        return {b["id"]: b["state"] for b in self._api.batches() if b["state"] == "processing"}

    def _pulled(self) -> int:
        """Pull what has ended; return how many requests of this run have."""
        more = True
        while more:
            results = self._ended.more()
            more = bool(results)
            for result in results:
                if result["custom_id"].startswith(self._run):
                    self._results.setdefault(result["custom_id"], []).append(result)
        return len(self._results)

    def _until(self, what: str, is_so: Callable[[], bool]) -> None:
        while not is_so():
            if time.monotonic() - self._began > self._seconds:
                self._tell()
                raise SystemExit(f"gave up waiting until {what or 'the next step'}")
            time.sleep(0.25)
        if what:
            self._say(what)

    def _require(self, is_so: bool, breach: str) -> None:  # noqa: FBT001  # reads like assert
        if not is_so:
            self._breaches.append(breach[:500])

    def _check(self) -> None:
        self._pulled()
        self._check_results()
        self._check_provider(self._sandbox.histories(), self._requests())
        self._check_room(self._sandbox.stats())

    def _check_results(self) -> None:
        wanted = {one for batch in self._batches for one in batch.custom_ids()}
        self._require(set(self._results) == wanted, "other requests ended than were posted")
        twice = [one for one, results in self._results.items() if len(results) != 1]
        self._require(not twice, f"ended more than once: {twice[:5]}")
        outcomes = Counter(results[0]["outcome"] for results in self._results.values())
        self._figures["outcomes"] = dict(outcomes)
        bad = next(batch for batch in self._batches if batch.fate == "poison")
        poison = bad.custom_ids()[bad.lines // 2]
        failed = {
            c: r[0]["error"] for c, r in self._results.items() if r[0]["outcome"] != "succeeded"
        }
        self._require(set(failed) == {poison}, f"failed: {failed}, and only {poison} should")
        code = (failed.get(poison) or {}).get("code")
        self._require(code == _POISON_CODE, f"the poison line failed as {code}")

    def _requests(self) -> dict[str, dict[str, Any]]:
        """Return the requests of this run by the id that the provider knows them by."""
        found, cursor = {}, ""
        while True:
            page = json.loads(
                self._api.call(f"/api/requests?q={self._run}&limit=100&cursor={cursor}")
            )
            found |= {one["id"]: one for one in page["data"]}
            cursor = page.get("next_cursor") or ""
            if not cursor:
                return found

    def _check_provider(
        self, seen: dict[str, list[str]], requests: dict[str, dict[str, Any]]
    ) -> None:
        """Each line is answered once; before that it may only have been left unanswered."""
        ours = {one: outcomes for one, outcomes in seen.items() if one in requests}
        wrong = {
            one: outcomes
            for one, outcomes in ours.items()
            if outcomes[-1] != "answered" or set(outcomes[:-1]) - {"expired"}
        }
        self._require(not wrong, f"lines that the provider saw wrongly: {list(wrong.items())[:3]}")
        self._require(
            len(ours) == len(requests) - 1, f"{len(ours):,} lines ran, all but one should"
        )
        expired = sum(outcomes.count("expired") for outcomes in ours.values())
        wanted = sum(b.lines - b.after_answers for b in self._batches if b.fate == "expire")
        self._require(expired == wanted, f"{expired:,} lines expired, not {wanted:,}")
        again = sum(one["attempt"] > 1 for one in requests.values())
        self._require(again == wanted, f"{again:,} requests were sent again, not {wanted:,}")
        self._figures["lines answered by the provider"] = f"{len(ours):,}, each once"
        self._figures["lines that expired and went again"] = f"{expired:,}"

    def _check_room(self, stats: dict[str, Any]) -> None:
        most = stats["most_enqueued_tokens"].get(_MODEL, 0)
        self._require(0 < self._watcher.most <= _LIMIT, f"reserved {self._watcher.most:,} tokens")
        self._require(0 < most <= _LIMIT, f"the provider had {most:,} tokens enqueued")
        by_status = stats["batches"]["by_status"]
        self._require(
            by_status.get("failed") == 2, f"the provider refused other batches: {by_status}"
        )
        self._require(by_status.get("expired") == 2, f"other batches expired: {by_status}")
        self._figures |= {
            "most tokens reserved, of 300,000": f"{self._watcher.most:,} in {self._watcher.looks:,} looks",
            "most tokens enqueued, the provider says": f"{most:,}",
            "limits in force meanwhile": ", ".join(f"{n:,}" for n in sorted(self._watcher.limits)),
            "batches at the provider": by_status,
            "calls": {
                route: sum(count for status, count in by.items() if status.startswith("2"))
                for route, by in stats["calls"].items()
            },
            "calls that it did not answer": sum(by.get("503", 0) for by in stats["calls"].values()),
        }

    def _tell(self) -> None:
        self._figures["took"] = f"{time.monotonic() - self._began:.0f} s"
        width = max(map(len, self._figures))
        for name, figure in self._figures.items():
            _SAY(f"  {name:<{width}}  {figure}\n")
        for breach in self._breaches:
            _SAY(f"BREACH  {breach}\n")
        if not self._breaches:
            _SAY("every request ended right\n")

    def _say(self, text: str) -> None:
        _SAY(f"{time.monotonic() - self._began:7.1f} s  {text}\n")
        sys.stdout.flush()


def main() -> None:
    """Read the command line and drive."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n", 1)[0])
    parser.add_argument("--url", default="http://127.0.0.1:8000")
    parser.add_argument("--sandbox", default="http://127.0.0.1:8001")
    parser.add_argument("--key", required=True)
    parser.add_argument("--password", required=True, help="of the user admin")
    parser.add_argument("--seed", type=int, default=5, help="of sizes and priorities")
    parser.add_argument("--seconds", type=float, default=1_800, help="give up after so long")
    sys.exit(0 if Drive(parser.parse_args()).drive() else 1)


if __name__ == "__main__":
    main()
