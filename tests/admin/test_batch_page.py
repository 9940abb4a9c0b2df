"""A batch's page: its way, its pace, its files, its cost, and what became of its requests."""

from __future__ import annotations

from datetime import timedelta

import pytest
from django.urls import reverse
from django.utils import timezone

from batching import endings
from batching.admin import batch_files, batch_outcome, batch_way
from batching.admin.history import History, Step
from batching.lifecycle import move
from batching.models import AuditEntry, Batch, Request
from batching.providers.base import NotFound, ProviderError, Trouble
from tests.admin.conftest import person
from tests.batching.rows import NOW, a_batch, a_destination, a_request, an_answer

HTMX = {"HX-Request": "true"}
MINUTE = timedelta(minutes=1)


def page_of(batch: Batch) -> str:
    return reverse("admin:batching_batch_change", args=[batch.pk])


def outcome_at(batch: Batch) -> str:
    return reverse("admin:batching_batch_outcome", args=[batch.pk])


def file_at(batch: Batch, part: str, side: str = "ours") -> str:
    return f"{reverse('admin:batching_batch_file', args=[batch.pk, part])}?from={side}"


def processing(**fields) -> Batch:
    now = timezone.now()
    facts = {"state": "processing", "create_started_at": now - 10 * MINUTE, "polled_at": now,
             "provider_total": 100, "provider_completed": 38, "provider_failed": 2}  # fmt: skip
    return a_batch(**(facts | fields))


# Its way


def way(batch: Batch, *moves: tuple[int, str]) -> dict[str, batch_way.Stage]:
    steps = [
        Step(at=NOW + minutes * MINUTE, after="", source="", target=state, transition="",
             who="", why="")
        for minutes, state in moves
    ]  # fmt: skip
    stages = batch_way.way_of(batch, History(steps=steps, is_cut=False), NOW + 60 * MINUTE)
    return {stage.label: stage for stage in stages}


@pytest.mark.django_db
def test_a_way_has_times_for_what_was_and_grey_stages_for_what_comes():
    batch = a_batch(state="processing", created_at=NOW)

    seen = way(batch, (8, "uploading"), (9, "uploaded"), (9, "submitting"), (10, "processing"))

    assert (seen["Filled"].tone, seen["Filled"].at, seen["Filled"].took) == ("done", NOW, "8 min")
    assert (seen["At the provider"].tone, seen["At the provider"].took) == ("now", "51 min")
    assert [seen[name].tone for name in ("Admitted", "Fetched", "Delivered")] == [
        "passed_over", "ahead", "ahead",
    ]  # fmt: skip


@pytest.mark.django_db
def test_a_stage_that_a_batch_came_back_to_is_drawn_once_with_how_often():
    moves = [(1, "uploading"), (2, "waiting_for_capacity"), (3, "processing"), (4, "waiting_for_capacity"), (9, "processing")]  # fmt: skip

    seen = way(a_batch(state="processing", created_at=NOW), *moves)

    assert (seen["Admitted"].times, seen["Admitted"].took) == (2, "6 min")
    assert seen["At the provider"].times == 2


@pytest.mark.django_db
@pytest.mark.parametrize(
    ("state", "label", "tone"),
    [("failed", "Failed", "bad"), ("delivered", "Delivered", "good"), ("cancelled", "Cancelled", "quiet")],
)  # fmt: skip
def test_an_end_has_its_own_name_and_tone(state, label, tone):
    seen = way(a_batch(state=state, created_at=NOW), (1, state))

    assert seen[label].tone == tone


def test_a_page_renews_what_moves_until_the_end(as_):
    batch, client = processing(), as_("viewer")

    going = client.get(page_of(batch), headers=HTMX)
    Batch.objects.filter(pk=batch.pk).update(state="delivered")
    ended = client.get(page_of(batch), headers=HTMX)

    assert going.content.decode().strip().startswith('<section id="_batch_live"')
    assert (going.status_code, 'hx-trigger="every' in going.content.decode()) == (200, True)
    assert (ended.status_code, 'hx-trigger="every' in ended.content.decode()) == (286, False)


