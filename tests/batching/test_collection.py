"""What the provider hands back becomes the end of each request, once."""

from __future__ import annotations

from datetime import timedelta

import pytest
from django.db.models import F

from batching import collection, settling
from batching.models import Answer, Batch, Request
from batching.providers.base import Counts, RemoteError, Status, Trouble, Usage
from tests.batching.fake_provider import bad, broken, good, not_run, trouble
from tests.batching.rows import (
    NOW,
    a_batch,
    a_batch_at_provider,
    a_destination,
    a_lane,
    a_request,
    log_of,
    states_of,
)

pytestmark = pytest.mark.django_db

MINUTE = timedelta(minutes=1)


@pytest.fixture
def batch(provider):
    return a_batch_at_provider(provider)[0]


@pytest.fixture
def requests(batch):
    return list(batch.requests.order_by("pk"))


@pytest.fixture
def keys(requests):
    return [r.key for r in requests]


def again(row):
    return type(row).objects.get(pk=row.pk)


def collect(provider, batch, *, at=NOW, **finish):
    """Let the provider finish the batch, see it, and settle its files."""
    provider.finish(batch.provider_batch_id, **finish)
    Batch.objects.update(next_attempt_at=NOW)
    collection.poll_due(at)
    collection.collect_due(at)
    return again(batch)


def test_each_request_gets_its_answer_whatever_the_order(batch, requests, keys, provider):
    lines = [good(key, text) for key, text in zip(keys, "abc", strict=True)]

    batch = collect(provider, batch, output=[lines[2], lines[0], lines[1]])

    assert (batch.state, batch.next_attempt_at) == ("delivering", NOW)
    assert states_of(*requests) == ["processed"] * 3
    assert [bytes(Answer.objects.get(request=r).line) for r in requests] == lines
    answer = Answer.objects.first()
    assert (answer.status_code, answer.input_tokens, answer.output_tokens) == (200, 3, 5)


def test_what_answers_cost_is_on_their_requests_and_together_on_the_batch(provider):
    lane = a_lane("gpt-4o-mini")
    batch, requests = a_batch_at_provider(provider, lane=lane)
    Request.objects.filter(pk=requests[1].pk).update(cost_nano=1_000)  # of an earlier attempt

    collect(provider, batch, output=[good(r.key) for r in requests[:2]] + [bad(requests[2].key)])

    each = 3 * 75 + 5 * 300  # $ 0.15 and $ 0.60 a million tokens, half of it in batches
    assert [again(r).cost_nano for r in requests] == [each, each + 1_000, None]
    assert again(batch).cost_nano == 2 * each


def test_results_with_a_destination_are_due_at_once_and_others_wait_to_be_pulled(
    batch, requests, keys, provider
):
    Request.objects.filter(pk=requests[0].pk).update(destination=a_destination())

    collect(provider, batch, output=[good(keys[0]), good(keys[1]), bad(keys[2])])

    assert [again(r).due_at for r in requests] == [NOW, None, None]
    assert all(again(r).settled_at for r in requests)


def test_an_error_is_kept_with_its_code_and_its_line(batch, requests, keys, provider):
    batch = collect(
        provider, batch, output=[good(keys[0]), bad(keys[1])], errors=[bad(keys[2], code="rude")]
    )

    assert batch.state == "delivering"
    assert states_of(*requests) == ["processed", "failed", "failed"]
    rude = again(requests[2])
    assert (rude.error_code, rude.error_message) == ("rude", "said rude")
    assert bytes(rude.answers.get().line) == bad(keys[2], code="rude")


