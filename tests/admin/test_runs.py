"""Runs: a move made to everything that a list's filter matched, seen first, in the background, told at the end."""

from __future__ import annotations

from datetime import timedelta

import pytest
from django.contrib.auth.models import User
from django.urls import reverse
from django.utils import timezone
from django_fsm_log.models import StateLog

from batching import walks
from batching.admin import running
from batching.lifecycle import move
from batching.models import AuditEntry, Batch, Request, Run, RunShare
from batching.steering import Refused
from tests.admin.conftest import person
from tests.batching.rows import a_batch, a_destination, a_lane, a_request, states_of

SURE = {"reason": "the model is retired"}


def order(rows: str, name: str, query: str = "") -> str:
    return f"{reverse(f'admin:batching_{rows}_run', args=[name])}?{query}"


def ordered(client, rows, name, query="", **more) -> Run:
    answer = client.post(order(rows, name, query), SURE | more)
    assert answer.status_code == 302, answer.content.decode()
    return Run.objects.latest("pk")


def carried(run: Run) -> Run:
    running.step_due(timezone.now())
    run.refresh_from_db()
    return run


def waiting(**fields) -> Batch:
    return a_batch(state="waiting_for_capacity", **fields)


# The order


def test_an_order_shows_the_count_five_rows_and_what_is_skipped_before_it_is_given(as_):
    lane = a_lane()
    for _ in range(6):
        waiting(lane=lane)
    a_batch(lane=lane, state="delivered")
    waiting()

    page = as_("operator").get(order("batch", "cancel", f"lane={lane.pk}"))

    text = page.content.decode()
    assert (page.context["look"].matched, len(page.context["samples"])) == (7, 5)
    assert page.context["unfit"] == {"delivered": 1}
    assert "Cancel 7 batches?" in text
    assert "6 of them can be done now" in text
    assert not Run.objects.exists()


@pytest.mark.parametrize("reason", ["", "  "])
def test_nothing_is_ordered_without_a_reason(as_, reason):
    waiting()

    page = as_("operator").post(order("batch", "cancel"), {"reason": reason})

    assert "This field is required" in page.content.decode()
    assert not Run.objects.exists()


def test_an_order_that_names_no_filter_says_that_it_means_everything(as_):
    waiting()

    assert "No filter is set" in as_("operator").get(order("batch", "pause")).content.decode()


def test_an_order_for_nothing_offers_no_button(as_):
    page = as_("operator").get(order("batch", "pause", "state__exact=failed")).content.decode()

    assert "Nothing matches" in page
    assert 'name="reason"' not in page


def test_a_count_that_takes_too_long_says_more_than(as_, monkeypatch):
    monkeypatch.setattr(walks, "_LOOK_S", -1)
    waiting()

    assert "more than 0" in as_("operator").get(order("batch", "pause")).content.decode()


def test_an_order_stands_in_the_audit_log_with_its_filter_and_reason(as_):
    run = ordered(as_("operator"), "batch", "priority", "state__exact=building&p=2", priority="7")

    entry = AuditEntry.objects.get(action="run.start")
    assert (entry.object_key, entry.reason, entry.actor) == (
        run.key, SURE["reason"], "user the-operator",
    )  # fmt: skip
    assert entry.after == {
        "rows": "batching.batch", "move": "priority", "filter": "state__exact=building", "priority": 7,
    }  # fmt: skip


@pytest.mark.parametrize("name", ["move_top", "move_before", "nonsense"])
def test_what_is_for_one_row_can_not_be_ordered_for_all(as_, name):
    assert as_("operator").get(order("batch", name)).status_code == 404


@pytest.mark.parametrize(
    ("role", "name", "status"),
    [("viewer", "cancel", 403), ("nobody", "cancel", 403), ("operator", "remove", 403)],
)
def test_orders_are_for_those_who_may_make_the_move(as_, role, name, status):
    client = as_(role)

    assert client.get(order("batch", name)).status_code == status
    assert client.post(order("batch", name), SURE).status_code == status
    assert not Run.objects.exists()


def test_a_filter_that_the_list_does_not_know_is_refused_with_a_sentence(as_):
    page = as_("operator").get(order("batch", "pause", "colour=red"), follow=True)

    assert "Nothing was ordered" in page.content.decode()


def test_a_list_offers_what_may_be_done_to_all_that_it_shows(as_, client):
    waiting()
    url = reverse("admin:batching_batch_changelist") + "?state__exact=waiting_for_capacity"

    page = as_("operator").get(url).content.decode()

    assert order("batch", "cancel", "state__exact=waiting_for_capacity") in page
    assert order("batch", "remove") not in page
    client.force_login(person("viewer"))
    assert "batch/run/" not in client.get(url).content.decode()


