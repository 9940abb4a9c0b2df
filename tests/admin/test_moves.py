"""Actions: confirmed with a reason, done row by row through the core, refusals told, never on GET."""

from __future__ import annotations

from dataclasses import replace

import pytest
from django.contrib.admin.models import LogEntry
from django.contrib.messages import get_messages
from django.test import Client
from django.urls import reverse
from django_fsm_log.models import StateLog

from batching.admin import moves, requests
from batching.lifecycle import move
from batching.models import Batch, Destination, Request
from delivery.models import Attempt
from tests.batching.rows import a_batch, a_destination, a_lane, a_request, an_answer

REQUESTS = "admin:batching_request_changelist"


def told(answer) -> str:
    return " ".join(str(m) for m in get_messages(answer.wsgi_request))


def select(client, action, rows, **more):
    chosen = {"action": action, "index": 0, "_selected_action": [row.pk for row in rows]}
    return client.post(reverse(REQUESTS), chosen | more)


def test_a_selection_is_confirmed_before_anything_happens(as_):
    rows = [a_request() for _ in range(7)]

    page = select(as_("operator"), "cancel", rows).content.decode()

    assert "Cancel 7 requests?" in page
    assert page.count('class="b-link"') == moves.SAMPLES
    assert "and 2 more" in page
    assert set(Request.objects.values_list("state", flat=True)) == {"pending"}


@pytest.mark.parametrize("reason", ["", "   "], ids=["none", "blank"])
def test_nothing_happens_without_a_reason(as_, reason):
    row = a_request()

    page = select(as_("operator"), "cancel", [row], confirmed="yes", reason=reason)

    assert b"This field is required" in page.content
    row.refresh_from_db()
    assert row.state == "pending"


def test_a_confirmed_selection_is_done_and_what_was_skipped_is_told(as_):
    rows = [a_request() for _ in range(5)]
    gone = [a_request(state="delivered") for _ in range(2)]
    client = as_("operator")

    answer = select(client, "cancel", [*rows, *gone], confirmed="yes", reason="not wanted")

    assert told(answer) == ("5 done, 2 skipped: a request that is delivered can't be taken back.")
    assert Request.objects.filter(state="cancelled").count() == 5
    assert Request.objects.filter(state="delivered").count() == 2


def test_who_and_why_stand_in_both_logs(as_):
    row = a_request()

    select(as_("operator"), "cancel", [row], confirmed="yes", reason="not wanted")

    log = StateLog.objects.get(object_id=row.pk, transition="cancel")
    assert (log.by.username, log.description) == ("the-operator", "cancelled: not wanted")
    entry = LogEntry.objects.get()
    assert (entry.user.username, entry.object_repr) == ("the-operator", row.custom_id)
    assert entry.change_message == "Cancel: not wanted"


def test_one_row_that_fails_leaves_the_others_done(db, django_user_model):
    """Each row has a transaction of its own: what a colleague takes first undoes nothing."""
    rows = [a_request() for _ in range(3)]
    cancel = next(m for m in requests.MOVES if m.name == "cancel")

    def colleague_takes_the_second(row, **how):
        if row.pk == rows[1].pk:
            move(Request.objects.get(pk=row.pk), "cancel", reason="a colleague")
            raise moves.Stale("moved")
        return cancel.act(row, **how)

    user = django_user_model.objects.create_user("someone")
    raced = replace(cancel, act=colleague_takes_the_second, calls_outside=True)
    report = moves.carry_out(raced, rows, user=user, reason="x")

    assert str(report) == "2 done, 1 skipped: someone else was first"
    assert Request.objects.filter(state="cancelled").count() == 3


@pytest.mark.parametrize(
    "name", ["seal", "cancel", "restart", "redeliver", "redeliver_failed", "remove"]
)
def test_opening_a_confirmation_changes_nothing(as_, name):
    batch = a_batch()
    a_request(batch=batch)
    url = reverse(f"admin:batching_batch_{name}_one", args=[batch.pk])

    answer = as_("admin").get(f"{url}?confirmed=yes&reason=forged")

    assert answer.status_code == 200
    batch.refresh_from_db()
    assert batch.state == "building"
    assert not StateLog.objects.exists()


def confirm(client, batch, name):
    url = reverse(f"admin:batching_batch_{name}_one", args=[batch.pk])
    return client.post(url, {"confirmed": "yes", "reason": "asked for"})


def test_a_button_seals_a_batch_and_comes_back_to_it(as_):
    batch = a_batch()
    a_request(batch=batch)

    answer = confirm(as_("operator"), batch, "seal")

    assert answer.url == reverse("admin:batching_batch_change", args=[batch.pk])
    assert told(answer) == "1 done."
    batch.refresh_from_db()
    assert batch.state == "uploading"


def test_an_empty_batch_is_not_sealed_and_the_page_says_why(as_):
    answer = confirm(as_("operator"), a_batch(), "seal")

    assert told(answer) == "0 done, 1 skipped: the batch has no requests."