@pytest.mark.parametrize("where", ["output", "errors"])
@pytest.mark.parametrize("line", [broken, not_run], ids=["server-error", "not-run"])
def test_what_may_go_better_is_sent_again(batch, requests, keys, provider, where, line):
    lines = {"output": [good(keys[0]), good(keys[1])], "errors": []}
    lines[where].append(line(keys[2]))

    batch = collect(provider, batch, **lines, counts=Counts(total=3, completed=2, failed=1))

    request = again(requests[2])
    assert batch.state == "delivering"
    assert (request.state, request.attempt, request.batch, request.error_code) == (
        "pending", 2, None, "",
    )  # fmt: skip
    assert request in Request.objects.unpacked()


def test_a_request_is_sent_five_times_and_then_fails_with_its_last_error(
    batch, requests, keys, provider
):
    Request.objects.filter(pk=requests[0].pk).update(attempt=4)
    Request.objects.filter(pk=requests[1].pk).update(attempt=5)

    collect(provider, batch, output=[broken(keys[0]), broken(keys[1]), good(keys[2])])

    assert states_of(*requests) == ["pending", "failed", "processed"]
    assert again(requests[1]).error_code == "server_error"


@pytest.mark.parametrize(
    "line",
    [
        b"not json",
        b"[]",
        b'{"custom_id":7}',
        b'{"id":"x"}',
        good("req_unknown"),
        b'{"custom_id":"\\u0000"}',
        good("req_" + "0123456789abcdef" * 1000),
    ],
    ids=["no-json", "no-object", "number", "no-id", "unknown", "nul", "long"],
)
def test_a_line_of_nobody_is_counted_and_changes_nothing(batch, requests, keys, provider, line):
    lines = [good(keys[0]), line, good(keys[1]), b"", good(keys[2])]

    batch = collect(provider, batch, output=lines)

    assert (batch.state, batch.ignored_lines) == ("delivering", 1)
    assert states_of(*requests) == ["processed"] * 3
    assert Answer.objects.count() == 3


def test_lines_of_nobody_are_counted_once_though_the_file_is_read_twice(batch, keys, provider):
    collect(provider, batch, output=[b"junk", good(keys[0])])

    collection.collect_due(NOW + MINUTE)

    assert again(batch).ignored_lines == 1


def test_a_line_for_a_request_of_another_batch_is_not_applied(batch, keys, provider):
    other = a_request(batch=a_batch(state="processing"), state="processing")

    collect(provider, batch, output=[*map(good, keys), good(other.key)])

    assert states_of(other) == ["processing"]
    assert not other.answers.exists()


@pytest.mark.parametrize("second", [good, bad], ids=["another-answer", "an-error"])
@pytest.mark.parametrize("where", ["same-chunk", "next-chunk", "error-file"])
def test_of_two_lines_of_one_request_the_first_wins(
    batch, keys, provider, monkeypatch, caplog, second, where
):
    first, other = good(keys[0], "first"), second(keys[0])
    rest = [good(keys[1]), good(keys[2])]
    if where == "next-chunk":
        monkeypatch.setattr(settling, "_CHUNK_LINES", 1)
    files = {"output": [first, *rest, other]}
    if where == "error-file":
        files = {"output": [first, *rest], "errors": [other]}

    collect(provider, batch, **files)

    answer = Answer.objects.get(request__key=keys[0])
    assert bytes(answer.line) == first
    assert states_of(answer.request) == ["processed"]
    assert "answers contradict each other, the first counts" in caplog.messages


def test_the_same_line_twice_is_no_contradiction(batch, keys, provider, caplog):
    lines = [*map(good, keys)]

    collect(provider, batch, output=[*lines, lines[0]], errors=[lines[1]])

    assert caplog.messages == []
    assert Answer.objects.count() == 3


def test_figures_beyond_any_measure_do_not_stop_the_others(batch, requests, keys, provider):
    huge = b"9" * 30
    lines = [
        good(keys[0]).replace(b'"status_code":200', b'"status_code":' + huge),
        good(keys[1]).replace(b'"input_tokens":3', b'"input_tokens":' + huge),
        good(keys[2]).replace(b'"output_tokens":5', b'"output_tokens":-1'),
    ]

    collect(provider, batch, output=lines)

    assert states_of(*requests) == ["failed", "processed", "processed"]
    assert [bytes(a.line) for a in Answer.objects.order_by("request")] == lines