def test_choosing_all_that_match_leads_from_the_selection_to_the_order(as_):
    chosen = {
        "action": "cancel",
        "index": 0,
        "select_across": "1",
        "_selected_action": [waiting().pk],
    }
    url = reverse("admin:batching_batch_changelist") + "?state__exact=waiting_for_capacity"

    answer = as_("operator").post(url, chosen)

    assert answer.url == order("batch", "cancel", "state__exact=waiting_for_capacity")


def test_redelivering_all_requests_that_match_is_a_replay(as_):
    a_request()

    page = as_("operator").get(reverse("admin:batching_request_changelist"), {"batch": "3"})

    assert reverse("admin:batching_request_replay") + "?batch=3" in page.content.decode()


# Carried out


def test_every_batch_that_matched_is_moved_under_the_name_of_who_asked(as_):
    rows = [waiting(), waiting()]
    other = a_batch(state="building")

    run = carried(ordered(as_("operator"), "batch", "cancel", "state__exact=waiting_for_capacity"))

    assert (run.state, run.matched, run.done, run.skipped) == ("done", 2, 2, 0)
    assert states_of(*rows, other) == ["cancelled", "cancelled", "building"]
    log = StateLog.objects.filter(transition="cancel", by__username="the-operator")
    assert set(log.values_list("description", flat=True)) == {f"{SURE['reason']} [{run.key}]"}
    assert AuditEntry.objects.filter(action="batch.cancel").count() == 2
    assert not RunShare.objects.exists()


def test_what_a_run_skips_is_counted_by_its_reason(as_):
    for state in ("failed", "failed", "building"):
        a_batch(state=state)

    run = carried(ordered(as_("operator"), "batch", "restart"))

    assert (run.state, run.done, run.skipped) == ("done", 0, 3)
    assert run.refusals == {
        "no request of the batch is unfinished": 2, "a batch that is building can't be restarted": 1,
    }  # fmt: skip
    page = as_("viewer").get(reverse("admin:batching_run_change", args=[run.pk]))
    text = page.content.decode()
    assert "0 done, 3 skipped" in text
    assert "no request of the batch is unfinished" in text


def test_the_set_is_what_matched_when_it_was_ordered(as_):
    client, rows = as_("operator"), [waiting(), waiting()]
    run = ordered(client, "batch", "pause", "state__exact=waiting_for_capacity")
    later = waiting()
    move(rows[0], "cancel", reason="someone was first")

    carried(run)

    assert [row.paused_at is not None for row in Batch.objects.order_by("pk")] == [
        False,
        True,
        False,
    ]
    assert later.paused_at is None


def test_a_row_that_changes_between_the_count_and_its_turn_is_skipped_and_told(as_):
    rows = [waiting(), waiting()]
    run = ordered(as_("operator"), "batch", "pause")
    running._step(run, timezone.now())
    move(rows[1], "cancel", reason="someone was first")
    Batch.objects.create(lane=rows[0].lane)

    carried(run)

    assert (run.done, run.refusals) == (1, {running.CHANGED: 1})


def test_requests_are_moved_as_a_set_and_the_rest_is_told(as_):
    free = [a_request() for _ in range(3)]
    building = a_request(batch=a_batch(state="building"))
    in_file = a_request(batch=a_batch(state="uploaded"))
    sent = a_request(batch=a_batch(state="processing"), state="processing")

    run = carried(ordered(as_("operator"), "request", "cancel"))

    assert set(states_of(*free, building)) == {"cancelled"}
    assert states_of(in_file, sent) == ["pending", "processing"]
    assert (run.done, run.skipped) == (4, 2)
    assert run.refusals == {
        "it is processing": 1,
        "its batch is in a file or at the provider by now": 1,
    }


def test_bad_ends_are_retried_as_a_set(as_):
    rows = [a_request(state=state) for state in ("failed", "expired", "cancelled", "delivered")]

    run = carried(ordered(as_("operator"), "request", "retry"))

    assert states_of(*rows) == ["pending", "pending", "pending", "delivered"]
    assert (run.done, run.refusals) == (3, {"it is delivered": 1})


def test_requests_go_elsewhere_row_by_row(as_):
    place = a_destination(name="crm")
    row = a_request(project=place.project)

    carried(ordered(as_("operator"), "request", "redirect", to="crm"))

    row.refresh_from_db()
    assert row.destination == place


# Whatever happens