def test_the_history_comes_anew_only_when_the_batch_moved(as_):
    batch, client = processing(), as_("viewer")
    same = client.get(page_of(batch), {"moves": 0}, headers=HTMX).content.decode()
    move(batch, "complete", reason="done")

    moved = client.get(page_of(batch), {"moves": 0}, headers=HTMX).content.decode()

    assert "batch_history" not in same
    assert 'id="batch_history" hx-swap-oob="true"' in moved


def test_a_page_tells_the_providers_pace_and_a_guess_that_is_marked(as_):
    text = as_("viewer").get(page_of(processing())).content.decode()

    assert "38 ok, 2 failed of 100 at the provider" in text
    assert "4.0 lines a minute so far" in text
    assert "(guess: 40 of 100 took 10 min)" in text


def test_a_page_asks_few_questions_however_many_requests_there_are(
    as_, django_assert_max_num_queries
):
    batch = processing(provider_object={"id": "batch_1"})
    for _ in range(30):
        a_request(batch=batch, state="processing")
    client = as_("admin")
    client.get(page_of(batch))

    with django_assert_max_num_queries(26):
        client.get(page_of(batch))


def test_who_did_what_is_for_those_who_may_read_the_audit_log(as_, client):
    batch = processing()
    url = reverse("admin:batching_batch_pause_one", args=[batch.pk])
    as_("operator").post(url, {"confirmed": "yes", "reason": "the budget is spent"})

    assert "Who did what to it" not in client.get(page_of(batch)).content.decode()
    client.force_login(person("admin"))
    text = client.get(page_of(batch)).content.decode()
    assert "batch.pause" in text
    assert "the budget is spent" in text


# What became of its requests


def test_failures_are_grouped_by_code_with_one_of_them(as_):
    batch = a_batch(state="partially_delivered", next_attempt_at=None)
    for code in ("content_filter", "too_long", "too_long"):
        a_request(batch=batch, state="failed", error_code=code, error_message=f"it is {code}")

    found = batch_outcome.outcome_of(batch).failures
    text = as_("viewer").get(outcome_at(batch)).content.decode()

    assert [(f.code, f.count, f.words) for f in found] == [
        ("too_long", 2, "it is too_long"), ("content_filter", 1, "it is content_filter"),
    ]  # fmt: skip
    assert found[0].sample_url in text


@pytest.mark.django_db
def test_unanswered_requests_are_told_by_the_batch_that_holds_them_now():
    batch, next_one = a_batch(state="expired"), a_batch()
    rows = [a_request(batch=batch, state="processing") for _ in range(3)]
    endings.requeue(Request.objects.all(), reason="not run", now=NOW)
    Request.objects.filter(pk__in=[row.pk for row in rows[:2]]).update(batch=next_one)

    went = batch_outcome.outcome_of(batch).went

    assert [(one.batch, one.count) for one in went] == [(next_one.pk, 2), (None, 1)]


@pytest.mark.django_db
def test_what_a_restart_keeps_in_its_batch_did_not_go_anywhere():
    batch = a_batch(state="failed")
    a_request(batch=batch, state="failed")

    endings.requeue(Request.objects.all(), reason="again", now=NOW, keep_batch=True)

    assert batch_outcome.outcome_of(batch).went == []


@pytest.mark.django_db
def test_deliveries_are_told_by_destination_and_state():
    batch, place = a_batch(state="delivering"), a_destination(name="crm")
    for state in ("delivered", "delivered", "delivery_failed"):
        a_request(batch=batch, state=state, destination=place)
    a_request(batch=batch, state="processed")

    found = batch_outcome.outcome_of(batch).deliveries

    assert [(d.name, [(s, n) for s, n, _ in d.states]) for d in found] == [
        ("crm", [("delivered", 2), ("delivery_failed", 1)]),
        ("pulled by the client", [("processed", 1)]),
    ]