def test_an_answer_is_stored_byte_for_byte(batch, keys, provider):
    lines = [
        good(keys[0], "NUL \0, line \u2028 and \u0085"),
        good(keys[1]).replace(b"yes", b"alone \\ud800"),
        good(keys[2]).replace(b"yes", "raw \u2028 \u0085 \x7f é".encode() + b"x" * 20_000_000),
    ]

    batch = collect(provider, batch, output=lines)

    assert batch.state == "delivering"
    assert [bytes(a.line) for a in Answer.objects.order_by("request")] == lines


def test_error_texts_no_database_takes_are_made_harmless(batch, requests, keys, provider):
    nasty = bad(keys[0]).replace(b"said invalid_request", b"a\\u0000b\\ud800")

    collect(provider, batch, output=[nasty, good(keys[1]), good(keys[2])])

    assert states_of(*requests) == ["failed", "processed", "processed"]
    assert bytes(again(requests[0]).answers.get().line) == nasty


def test_a_batch_that_failed_throughout_failed(batch, requests, keys, provider):
    batch = collect(provider, batch, errors=[bad(key) for key in keys])

    assert (batch.state, batch.last_error) == ("failed", "All requests in batch failed")
    assert (batch.failed_count, batch.answered_count, batch.next_attempt_at) == (3, 0, None)


def test_a_batch_of_which_nothing_is_left_goes_on(batch, requests, keys, provider):
    batch = collect(provider, batch, status=Status.EXPIRED, errors=[not_run(key) for key in keys])

    assert batch.state == "delivering"
    assert {(r.state, r.attempt, r.batch) for r in map(again, requests)} == {("pending", 2, None)}


def test_usage_of_the_whole_batch_is_kept_and_may_be_partial(batch, keys, provider):
    batch = collect(provider, batch, output=[*map(good, keys)], usage=Usage(input_tokens=9))

    assert (batch.input_tokens, batch.output_tokens) == (9, None)


# Missing answers


def test_missing_answers_are_looked_for_once_more_and_then_given_up(
    batch, requests, keys, provider
):
    batch = collect(provider, batch, output=[good(keys[0])])
    assert (batch.state, batch.missing_looks) == ("downloading", 1)
    assert batch.last_error.startswith("2 answers are missing")

    collection.collect_due(NOW + MINUTE)

    assert provider.count("download") == 2
    assert again(batch).state == "delivering"
    assert states_of(*requests) == ["processed", "failed", "failed"]
    assert again(requests[1]).error_code == "missing_in_output"


def test_an_answer_that_turns_up_at_the_second_look_counts(batch, requests, keys, provider):
    batch = collect(provider, batch, output=[good(keys[0])])
    whole = b"\n".join(map(good, keys))
    provider.files[batch.output_file_id] = ("output.jsonl", whole)

    collection.collect_due(NOW + MINUTE)

    assert states_of(*requests) == ["processed"] * 3


def test_a_completed_batch_without_any_file_is_given_up_in_the_same_way(batch, requests, provider):
    collect(provider, batch)
    collection.collect_due(NOW + MINUTE)

    assert again(batch).state == "failed"
    assert states_of(*requests) == ["failed"] * 3


# Expired and cancelled


def test_a_file_that_is_not_there_is_looked_for_and_then_given_up(batch, requests, keys, provider):
    provider.finish(batch.provider_batch_id, output=map(good, keys[:1]), errors=[bad(keys[1])])
    provider.files.pop(provider.only_batch().output_file_id)

    for minute in range(0, 21, 3):
        collect_at(minute)
    assert states_of(*requests) == ["processing", "failed", "processing"]
    assert "no longer has all of the batch's answers" in Batch.objects.get().last_error
    for minute in range(24, 60, 6):
        collect_at(minute)

    codes = Request.objects.order_by("pk").values_list("error_code", flat=True)
    assert list(codes) == ["missing_in_output", "invalid_request", "missing_in_output"]


