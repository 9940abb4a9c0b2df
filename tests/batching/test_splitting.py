"""A batch that is refused as a whole: its bad lines fail, and all others are answered."""

from __future__ import annotations

import json
from datetime import timedelta

import pytest

from batching import collection, submission
from batching.models import AuditEntry, Batch, Request
from batching.providers.base import RemoteError, Status, Trouble
from tests.batching.fake_provider import good, trouble
from tests.batching.rows import NOW, a_batch, a_lane, a_request, log_of

pytestmark = pytest.mark.django_db
MINUTE = timedelta(minutes=1)


@pytest.fixture(autouse=True)
def lane(settings):
    settings.BATCHER_MAX_SPLITS = 64
    return a_lane()


def sent(lane, count: int) -> list[Request]:
    """Return the requests of a sealed batch."""
    batch = a_batch(lane=lane, state="uploading", next_attempt_at=NOW)
    return [a_request(batch=batch) for _ in range(count)]


def lines_of(provider, remote) -> list[str]:
    return [
        json.loads(line)["custom_id"]
        for line in provider.files[remote.input_file_id][1].splitlines()
    ]


def judge(provider, bad: set[str], *, is_named: bool, code: str = "invalid_request") -> None:
    """Validate what is new at the provider: refuse a batch at its first bad line, answer any other."""
    for remote in list(provider.batches.values()):
        if remote.status is not Status.VALIDATING:
            continue
        keys = lines_of(provider, remote)
        wrong = [line for line, key in enumerate(keys, 1) if key in bad]
        if not wrong:
            provider.finish(remote.id, output=[good(key) for key in keys])
            continue
        error = RemoteError(code=code, message="no", line=wrong[0] if is_named else None)
        provider.say(remote.id, status=Status.FAILED, raw_status="failed", errors=(error,))


def drive(provider, bad: list[Request], *, is_named: bool, minutes: int = 40, **how) -> None:
    keys = {request.key for request in bad}
    for minute in range(minutes):
        now = NOW + minute * MINUTE
        submission.upload_due(now)
        submission.submit_due(now)
        judge(provider, keys, is_named=is_named, **how)
        collection.poll_due(now)
        collection.collect_due(now)


def ends(requests: list[Request]) -> list[str]:
    rows = Request.objects.filter(pk__in=[r.pk for r in requests]).order_by("pk")
    return list(rows.values_list("state", flat=True))


@pytest.mark.parametrize("is_named", [True, False])
@pytest.mark.parametrize("places", [(0,), (6,), (3, 4), (0, 3, 6)])
def test_only_the_bad_lines_fail(provider, lane, is_named, places):
    requests = sent(lane, 7)

    drive(provider, [requests[n] for n in places], is_named=is_named)

    assert ends(requests) == ["failed" if n in places else "processed" for n in range(7)]
    failed = Request.objects.filter(state="failed").values_list("error_code", "attempt")
    assert set(failed) == {("invalid_request", 1)}


def test_every_step_is_told(provider, lane):
    requests = sent(lane, 3)
    first = requests[0].batch

    drive(provider, requests[1:2], is_named=True)

    part = Batch.objects.exclude(pk=first.pk).get()
    assert part.origin == first
    said = f"round 1 of 64: failed 1 (line 2) and sent the rest again as {part} (2 requests)"
    assert Batch.objects.get(pk=first.pk).last_error.endswith(said)
    assert log_of(first)[-1][1:3] == ("fail", "failed")
    assert log_of(part)[0][:3] == (None, "accept", "uploading")
    assert f"part of {first}: the provider refused it: invalid_request" in log_of(part)[0][4]
    assert [step[1] for step in log_of(requests[0])] == [
        *("submitted", "requeue", "submitted", "answered")
    ]
    assert AuditEntry.objects.get(action="batch.split").object_key == first.key


def test_parts_keep_the_place_of_the_whole(provider, lane):
    requests = sent(lane, 3)
    place = {"priority": 7, "is_priority_set": True, "rank": 5, "overtaken": 2}
    Batch.objects.update(**place)

    drive(provider, requests[1:2], is_named=False)

    assert list(Batch.objects.exclude(origin=None).values(*place).distinct()) == [place]


