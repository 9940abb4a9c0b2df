"""Exports of requests: ordered from a list, written in the background, downloaded by those who may."""

from __future__ import annotations

import csv
import io
import json
from datetime import timedelta

import pytest
from django.contrib.auth.models import Permission
from django.urls import reverse
from django.utils import timezone

from batching import exportlines, exports
from batching.admin import exporting
from batching.models import AuditEntry, Export, Submission
from tests.batching.rows import a_batch, a_project, a_request, an_answer

ORDER = "admin:batching_request_export"
pytestmark = pytest.mark.django_db


@pytest.fixture(autouse=True)
def own_folder(tmp_path, settings):
    settings.DATA_DIR = tmp_path


def order(client, *columns, form="ndjson", **address):
    """Order an export over the page and return it."""
    url = reverse(ORDER, query=address)
    names = columns or ("custom_id", "state")
    given = {"form": form, "columns": names, "reason": "for the books"}
    answer = client.post(url, given)
    assert answer.status_code == 302, answer.context["form"].errors
    return Export.objects.latest("pk")


def carry_out(export):
    """Let the clock tick until it has ended."""
    for _ in range(50):
        exporting.step_due(timezone.now() + timedelta(minutes=5))
        export.refresh_from_db()
        if not export.is_running:
            return export
    raise AssertionError(f"it does not end: {export.error}")


def file_of(client, export):
    answer = client.get(reverse("admin:batching_export_file", args=[export.pk]))
    assert answer.status_code == 200
    return b"".join(answer.streaming_content)


def exported(client, *columns, form="ndjson", **address):
    export = carry_out(order(client, *columns, form=form, **address))
    assert export.state == "done", export.error
    return file_of(client, export)


def test_an_export_has_a_line_for_each_request_that_matches(as_):
    batch = a_batch()
    for number in range(3):
        a_request(custom_id=f"mine-{number}", batch=batch)
    a_request(custom_id="other")

    content = exported(as_("operator"), "custom_id", "state", batch=batch.key)

    found = [json.loads(line) for line in content.splitlines()]
    assert found == [{"custom_id": f"mine-{n}", "state": "pending"} for n in range(3)]


def test_bodies_and_answers_are_the_bytes_that_came(as_):
    row = a_request(custom_id="r", state="processed")
    an_answer(row, b'{"id": "x",\n "n": 1.50, "custom_id": "r"}')
    body = bytes(row.payload.body)

    content = exported(as_("operator"), "custom_id", "body", "answer", "metadata")

    assert body in content
    assert b'"answer":{"id": "x",  "n": 1.50, "custom_id": "r"}' in content
    assert content.count(b"\n") == 1


def test_what_is_no_json_stands_as_a_string(as_):
    row = a_request(state="failed")
    an_answer(row, b'<html>"busy"\n</html>')

    line = json.loads(exported(as_("operator"), "answer", "status_code"))

    assert line == {"status_code": 200, "answer": '<html>"busy"\n</html>'}


def test_a_table_has_a_header_and_disarmed_cells(as_):
    for name in ("=1+1", "@SUM(A1)", "-2", " +3", "fine", 'quo"te,d'):
        a_request(custom_id=name)

    rows = list(
        csv.reader(
            io.StringIO(exported(as_("operator"), "custom_id", "attempt", form="csv").decode())
        )
    )

    assert rows[0] == ["custom_id", "attempt"]
    assert [row[0] for row in rows[1:]] == ["'=1+1", "'@SUM(A1)", "'-2", "' +3", "fine", 'quo"te,d']
    assert {row[1] for row in rows[1:]} == {"1"}


def test_every_column_can_be_written_in_either_form(as_):
    row = a_request(
        batch=a_batch(), state="processed", cost_nano=1_500_000, settled_at=timezone.now()
    )
    an_answer(row, input_tokens=7)
    names = [column.name for column in exportlines.COLUMNS]
    client = as_("operator")

    line = json.loads(exported(client, *names))
    table = exported(client, *names, form="csv").decode()

    assert list(line) == names
    assert (line["outcome"], line["input_tokens"], line["cost"]) == ("succeeded", 7, "0.0015")
    assert table.startswith(",".join(names))


def test_what_comes_or_moves_after_the_order_changes_nothing_about_what_is_meant(as_, monkeypatch):
    rows = [a_request(custom_id=f"r{n}", state="failed") for n in range(3)]
    export = order(as_("operator"), "custom_id", state__exact="failed")
    monkeypatch.setattr(exports, "_write", lambda *_: False)
    exporting.step_due(timezone.now())
    monkeypatch.undo()

    a_request(custom_id="later", state="failed")
    type(rows[0]).objects.filter(pk=rows[0].pk).update(state="pending")
    rows[1].delete()

    assert carry_out(export).done == 2
    assert export.skipped == 1


