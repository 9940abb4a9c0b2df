"""Submissions: how far each is in the list and on its page, its files, and stopping one."""

from __future__ import annotations

import pytest
from django.db import connection
from django.test.utils import CaptureQueriesContext
from django.urls import reverse
from django.utils import timezone

from batching.admin import submission_page, submissions
from batching.models import AuditEntry, ClientFile, Run, Submission
from tests.batching.rows import a_project, a_request

pytestmark = pytest.mark.django_db
LIST = "admin:batching_submission_changelist"
HTMX = {"hx-request": "true"}


def a_submission(*states, **fields):
    fields.setdefault("accepted", len(states))
    fields.setdefault("finished_at", timezone.now())
    row = Submission.objects.create(project=a_project(), **fields)
    for state in states:
        a_request(submission=row, state=state)
    return row


def page_of(row):
    return reverse("admin:batching_submission_change", args=[row.pk])


def test_the_list_tells_how_many_have_an_end(as_, monkeypatch):
    monkeypatch.setattr(submissions, "MOST_OPEN", 2)
    a_submission("delivered", "failed", "pending")
    a_submission("delivered")
    a_submission(*["pending"] * 4)

    page = as_("viewer").get(reverse(LIST)).content.decode()

    assert "2 of 3" in page
    assert "all of 1" in page
    assert "more than 2 open" in page


def test_what_the_list_counts_is_answered_by_an_index(as_):
    a_submission("pending")
    client = as_("viewer")

    with CaptureQueriesContext(connection) as captured:
        client.get(reverse(LIST))

    counting = [query["sql"] for query in captured if "still_open" in query["sql"]]
    assert len(counting) == 1  # for the rows of the page, and not for those that are only counted
    assert "LIMIT 2001" in counting[0]
    with connection.cursor() as cursor:
        word = "EXPLAIN" if connection.vendor == "postgresql" else "EXPLAIN QUERY PLAN"
        if connection.vendor == "postgresql":
            cursor.execute("SET LOCAL enable_seqscan = off")  # a handful of rows is read whole else
        cursor.execute(f"{word} {counting[-1]}".replace("%", "%%"))
        plan = str(cursor.fetchall())
    assert "request_submission_open" in plan, plan


def test_a_page_tells_how_many_stand_where_and_leads_to_them(as_):
    row = a_submission("delivered", "delivered", "failed", "pending")

    page = as_("operator").get(page_of(row)).content.decode()

    assert "3 of 4 requests have an end, 1 are open." in page
    assert f"?submission={row.key}&amp;state__exact=failed" in page
    assert f"{reverse('admin:batching_request_export')}?submission={row.key}" in page


@pytest.mark.parametrize(
    ("states", "fields", "is_final"),
    [
        (["delivered"], {}, True),
        (["pending"], {}, False),
        (["delivered"], {"finished_at": None}, False),
        (["delivered"], {"kind": "openai"}, False),
        (["delivered"], {"kind": "openai", "completed_at": timezone.now()}, True),
    ],
)
def test_a_page_asks_for_itself_until_all_has_ended(as_, states, fields, is_final):
    row = a_submission(*states, **fields)
    client = as_("viewer")

    part = client.get(page_of(row), headers=HTMX)

    assert part.status_code == (286 if is_final else 200)
    assert (b"hx-get" in part.content) is not is_final


def test_many_requests_are_counted_once_the_page_is_there(as_, monkeypatch):
    monkeypatch.setattr(submission_page, "MOST_AT_ONCE", 1)
    row = a_submission("delivered", "pending")
    client = as_("viewer")

    page = client.get(page_of(row))
    part = client.get(page_of(row), headers=HTMX)

    assert b'hx-trigger="load' in page.content
    assert b"1 of 2 requests have an end" in part.content
    assert b"1 of 2 requests have an end" in client.get(page_of(row), {"count": "yes"}).content


def test_a_page_names_its_files(as_):
    put = ClientFile.objects.create(
        project=a_project(), purpose="batch", filename="in.jsonl", size_bytes=1_500
    )
    row = a_submission("delivered", kind="openai", input_file=put)
    ClientFile.objects.create(
        project=a_project(),
        purpose="batch_output",
        filename="out.jsonl",
        submission=row,
        side="output",
    )

    page = as_("viewer").get(page_of(row)).content.decode()

    assert page.index("in.jsonl") < page.index("1.5 kB") < page.index("out.jsonl")


def stop(client, row):
    url = reverse("admin:batching_submission_cancel_one", args=[row.pk])
    return client.post(url, {"confirmed": "yes", "reason": "sent by mistake"}, follow=True)


def test_an_uploads_requests_are_taken_back_by_a_run(as_):
    row = a_submission("pending", "delivered")

    page = stop(as_("operator"), row)

    run = Run.objects.get()
    assert (run.move, run.reason) == ("cancel", "sent by mistake")
    assert run.query == f"submission={row.key}&state__exact=pending"
    assert run.key.encode() in page.content
    assert AuditEntry.objects.get(action="submission.cancel").object_key == row.key


def test_a_clients_batch_is_stopped_as_its_client_stops_it(as_):
    row = a_submission("pending", kind="openai", in_progress_at=timezone.now())

    stop(as_("operator"), row)

    row.refresh_from_db()
    assert row.cancelling_at is not None
    assert not Run.objects.exists()


def test_what_has_ended_is_not_stopped(as_):
    client = as_("operator")

    upload = stop(client, a_submission("delivered"))
    batch = stop(client, a_submission("delivered", kind="openai", completed_at=timezone.now()))

    assert b"none of its requests waits any more" in upload.content
    assert b"it has ended" in batch.content


def test_a_viewer_stops_nothing(as_):
    row = a_submission("pending")

    assert stop(as_("viewer"), row).status_code == 403
    assert not Run.objects.exists()
