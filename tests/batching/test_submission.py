"""A sealed batch reaches the provider exactly once, whatever crashes on the way."""

from __future__ import annotations

from datetime import timedelta

import pytest

from batching import admission, adoption, steering, submission
from batching.claims import LEASE
from batching.lifecycle import Actor
from batching.models import Account, Batch
from batching.providers.base import Source, Trouble
from tests.batching.fake_provider import trouble
from tests.batching.rows import NOW, a_batch, a_request, log_of, states_of

pytestmark = pytest.mark.django_db

REFUSED, RETRY = trouble(Trouble.REFUSED, "bad file"), trouble(Trouble.RETRY, "busy", after_s=90)
CREDENTIALS, UNKNOWN = (
    trouble(Trouble.CREDENTIALS, "key revoked"),
    trouble(Trouble.UNKNOWN, "reset"),
)


class Killed(BaseException):
    """What kill -9 looks like from inside: nothing below catches it."""


@pytest.fixture
def batch(provider):
    batch = a_batch(state="uploading", next_attempt_at=NOW)
    for _ in range(3):
        a_request(batch=batch)
    return batch


@pytest.fixture
def uploaded(batch, provider):
    submission.upload_due(NOW)
    batch.refresh_from_db()
    return batch


@pytest.fixture
def doubtful(uploaded, provider):
    """A batch that was created at the provider, which we were not told."""
    provider.break_after("create", UNKNOWN)
    submission.submit_due(NOW)
    uploaded.refresh_from_db()
    return uploaded


def again(batch) -> Batch:
    """Return the batch as it is by now."""
    return Batch.objects.get(pk=batch.pk)


# Uploading


def test_a_sealed_batch_is_uploaded(batch, provider, data_dir):
    assert submission.upload_due(NOW) == 1

    batch = again(batch)
    (name, content) = provider.files[batch.input_file_id]
    assert name == batch.filename
    assert (batch.state, batch.request_count, batch.tries) == ("uploaded", 3, 0)
    assert (content.count(b"\n"), len(content)) == (3, batch.size_bytes)
    assert list((data_dir / "batches").iterdir()) == []


def test_a_file_that_was_uploaded_before_a_crash_is_found_by_its_name(batch, provider):
    provider.break_after("upload", Killed())
    with pytest.raises(Killed):
        submission.upload_due(NOW)

    submission.upload_due(NOW + timedelta(minutes=16))

    assert (provider.count("upload"), provider.count("find_file")) == (1, 1)
    assert again(batch).input_file_id in provider.files


def test_a_file_that_is_not_found_after_a_doubt_is_uploaded_again(batch, provider):
    provider.refuse("upload", UNKNOWN)
    submission.upload_due(NOW)

    submission.upload_due(NOW + timedelta(minutes=1))

    assert (provider.count("upload"), len(provider.files)) == (2, 1)
    assert again(batch).state == "uploaded"


def test_a_file_of_other_requests_is_another_file(batch, provider):
    provider.break_after("upload", UNKNOWN)
    submission.upload_due(NOW)
    batch.requests.filter(pk=batch.requests.first().pk).update(state="cancelled")

    submission.upload_due(NOW + timedelta(minutes=1))

    assert (provider.count("find_file"), len(provider.files)) == (0, 2)
    assert provider.files[again(batch).input_file_id][1].count(b"\n") == 2


def test_a_busy_provider_is_asked_again_when_it_says(batch, provider):
    provider.refuse("upload", RETRY)

    submission.upload_due(NOW)

    batch = again(batch)
    assert (batch.state, batch.tries, batch.last_error) == ("uploading", 1, "busy")
    assert batch.next_attempt_at == NOW + timedelta(seconds=90)


def test_a_file_that_is_refused_five_times_fails_its_batch(batch, provider):
    provider.refuse("upload", REFUSED, times=5)
    for hour in range(4):
        submission.upload_due(NOW + timedelta(hours=hour))
    assert again(batch).state == "uploading"

    submission.upload_due(NOW + timedelta(hours=4))

    batch = again(batch)
    assert (batch.state, batch.next_attempt_at) == ("failed", None)
    assert batch.last_error == "the provider refuses its file: bad file"
    assert set(states_of(*batch.requests.all())) == {"failed"}
    assert set(batch.requests.values_list("error_code", flat=True)) == {"batch_failed"}


@pytest.mark.parametrize("call", ["upload", "create"])
def test_a_revoked_key_fails_no_batch_and_shows_on_its_account(batch, provider, call):
    provider.refuse(call, CREDENTIALS, times=20)
    for hour in range(20):
        submission.upload_due(NOW + timedelta(hours=hour))
        submission.submit_due(NOW + timedelta(hours=hour))

    account = Account.objects.get()
    assert (account.last_error, account.last_error_at) == ("key revoked", NOW + timedelta(hours=19))
    assert again(batch).state in ("uploading", "waiting_for_capacity")
    assert set(states_of(*batch.requests.all())) == {"pending"}

    submission.upload_due(NOW + timedelta(hours=21))
    submission.submit_due(NOW + timedelta(hours=21))
    assert again(batch).state == "processing"
    assert Account.objects.get().last_error == ""