def test_a_worker_that_dies_costs_a_chunk_and_no_line_twice(as_, monkeypatch):
    monkeypatch.setattr(exports, "_AT_ONCE", 2)
    for number in range(5):
        a_request(custom_id=f"r{number}")
    client = as_("operator")
    export = order(client)
    record, calls = exports._record, []

    def die(row, **changes):
        calls.append(changes)
        if "done" in changes and changes["done"] == 4:
            raise SystemExit
        record(row, **changes)

    monkeypatch.setattr(exports, "_record", die)
    with pytest.raises(SystemExit):
        exporting.step_due(timezone.now())
    monkeypatch.setattr(exports, "_record", record)
    carry_out(export)

    assert [json.loads(line)["custom_id"] for line in file_of(client, export).splitlines()] == [
        f"r{n}" for n in range(5)
    ]


def test_a_file_that_is_gone_ends_the_export_with_the_reason(as_, monkeypatch):
    a_request()
    export = order(as_("operator"))
    Export.objects.filter(pk=export.pk).update(matched=1, size_bytes=500)

    assert carry_out(export).state == "failed"
    assert "order it again" in export.error


def test_a_full_disk_puts_an_export_off(as_, monkeypatch):
    a_request()
    export = order(as_("operator"))
    monkeypatch.setattr(exports, "ROOM_BYTES", 10**18)

    exporting.step_due(timezone.now())

    export.refresh_from_db()
    assert (export.state, "disk" in export.error) == ("running", True)
    assert export.next_step_at > timezone.now()


def test_a_stopped_or_old_export_leaves_no_file(as_):
    a_request()
    client = as_("operator")
    done, stopped = carry_out(order(client)), order(client)
    exports.path_of(stopped).write_bytes(b"some")
    stop = reverse("admin:batching_export_stop_one", args=[stopped.pk])
    client.post(stop, {"confirmed": "yes", "reason": "wrong one"})

    assert exports.sweep(timezone.now()) == 1
    assert exports.path_of(done).exists()
    assert exports.sweep(timezone.now() + exports.KEPT + timedelta(hours=1)) == 1
    assert list(exports.folder().iterdir()) == []
    assert client.get(reverse("admin:batching_export_file", args=[done.pk])).status_code == 404


@pytest.mark.parametrize("role", ["nobody", "viewer"])
def test_an_export_is_ordered_and_downloaded_only_by_those_who_may(as_, role):
    export = Export.objects.create(state="done", columns=["custom_id"])
    client = as_(role)

    assert client.get(reverse(ORDER)).status_code == 403
    assert client.get(reverse("admin:batching_export_file", args=[export.pk])).status_code == 403


def test_what_clients_sent_takes_the_permission_to_read_it(as_):
    a_request()
    client = as_("viewer")
    user = client.get(reverse("admin:index")).wsgi_request.user
    user.user_permissions.add(Permission.objects.get(codename="order_export"))
    refused = client.post(reverse(ORDER), {"form": "csv", "columns": ["body"], "reason": "x"})
    theirs = Export.objects.create(state="done", columns=["body"], has_payload=True)

    assert refused.status_code == 200
    assert "columns" in refused.context["form"].errors
    assert client.get(reverse("admin:batching_export_file", args=[theirs.pk])).status_code == 403


def test_orders_and_downloads_are_logged(as_):
    a_request()
    client = as_("operator")

    exported(client, "custom_id", "body")

    log = list(AuditEntry.objects.filter(action__startswith="export.").order_by("pk"))
    assert [entry.action for entry in log] == ["export.order", "export.download"]
    assert (log[0].reason, log[0].after["columns"]) == ("for the books", ["custom_id", "body"])


def test_pages_lead_to_the_export_of_what_they_show(as_):
    submission = Submission.objects.create(project=a_project())
    row = a_request(batch=a_batch(), submission=submission, state="failed")
    client = as_("operator")
    listed = client.get(reverse("admin:batching_request_changelist"), {"state__exact": "failed"})
    order_page = client.get(reverse(ORDER), {"state__exact": "failed", "batch": row.batch.key})

    assert f"{reverse(ORDER)}?state__exact=failed".encode() in listed.content
    assert b"Export 1 request" in order_page.content
    assert row.custom_id.encode() in order_page.content


def test_an_export_that_has_ended_is_asked_for_no_more(as_):
    a_request()
    client = as_("operator")
    url = reverse("admin:batching_export_change", args=[order(client).pk])
    asked = {"hx-request": "true"}

    running = client.get(url, headers=asked)
    carry_out(Export.objects.get())
    ended = client.get(url, headers=asked)

    assert (running.status_code, ended.status_code) == (200, 286)
    assert b"hx-get" not in ended.content
    assert b"Download batcher-requests-" in ended.content
