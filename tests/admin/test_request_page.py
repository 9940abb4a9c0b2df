"""The page of a request: its stages, its attempts, what was sent and answered on demand, and when it rests."""

from __future__ import annotations

import json
from datetime import timedelta

import pytest
from django.urls import reverse
from django.utils import timezone

from batching.admin import payloads, request_page
from batching.lifecycle import move
from batching.models import AuditEntry
from delivery.models import Attempt
from tests.batching.rows import a_batch, a_destination, a_request, an_answer

pytestmark = pytest.mark.django_db
HTMX = {"hx-request": "true"}


def page_url(row):
    return reverse("admin:batching_request_change", args=[row.pk])


def part_url(row, part):
    return reverse("admin:batching_request_part", args=[row.pk, part])


def stages_of(row):
    return {
        stage.name: stage.how for stage in request_page.surroundings(row, may_read=False)["stages"]
    }


def a_batch_under_way():
    """A batch that went its way to the provider."""
    batch = a_batch()
    for name in ("seal", "uploaded", "submit", "accepted"):
        move(batch, name, reason="as it goes")
    return batch


def an_answered_request(**fields):
    row = a_request(batch=a_batch_under_way(), **fields)
    move(row, "submitted", reason="its batch was accepted")
    move(row, "answered", reason="answered", settled_at=timezone.now())
    an_answer(row, input_tokens=7)
    return row


def test_a_new_request_waits_to_be_packed():
    assert stages_of(a_request()) == {
        "accepted": "done", "packed": "now", "uploaded": "ahead", "at provider": "ahead", "answered": "ahead",
        "delivered": "passed_over",
    }  # fmt: skip


def test_an_answered_request_is_on_its_way_to_its_destination():
    row = an_answered_request(destination=a_destination())

    found = stages_of(row)

    assert list(found.values()) == ["done"] * 5 + ["now"]


def test_a_bad_end_and_a_delivery_that_was_given_up_are_told_as_such():
    row = a_request(destination=a_destination(), dead_at=timezone.now(), tries=9)
    move(row, "fail", reason="refused", error_code="bad_line", settled_at=timezone.now())

    found = request_page.surroundings(row, may_read=False)["stages"]

    assert [(s.name, s.how, s.note) for s in found[-2:]] == [
        ("failed", "bad", "bad_line"), ("given up", "bad", "after 9 tries"),
    ]  # fmt: skip


def test_each_attempt_at_the_provider_is_told_with_its_ids_or_its_reason():
    row = a_request(batch=a_batch_under_way())
    move(row, "submitted", reason="its batch was accepted")
    move(row, "requeue", reason="the batch expired", attempt=2)
    move(row, "submitted", reason="its batch was accepted")
    an_answer(row)

    first, second = request_page.surroundings(row, may_read=False)["sendings"]

    assert (first.number, first.outcome, first.sent_at is not None) == (
        1,
        "the batch expired",
        True,
    )
    assert (second.number, second.line_id, second.call_id) == (2, "batch_req_1", "r1")
    assert second.batch_id == row.batch_id


@pytest.mark.parametrize(
    ("fields", "is_final"),
    [
        ({}, False),
        ({"state": "processed"}, True),
        ({"state": "failed", "due_at": timezone.now()}, False),
        ({"state": "failed"}, True),
        ({"state": "delivered"}, True),
    ],
    ids=["new", "to be pulled", "failed and due", "failed", "delivered"],
)
def test_the_page_asks_for_itself_until_nothing_more_happens(as_, fields, is_final):
    row = a_request(**fields)
    client = as_("viewer")

    page = client.get(page_url(row)).content.decode()
    part = client.get(page_url(row), headers=HTMX)

    assert ('id="_request_live" hx-get' in page) is not is_final
    assert part.status_code == (286 if is_final else 200)
    assert part.content.count(b'id="_request_live"') == 1
    assert b"<html" not in part.content