def test_a_batch_whose_requests_were_all_taken_back_is_not_uploaded(batch, provider):
    batch.requests.update(state="cancelled")

    submission.upload_due(NOW)

    assert (again(batch).state, provider.count("upload")) == ("cancelled", 0)


def test_one_batch_that_breaks_stops_no_other(batch, provider):
    provider.refuse("upload", RuntimeError("bug"))
    other = a_batch(state="uploading", next_attempt_at=NOW + timedelta(seconds=1))
    a_request(batch=other)

    assert submission.upload_due(NOW + timedelta(seconds=1)) == 2

    assert states_of(batch, other) == ["uploading", "uploaded"]
    assert again(batch).last_error == "RuntimeError: bug"


def test_a_worker_that_lost_its_claim_changes_nothing(batch, provider, monkeypatch):
    def overtaken(path, *, filename):
        Batch.objects.filter(pk=batch.pk).update(fence=99, wait_reason="someone else's")
        raise RETRY

    monkeypatch.setattr(provider, "upload", overtaken)
    submission.upload_due(NOW)

    batch = again(batch)
    assert (batch.state, batch.tries, batch.last_error) == ("uploading", 0, "")
    assert batch.next_attempt_at == NOW + LEASE


def test_a_batch_cancelled_while_it_uploads_stays_cancelled(batch, provider, monkeypatch):
    upload = provider.upload

    def cancelled_meanwhile(path, *, filename):
        Batch.objects.filter(pk=batch.pk).update(state="cancelled")
        return upload(path, filename=filename)

    monkeypatch.setattr(provider, "upload", cancelled_meanwhile)
    submission.upload_due(NOW)

    assert (again(batch).state, again(batch).input_file_id) == ("cancelled", "")


def test_a_request_taken_back_while_its_file_was_on_the_way_is_in_no_file_that_counts(
    batch, provider
):
    upload, requests = provider.upload, list(batch.requests.all())

    def taken_back_meanwhile(path, *, filename):
        provider.upload = upload
        by = Actor(name="someone")
        steering.cancel_request(requests[0], by=by, reason="", now=NOW)
        return upload(path, filename=filename)

    provider.upload = taken_back_meanwhile
    assert submission.upload_due(NOW) == 2

    batch = again(batch)
    assert (batch.state, batch.request_count) == ("uploaded", 2)
    assert provider.files[batch.input_file_id][1].count(b"\n") == 2


# Creating


def test_an_uploaded_batch_is_created_and_its_requests_are_processing(uploaded, provider):
    assert submission.submit_due(NOW) == 1

    batch, remote = again(uploaded), provider.only_batch()
    assert (batch.state, batch.provider_batch_id) == ("processing", remote.id)
    assert remote.input_file_id == batch.input_file_id
    assert remote.metadata["batcher_batch"] == batch.key
    assert set(states_of(*batch.requests.all())) == {"processing"}
    assert batch.next_attempt_at == NOW + timedelta(seconds=15)


def test_the_intent_is_committed_before_the_call(uploaded, provider, monkeypatch):
    seen = []
    create = provider.create

    def look(**facts):
        seen.append((again(uploaded).state, again(uploaded).create_started_at))
        return create(**facts)

    monkeypatch.setattr(provider, "create", look)
    submission.submit_due(NOW)

    assert seen == [("submitting", NOW)]


def test_a_definite_no_that_may_pass_waits_with_its_reason(uploaded, provider):
    provider.refuse("create", RETRY)

    submission.submit_due(NOW)

    batch = again(uploaded)
    assert (batch.state, batch.tries) == ("waiting_for_capacity", 1)
    assert batch.wait_reason == "the provider said no: busy"
    assert batch.next_attempt_at == NOW + timedelta(seconds=90)
    assert set(states_of(*batch.requests.all())) == {"pending"}


def test_a_final_no_fails_the_batch(uploaded, provider):
    provider.refuse("create", REFUSED)

    submission.submit_due(NOW)

    assert again(uploaded).last_error == "the provider refuses it: bad file"
    assert set(states_of(*uploaded.requests.all())) == {"failed"}


def test_a_claim_lost_before_the_call_creates_nothing(uploaded, provider, monkeypatch):
    admitted = admission.next_up

    def and_overtaken(now):
        for batch in admitted(now):
            Batch.objects.update(fence=99)
            yield batch

    monkeypatch.setattr(admission, "next_up", and_overtaken)
    submission.submit_due(NOW)

    assert provider.count("create") == 0


# In doubt