def collect_at(minute: int) -> None:
    collection.poll_due(NOW + timedelta(minutes=minute))
    collection.collect_due(NOW + timedelta(minutes=minute))


def test_a_file_that_turns_up_late_counts(batch, requests, keys, provider):
    provider.finish(batch.provider_batch_id, output=map(good, keys))
    file_id = provider.only_batch().output_file_id
    late = provider.files.pop(file_id)
    collect_at(0)
    provider.files[file_id] = late

    collect_at(5)

    assert states_of(*requests) == ["processed"] * 3


def test_a_lost_file_of_an_expired_batch_is_not_bought_again(batch, requests, keys, provider):
    provider.finish(batch.provider_batch_id, status=Status.EXPIRED, output=map(good, keys[:2]))
    provider.files.clear()

    for minute in range(0, 60, 6):
        collect_at(minute)

    assert states_of(*requests) == ["failed"] * 3


def test_answers_of_a_batch_that_failed_half_way_count(batch, requests, keys, provider):
    provider.finish(batch.provider_batch_id, status=Status.FAILED, output=map(good, keys[:2]))

    collect_at(0)

    assert states_of(*requests) == ["processed", "processed", "pending"]
    assert Request.objects.get(pk=requests[2].pk).attempt == 2


def test_an_empty_error_file_does_not_make_a_refused_batch_one_that_ran(batch, requests, provider):
    errors = (RemoteError(code="invalid_request", message="no", line=1),)
    provider.finish(batch.provider_batch_id, status=Status.FAILED, errors=[])
    provider.say(batch.provider_batch_id, errors=errors)

    collect_at(0)

    assert states_of(*requests) == ["failed", "pending", "pending"]


@pytest.mark.parametrize("status", [Status.EXPIRED, Status.CANCELLED])
def test_a_batch_that_ended_early_keeps_its_answers_and_sends_the_rest_again(
    batch, requests, keys, provider, status
):
    batch = collect(provider, batch, status=status, output=[good(keys[0])])

    assert batch.state == "delivering"
    assert states_of(*requests) == ["processed", "pending", "pending"]
    assert [again(r).attempt for r in requests] == [1, 2, 2]


@pytest.mark.parametrize("status", [Status.EXPIRED, Status.CANCELLED])
def test_a_batch_that_ended_early_without_an_answer_sends_everything_again(
    batch, requests, provider, status
):
    batch = collect(provider, batch, status=status)

    assert (batch.state, batch.next_attempt_at) == (status.value, None)
    assert {(r.state, r.attempt, r.batch) for r in map(again, requests)} == {("pending", 2, None)}


def test_a_request_that_expired_too_often_expires(batch, requests, keys, provider):
    Request.objects.update(attempt=5)

    collect(provider, batch, status=Status.EXPIRED, output=[good(keys[0])])

    assert states_of(*requests) == ["processed", "expired", "expired"]
    assert again(requests[1]).error_code == "batch_expired"


@pytest.mark.parametrize("told", [True, False], ids=["lines-say-so", "no-lines"])
def test_a_batch_that_someone_cancelled_keeps_its_answers_and_sends_nothing_again(
    batch, requests, keys, provider, told
):
    Batch.objects.update(state="cancelling", cancel_asked=True)
    unrun = [not_run(key, "batch_cancelled") for key in keys[1:]] if told else []

    batch = collect(provider, batch, status=Status.CANCELLED, output=[good(keys[0])], errors=unrun)

    assert batch.state == "delivering"
    assert states_of(*requests) == ["processed", "cancelled", "cancelled"]


# Crashes and repetitions


class Killed(BaseException):
    """What kill -9 looks like from inside: nothing below catches it."""