def test_what_was_sent_is_read_only_when_it_is_opened_and_each_look_is_logged(as_):
    row = a_request(body={"model": "m", "input": "a private question"})
    client = as_("operator")

    page = client.get(page_url(row))
    assert b"a private question" not in page.content
    assert part_url(row, "body").encode() in page.content
    part = client.get(part_url(row, "body"), headers=HTMX)

    assert b"a private question" in part.content
    assert [(e.action, e.reason) for e in AuditEntry.objects.filter(object_key=row.key)] == [
        ("payload.view", "Looked at body")
    ]


@pytest.mark.parametrize("page", ["part", "compare"])
def test_parts_open_only_for_those_who_may_read(as_, page):
    row = a_request(state="processed")
    args = [row.pk, "body"] if page == "part" else [row.pk]
    url = reverse(f"admin:batching_request_{page}", args=args)

    assert as_("viewer").get(url, headers=HTMX).status_code == 403
    assert b"_request_part" not in as_("operator").get(page_url(row)).content
    assert not AuditEntry.objects.filter(action="payload.view").exists()


def test_a_part_without_htmx_leads_to_all_parts(as_):
    row = a_request()

    answer = as_("operator").get(part_url(row, "body"))

    assert answer.url == reverse("admin:batching_request_payload", args=[row.pk])


def test_a_part_is_shown_indented_or_as_it_came_cut_or_whole(as_, monkeypatch):
    monkeypatch.setattr(payloads.Showing, "most", 20)
    monkeypatch.setattr(payloads, "SHOWN_BYTES", 20)
    row = an_answered_request()
    client = as_("operator")
    line = bytes(row.answers.get().line).decode()

    def shown(**how):
        answer = client.get(part_url(row, "answer-1"), how, headers=HTMX)
        return answer.context["part"]

    assert (shown().text, shown().is_cut) == (line[:20], True)
    assert shown(all="yes").text.startswith('{\n  "id": "batch_req_1"')
    assert shown(all="yes", **{"as": "came"}).text == line
    assert client.get(part_url(row, "answer-9"), headers=HTMX).status_code == 404


def test_the_curl_call_sends_the_same_body_and_holds_no_key(as_):
    row = a_request(body={"model": "m", "input": 'it\'s < "quoted"'}, custom_id="a'b")

    text = as_("operator").get(part_url(row, "body"), headers=HTMX).context["curl"]

    sent = json.loads(text.split("BATCHER_BODY'\n")[1].removesuffix("\nBATCHER_BODY"))
    assert sent["custom_id"] == "a'b-copy"
    assert sent["body"] == {"model": "m", "input": 'it\'s < "quoted"'}
    assert (sent["method"], sent["url"]) == ("POST", row.lane.endpoint)
    assert "Bearer $BATCHER_API_KEY" in text


def test_two_answers_are_compared_line_by_line(as_):
    row = a_request(state="processed", attempt=2)
    an_answer(row, b'{"id": "x", "text": "one"}', attempt=1)
    an_answer(row, b'{"id": "x", "text": "two"}', attempt=2)
    client = as_("operator")

    page = client.get(reverse("admin:batching_request_compare", args=[row.pk])).content.decode()

    assert "-  &quot;text&quot;: &quot;one&quot;" in page
    assert "+  &quot;text&quot;: &quot;two&quot;" in page
    assert b"Compare the last two answers" in client.get(page_url(row)).content


def test_what_a_receiver_said_stands_beside_its_attempt(as_):
    row = a_request(state="failed", destination=a_destination())
    Attempt.objects.create(
        request=row, destination=row.destination, number=1, outcome="http_error", status=500,
        answer="<b>upstream is down</b>", duration_s=1.25, next_at=timezone.now() + timedelta(hours=1),
    )  # fmt: skip

    page = as_("viewer").get(page_url(row)).content

    assert b"&lt;b&gt;upstream is down" in page
    assert b"1.25 s" in page


def test_a_page_costs_the_same_however_often_a_request_was_sent(as_, django_assert_max_num_queries):
    row = an_answered_request(destination=a_destination())
    for number in range(1, 20):
        Attempt.objects.create(
            request=row, destination=row.destination, number=number, outcome="timeout"
        )
        an_answer(row, attempt=row.attempt + number)
    client = as_("operator")
    client.get(page_url(row))

    with django_assert_max_num_queries(24):
        client.get(page_url(row))