def test_a_run_whose_worker_died_goes_on_where_it_was_and_does_nothing_twice(as_, monkeypatch):
    rows, calls = [waiting() for _ in range(3)], []
    run = ordered(as_("operator"), "batch", "pause")
    carry = running.carry_out

    def dies(move_, rows_, **how):
        calls.append(rows_[0].pk)
        if len(calls) == 2:
            raise SystemExit
        return carry(move_, rows_, **how)

    monkeypatch.setattr(running, "carry_out", dies)
    with pytest.raises(SystemExit):
        running.step_due(timezone.now())
    assert running.step_due(timezone.now()) == 0  # still claimed

    running.step_due(timezone.now() + timedelta(minutes=3))

    run.refresh_from_db()
    assert (run.state, run.done, run.skipped) == ("done", 3, 0)
    assert calls == [rows[0].pk, rows[1].pk, rows[1].pk, rows[2].pk]


def test_a_stopped_run_touches_no_further_row(as_, monkeypatch):
    rows = [waiting() for _ in range(3)]
    run = ordered(as_("operator"), "batch", "pause")
    note = running._note

    def stopped_after(run_, cursor, report):
        note(run_, cursor, report)
        Run.objects.filter(cursor=rows[0].pk).update(state="stopped")

    monkeypatch.setattr(running, "_note", stopped_after)

    carried(run)

    assert (run.state, run.done) == ("stopped", 1)
    assert Batch.objects.filter(paused_at__isnull=False).count() == 1


def test_an_error_at_one_row_is_told_and_holds_up_no_other(as_, monkeypatch):
    rows = [waiting() for _ in range(2)]
    run = ordered(as_("operator"), "batch", "pause")
    carry = running.carry_out

    def breaks(move_, rows_, **how):
        if rows_[0].pk == rows[0].pk:
            raise ValueError("boom")
        return carry(move_, rows_, **how)

    monkeypatch.setattr(running, "carry_out", breaks)

    carried(run)

    assert (run.state, run.done, run.refusals) == ("done", 1, {running.BROKEN: 1})


def test_who_may_not_any_more_moves_nothing(as_):
    row = waiting()
    run = ordered(as_("operator"), "batch", "pause")
    User.objects.update(is_active=False)

    carried(run)

    assert (run.state, run.done) == ("failed", 0)
    assert "may not do this any more" in run.error
    row.refresh_from_db()
    assert row.paused_at is None


def test_two_workers_at_once_do_each_row_once(as_):
    waiting()
    run = ordered(as_("operator"), "batch", "pause")
    running._step(run, timezone.now())
    first, second = Run.objects.get(), Run.objects.get()

    assert running._step(first, timezone.now()) == 1
    assert running._step(second, timezone.now()) == 0


def test_reasons_past_a_number_are_counted_together():
    many = {f"reason {n}": 1 for n in range(20)}

    merged = running._merged(many, running.Counter({"another": 2, "reason 3": 1}))

    assert (merged["other reasons"], merged["reason 3"]) == (2, 2)


def test_many_windows_and_shares_are_walked_to_the_end(as_, monkeypatch):
    monkeypatch.setattr(walks, "WINDOW", 3)
    monkeypatch.setattr(running, "_AT_ONCE", 2)
    for number in range(10):
        a_request(state="failed" if number % 3 else "delivered")

    run = carried(ordered(as_("operator"), "request", "retry", "state__exact=failed"))

    assert (run.state, run.matched, run.done) == ("done", 6, 6)
    assert Request.objects.filter(state="pending").count() == 6


def test_a_run_is_stopped_by_its_button_with_a_reason(as_):
    run = Run.objects.create(rows_of="batching.batch", move="pause", matched=5)

    as_("operator").post(
        reverse("admin:batching_run_stop_one", args=[run.pk]), {"confirmed": "yes", "reason": "no"}
    )

    run.refresh_from_db()
    assert run.state == "stopped"
    assert AuditEntry.objects.get(action="run.stop").reason == "no"
    with pytest.raises(Refused, match="a run that is stopped"):
        walks.stop(run, by=running._by(run), reason="", now=timezone.now())


def test_a_runs_page_renews_itself_until_its_end(as_):
    run = Run.objects.create(rows_of="batching.batch", move="pause", matched=5, done=2)
    client, url = as_("viewer"), reverse("admin:batching_run_change", args=[run.pk])

    going = client.get(url, headers={"HX-Request": "true"})
    Run.objects.update(state="done")

    assert (going.status_code, 'hx-trigger="every' in going.content.decode()) == (200, True)
    assert client.get(url, headers={"HX-Request": "true"}).status_code == 286