def looks_until(last: timedelta, provider) -> list[float]:
    """Let the clock tick to ``last`` and return the minutes at which the provider was looked at."""
    looked, ticks = [], int(last.total_seconds() // 15)
    for tick in range(1, ticks + 1):
        before = provider.count("list_batches")
        adoption.adopt_due(NOW + timedelta(seconds=15 * tick))
        if provider.count("list_batches") > before:
            looked.append(tick / 4)
    return looked


def test_a_batch_in_doubt_is_not_created_again_but_found(doubtful, provider):
    assert doubtful.state == "submitting"
    assert doubtful.last_error.startswith("creation in doubt")

    submission.submit_due(NOW + timedelta(minutes=2))
    adoption.adopt_due(NOW + timedelta(minutes=2))

    batch = again(doubtful)
    assert (batch.state, batch.provider_batch_id) == ("processing", provider.only_batch().id)
    assert provider.count("create") == 1
    assert set(states_of(*batch.requests.all())) == {"processing"}


def test_a_batch_created_by_a_killed_worker_is_found(uploaded, provider):
    provider.break_after("create", Killed())
    with pytest.raises(Killed):
        submission.submit_due(NOW)

    adoption.adopt_due(NOW + timedelta(minutes=2))

    assert again(uploaded).provider_batch_id == provider.only_batch().id
    assert provider.count("create") == 1


def test_a_server_that_keeps_no_metadata_is_matched_by_the_input_file(uploaded, provider):
    provider.keeps_metadata = False
    provider.break_after("create", UNKNOWN)
    submission.submit_due(NOW)

    adoption.adopt_due(NOW + timedelta(minutes=2))

    assert again(uploaded).provider_batch_id == provider.only_batch().id


def test_the_batch_of_an_earlier_intent_is_not_taken_for_this_one(doubtful, provider):
    remote = provider.only_batch()
    provider.say(remote.id, metadata={**remote.metadata, "batcher_intent": "yesterday"})

    adoption.adopt_due(NOW + timedelta(minutes=2))

    assert again(doubtful).state == "submitting"


def test_of_two_batches_found_the_oldest_is_kept_and_the_other_cancelled(doubtful, provider):
    first = provider.only_batch()
    provider.clock = NOW + timedelta(seconds=9)
    second = provider.create(
        source=Source(file_id=first.input_file_id),
        endpoint="/v1/responses",
        metadata=first.metadata,
    )

    adoption.adopt_due(NOW + timedelta(minutes=2))

    assert again(doubtful).provider_batch_id == first.id
    assert provider.batches[second.id].raw_status == "cancelling"
    assert provider.batches[first.id].raw_status == "validating"


def test_a_batch_that_never_appears_is_looked_for_and_then_asked_for_again(uploaded, provider):
    provider.refuse("create", UNKNOWN)
    submission.submit_due(NOW)

    assert looks_until(timedelta(minutes=20), provider) == [0.25, 0.75, 2.25, 5.25, 10.25]

    assert again(uploaded).state == "waiting_for_capacity"
    assert provider.count("create") == 1
    submission.submit_due(NOW + timedelta(minutes=21))
    assert again(uploaded).state == "processing"
    assert provider.count("create") == 2


def test_a_list_that_lags_does_not_make_a_second_batch(doubtful, provider):
    remote = provider.batches.pop(provider.only_batch().id)
    assert looks_until(timedelta(minutes=6), provider) == [0.25, 0.75, 2.25, 5.25]

    provider.batches[remote.id] = remote
    adoption.adopt_due(NOW + timedelta(minutes=11))

    assert again(doubtful).provider_batch_id == remote.id
    assert provider.count("create") == 1


def test_without_a_last_look_nothing_is_asked_for_again(doubtful, provider):
    provider.refuse("list_batches", RETRY, times=3)
    remote = provider.only_batch()
    for hour in range(1, 4):
        adoption.adopt_due(NOW + timedelta(hours=hour))
    assert again(doubtful).state == "submitting"

    adoption.adopt_due(NOW + timedelta(hours=4))

    assert again(doubtful).provider_batch_id == remote.id


def test_a_doubtful_batch_that_was_cancelled_is_found_and_stopped(doubtful, provider):
    Batch.objects.update(state="cancelling", cancel_asked=True)
    provider.refuse("cancel", RETRY)

    adoption.adopt_due(NOW + timedelta(minutes=2))
    assert again(doubtful).provider_batch_id == ""
    adoption.adopt_due(NOW + timedelta(minutes=5))

    assert provider.only_batch().raw_status == "cancelling"
    assert again(doubtful).state == "cancelling"
    assert again(doubtful).provider_batch_id == provider.only_batch().id


def test_a_cancelled_batch_that_never_arrived_ends_with_its_requests(uploaded, provider):
    provider.refuse("create", UNKNOWN)
    submission.submit_due(NOW)
    Batch.objects.update(state="cancelling", cancel_asked=True)

    for minute in (2, 16):
        adoption.adopt_due(NOW + timedelta(minutes=minute))

    assert again(uploaded).state == "cancelled"
    assert set(states_of(*uploaded.requests.all())) == {"cancelled"}


def test_each_step_stands_in_the_log(uploaded, provider):
    submission.submit_due(NOW)

    assert [(move[1], move[4].split(" [")[0]) for move in log_of(uploaded)] == [
        ("uploaded", f"3 lines, {uploaded.size_bytes:,} bytes"),
        ("submit", "there is room at the provider"),
        ("accepted", f"created as {provider.only_batch().id}"),
    ]