def test_a_button_cancels_a_batch_with_its_requests(as_):
    batch = a_batch()
    request = a_request(batch=batch)

    confirm(as_("operator"), batch, "cancel")

    request.refresh_from_db()
    assert request.state == "cancelled"


def test_a_button_restarts_a_failed_batch(as_):
    batch = a_batch(state="failed", next_attempt_at=None)
    request = a_request(batch=batch, state="failed")

    assert told(confirm(as_("operator"), batch, "restart")) == "1 done."

    batch.refresh_from_db()
    request.refresh_from_db()
    assert (batch.state, request.state) == ("uploading", "pending")


@pytest.mark.parametrize(
    ("name", "due"), [("redeliver", 2), ("redeliver_failed", 1)], ids=["all", "failed-only"]
)
def test_a_button_sends_results_again(as_, name, due):
    batch = a_batch(state="partially_delivered", next_attempt_at=None)
    place = a_destination()
    good = a_request(batch=batch, state="delivered", destination=place)
    dead = a_request(
        batch=batch, state="delivery_failed", destination=place, dead_at=batch.created_at
    )
    for request in (good, dead):
        an_answer(request)

    assert told(confirm(as_("operator"), batch, name)) == "1 done."

    assert Request.objects.filter(due_at__isnull=False).count() == due


def test_a_deleted_batch_leaves_its_name_in_the_log_and_the_browser_at_the_list(as_):
    batch = a_batch(state="cancelled", next_attempt_at=None)
    name, pk = str(batch), batch.pk

    answer = confirm(as_("admin"), batch, "remove")

    assert answer.url == reverse("admin:batching_batch_changelist")
    assert not Batch.objects.exists()
    entry = LogEntry.objects.get()
    assert (entry.object_repr, entry.object_id) == (name, str(pk))


def test_a_request_that_failed_is_retried(as_):
    row = a_request(state="failed")

    select(as_("operator"), "retry", [row], confirmed="yes", reason="again")

    row.refresh_from_db()
    assert (row.state, row.attempt) == ("pending", 2)


def test_a_result_is_sent_again(as_):
    row = a_request(state="delivered", destination=a_destination())
    an_answer(row)

    select(as_("operator"), "redeliver", [row], confirmed="yes", reason="lost it")

    row.refresh_from_db()
    assert row.state == "processed"
    assert row.due_at is not None


def test_buttons_fit_the_state(as_):
    batch = a_batch(state="failed", next_attempt_at=None)

    page = (
        as_("admin").get(reverse("admin:batching_batch_change", args=[batch.pk])).content.decode()
    )

    offered = [name for name in ("seal", "cancel", "restart", "remove") if f"/{name}/" in page]
    assert offered == ["restart", "remove"]


def test_a_selection_is_refused_when_it_is_too_big(as_, monkeypatch):
    monkeypatch.setattr(moves, "MOST_ROWS", 2)
    rows = [a_request() for _ in range(3)]

    answer = select(as_("operator"), "cancel", rows, confirmed="yes", reason="x")

    assert told(answer).startswith("Nothing was done")
    assert Request.objects.filter(state="pending").count() == 3


def test_a_row_that_is_not_there_is_404(as_):
    url = reverse("admin:batching_batch_seal_one", args=[4711])

    assert as_("operator").get(url).status_code == 404


def test_a_form_without_its_token_is_refused(as_, client):
    row = a_batch()
    as_("operator")
    strict = Client(enforce_csrf_checks=True)
    strict.cookies = client.cookies

    url = reverse("admin:batching_batch_seal_one", args=[row.pk])

    assert strict.post(url, {"confirmed": "yes", "reason": "x"}).status_code == 403


def test_a_destination_is_paused_with_a_reason_and_resumed(as_):
    place = a_destination()
    client = as_("operator")
    pause = reverse("admin:batching_destination_pause_one", args=[place.pk])
    resume = reverse("admin:batching_destination_resume_one", args=[place.pk])

    client.post(pause, {"confirmed": "yes", "reason": "receiver is being moved"})
    place.refresh_from_db()
    assert place.paused_at is not None
    assert place.stop_reason == "receiver is being moved [by the-operator]"
    assert told(client.post(pause, {"confirmed": "yes", "reason": "x"})).endswith("already paused.")

    client.post(resume, {"confirmed": "yes", "reason": "moved"})
    place.refresh_from_db()
    assert (place.paused_at, place.stop_reason) == (None, "")
    assert list(Destination.objects.open()) == [place]


def test_many_are_moved_from_the_list_that_was_filtered(as_):
    lane = a_lane()
    for _ in range(2):
        a_request(lane=lane)
    done = a_request(lane=lane, state="delivered")
    client = as_("operator")
    url = f"{reverse(REQUESTS)}?state__exact=pending"
    chosen = {
        "action": "cancel",
        "index": 0,
        "_selected_action": [r.pk for r in Request.objects.all()],
    }

    answer = client.post(url, chosen | {"confirmed": "yes", "reason": "x"})

    assert told(answer) == "2 done."
    assert answer.url.endswith("state__exact=pending")
    done.refresh_from_db()
    assert done.state == "delivered"
    assert not Attempt.objects.exists()