def killed_at_chunk(number, monkeypatch):
    """Make chunks of one line each, and let the worker die at this one, once."""
    monkeypatch.setattr(settling, "_CHUNK_LINES", 1)
    settle, chunks = settling.settle, []

    def deadly(*arguments):
        chunks.append(arguments)
        if len(chunks) == number:
            raise Killed
        return settle(*arguments)

    monkeypatch.setattr(settling, "settle", deadly)


def test_a_crash_amid_the_chunks_loses_nothing_and_repeats_nothing(
    batch, requests, keys, provider, monkeypatch
):
    killed_at_chunk(3, monkeypatch)
    with pytest.raises(Killed):
        collect(provider, batch, output=[good(keys[0]), broken(keys[1]), good(keys[2])])
    assert states_of(*requests) == ["processed", "pending", "processing"]

    collection.collect_due(NOW + timedelta(minutes=11))

    assert states_of(*requests) == ["processed", "pending", "processed"]
    assert [len(log_of(r)) for r in requests] == [1, 1, 1]
    assert provider.count("download") == 1
    assert again(batch).state == "delivering"


def test_files_are_removed_when_all_is_settled(batch, keys, provider, data_dir):
    collect(provider, batch, output=[*map(good, keys[:2])], errors=[bad(keys[2])])

    assert list((data_dir / "answers").iterdir()) == []


def test_a_file_left_by_an_earlier_run_is_not_taken_for_this_ones(batch, keys, provider, data_dir):
    old = settling.answer_path(batch, "file_of_an_earlier_run")
    old.parent.mkdir()
    old.write_bytes(b"\n".join(map(bad, keys)))

    batch = collect(provider, batch, output=[*map(good, keys)])

    assert batch.state == "delivering"
    assert set(Request.objects.values_list("state", flat=True)) == {"processed"}


def test_a_download_that_broke_off_is_tried_again(batch, requests, keys, provider):
    provider.refuse("download", trouble(Trouble.RETRY, "fewer bytes than announced"))
    batch = collect(provider, batch, output=[*map(good, keys)])
    assert (batch.state, batch.tries) == ("downloading", 1)

    collection.collect_due(NOW + MINUTE)

    assert states_of(*requests) == ["processed"] * 3
    assert (again(batch).tries, again(batch).last_error) == (0, "")


def test_a_worker_that_lost_its_claim_settles_nothing_more(
    batch, requests, keys, provider, monkeypatch
):
    monkeypatch.setattr(settling, "_CHUNK_LINES", 1)
    settle = settling.settle

    def then_overtaken(*arguments):
        done = settle(*arguments)
        Batch.objects.update(fence=F("fence") + 1)
        return done

    monkeypatch.setattr(settling, "settle", then_overtaken)
    collect(provider, batch, output=[*map(good, keys)])

    assert states_of(*requests) == ["processed", "processing", "processing"]


def test_collecting_twice_is_collecting_once(batch, requests, keys, provider):
    collect(provider, batch, output=[*map(good, keys)])

    assert collection.collect_due(NOW + timedelta(days=1)) == 0

    assert Answer.objects.count() == 3


def test_a_provider_that_did_not_hear_the_cancel_is_asked_again(batch, provider):
    Batch.objects.update(state="cancelling", cancel_asked=True, next_attempt_at=NOW)
    provider.say(batch.provider_batch_id, status=Status.IN_PROGRESS)

    collection.poll_due(NOW)

    assert provider.count("cancel") == 1


def test_a_cancelled_batch_without_an_answer_ends_as_cancelled(batch, requests, keys, provider):
    Batch.objects.update(cancel_asked=True)
    rest = [not_run(key, "batch_cancelled") for key in keys]

    batch = collect(provider, batch, status=Status.CANCELLED, errors=rest)

    assert (batch.state, batch.next_attempt_at) == ("cancelled", None)
    assert states_of(*requests) == ["cancelled"] * 3