def test_more_requests_than_are_read_are_told(as_, monkeypatch):
    monkeypatch.setattr(batch_outcome, "READ", 1)
    batch = a_batch(state="delivered", next_attempt_at=None)
    for _ in range(2):
        a_request(batch=batch, state="delivered")

    assert "there are more" in as_("viewer").get(outcome_at(batch)).content.decode()


def test_the_outcome_is_a_part_for_htmx_a_page_for_others_and_nothing_for_strangers(as_, client):
    batch = a_batch()
    part = as_("viewer").get(outcome_at(batch), headers=HTMX).content.decode()

    assert part.strip().startswith('<section id="_batch_outcome"')
    assert "Back to batch" in client.get(outcome_at(batch)).content.decode()
    client.force_login(person("nobody"))
    assert client.get(outcome_at(batch)).status_code == 403


# Its files


class Remote:
    """Hands over one file, or fails."""

    def __init__(self, answer):
        self.answer = answer

    def download(self, file_id, *, into):
        if isinstance(self.answer, Exception):
            raise self.answer
        into.write_bytes(self.answer)
        return len(self.answer)

    def render_line(self, *, custom_id, endpoint, body):
        return custom_id.encode() + b" " + body + b"\n"


@pytest.fixture
def remote(monkeypatch, settings, tmp_path):
    """Let the provider answer so."""
    settings.DATA_DIR = tmp_path

    def answers(answer=b""):
        monkeypatch.setattr(batch_files, "connect", lambda account: Remote(answer))

    return answers


def body_of(answer) -> bytes:
    return b"".join(answer.streaming_content)


def test_our_copies_are_streamed_and_each_look_is_logged(as_, remote):
    remote()
    batch = a_batch(state="delivered", answered_count=1, failed_count=1)
    good, bad = (a_request(batch=batch, body={"n": n}, state="delivered") for n in (1, 2))
    an_answer(good, b'{"good":1}')
    an_answer(bad, b'{"bad":1}', status_code=400)
    client = as_("operator")

    assert body_of(client.get(file_at(batch, "output"))) == b'{"good":1}\n'
    assert body_of(client.get(file_at(batch, "errors"))) == b'{"bad":1}\n'
    lines = body_of(client.get(file_at(batch, "input"))).decode().splitlines()
    assert lines == [f'{good.key} {{"n": 1}}', f'{bad.key} {{"n": 2}}']
    assert AuditEntry.objects.filter(action="payload.view", object_key=batch.key).count() == 3


def test_the_providers_file_is_fetched_when_it_is_asked_for_and_not_kept(as_, remote, tmp_path):
    remote(b"from afar\n")
    batch = a_batch(output_file_id="file-out")

    answer = as_("operator").get(file_at(batch, "output", "provider"))

    assert body_of(answer) == b"from afar\n"
    assert 'filename="file-out.jsonl"' in answer["Content-Disposition"]
    assert list((tmp_path / "fetched").iterdir()) == []


@pytest.mark.parametrize(
    ("problem", "said"),
    [
        (NotFound("no such file"), "has deleted it by now"),
        (ProviderError("it is down", trouble=Trouble.RETRY), "did not hand it over: it is down"),
    ],
)
def test_a_file_that_the_provider_does_not_give_is_told_on_the_page(as_, remote, problem, said):
    remote(problem)
    batch = a_batch(output_file_id="file-out")

    page = as_("operator").get(file_at(batch, "output", "provider"), follow=True)

    assert said in page.content.decode()


def test_a_file_that_is_not_there_is_told_and_one_of_another_name_is_404(as_, remote):
    remote()
    batch, client = a_batch(), as_("operator")

    page = client.get(file_at(batch, "errors", "provider"), follow=True)

    assert "no such file of this batch" in page.content.decode()
    assert client.get(file_at(batch, "secrets")).status_code == 404


def test_files_are_for_those_who_may_read_payloads(as_):
    batch = a_batch(output_file_id="file-out")
    client = as_("viewer")

    assert client.get(file_at(batch, "output")).status_code == 403
    assert file_at(batch, "output", "provider") not in client.get(page_of(batch)).content.decode()
    assert "file-out" in client.get(page_of(batch)).content.decode()