def test_what_had_ended_before_is_not_touched(provider, lane):
    requests = sent(lane, 4)
    submission.upload_due(NOW)
    submission.submit_due(NOW)
    Request.objects.filter(pk=requests[0].pk).update(state="delivered")

    drive(provider, requests[2:3], is_named=True)

    assert ends(requests) == ["delivered", "processed", "failed", "processed"]


def test_rounds_are_counted_over_all_parts_and_end(provider, lane, settings):
    settings.BATCHER_MAX_SPLITS = 3
    requests = sent(lane, 16)

    drive(provider, requests, is_named=False)

    assert set(ends(requests)) == {"failed"}
    assert Batch.objects.get(origin=None).splits == 3
    assert len(provider.batches) == 1 + 2 * 3
    assert Batch.objects.filter(last_error__contains="taken apart 3 times").exists()


@pytest.mark.parametrize("code", ["model_not_found", "billing_hard_limit_reached"])
def test_what_is_wrong_with_all_is_not_looked_for_in_parts(provider, lane, code):
    requests = sent(lane, 4)

    drive(provider, requests, is_named=True, code=code)

    assert set(ends(requests)) == {"failed"}
    assert len(provider.batches) == Batch.objects.count() == 1
    assert set(Request.objects.values_list("error_code", flat=True)) == {code}


def test_trouble_that_may_pass_sends_all_again_later(provider, lane):
    requests = sent(lane, 3)
    submission.upload_due(NOW)
    submission.submit_due(NOW)
    provider.refuse_batch("batch_2", "internal_error")

    collection.poll_due(NOW + MINUTE)

    part = Batch.objects.exclude(origin=None).get()
    assert (part.state, part.request_count) == ("uploading", 3)
    assert part.next_attempt_at > NOW + MINUTE
    assert ends(requests) == ["pending"] * 3


def test_a_call_that_carries_the_lines_is_taken_apart_too(provider, lane, monkeypatch):
    monkeypatch.setattr(submission, "TakesFiles", type(None))  # it is given no file
    requests = sent(lane, 4)
    provider.refuse("create", trouble(Trouble.REFUSED, "too large", status=413))

    submission.upload_due(NOW)
    submission.submit_due(NOW)

    halves = Batch.objects.exclude(origin=None)
    assert sorted(halves.values_list("request_count", flat=True)) == [2, 2]
    assert ends(requests) == ["pending"] * 4


def test_an_upload_refused_for_its_content_is_taken_apart(provider, lane):
    sent(lane, 4)
    provider.refuse("upload", trouble(Trouble.REFUSED, "line 2", status=400), times=6)

    for minute in range(0, 60, 10):
        submission.upload_due(NOW + minute * MINUTE)

    assert Batch.objects.get(origin=None).state == "failed"
    assert Batch.objects.filter(origin=None).get().splits == 2
    assert provider.count("upload") == 6 + 3


class Killed(BaseException):
    """What kill -9 looks like from inside: nothing below catches it."""


def test_a_batch_that_kills_its_workers_is_taken_apart(provider, lane, settings, monkeypatch):
    settings.BATCHER_MAX_WORKER_DEATHS = 2
    requests = sent(lane, 4)
    deadly, real = requests[2].key, provider.render_line

    def render(*, custom_id, **how):
        if custom_id == deadly:
            raise Killed
        return real(custom_id=custom_id, **how)

    monkeypatch.setattr(provider, "render_line", render)
    for minute in range(120):
        try:
            submission.upload_due(NOW + minute * MINUTE)
        except Killed:
            continue
    drive(provider, [], is_named=True, minutes=122)

    assert ends(requests) == ["processed", "processed", "failed", "processed"]
    last = Request.objects.get(pk=requests[2].pk)
    assert "2 workers in a row died over its file" in last.error_message


def test_a_step_that_ends_forgets_the_dead(provider, lane):
    sent(lane, 1)
    Batch.objects.update(deaths=3)

    submission.upload_due(NOW)

    assert Batch.objects.get().deaths == 0
