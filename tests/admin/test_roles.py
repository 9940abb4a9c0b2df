"""Who may see and do what: role × page, and role × action, tried over HTTP."""

from __future__ import annotations

import re

import pytest
from django.urls import reverse

from batching.admin import (
    accounts,
    batches,
    destinations,
    export_rows,
    lanes,
    requests,
    runs,
    submissions,
)
from batching.models import ApiKey, Batch, Export, Flag, Run, Submission
from delivery import replay_admin
from delivery.models import Attempt, Replay
from tests.admin.conftest import ROLES
from tests.batching.rows import (
    a_batch,
    a_destination,
    a_lane,
    a_project,
    a_request,
    an_account,
)

LOOK = {"viewer", "operator", "admin", "root"}
KEEP = {"admin", "root"}
PAGES = {
    "batching_batch": LOOK,
    "batching_request": LOOK,
    "batching_submission": LOOK,
    "batching_lane": LOOK,
    "batching_destination": LOOK,
    "batching_account": LOOK,
    "batching_project": LOOK,
    "batching_flag": LOOK,
    "batching_override": LOOK,
    "delivery_attempt": LOOK,
    "delivery_rejection": LOOK,
    "delivery_replay": LOOK,
    "batching_run": LOOK,
    "batching_export": LOOK,
    "delivery_eventdelivery": LOOK,
    "delivery_eventsubscription": LOOK,
    "delivery_intakestatus": LOOK,
    "django_fsm_log_statelog": LOOK,
    "django_celery_beat_periodictask": LOOK,
    "django_celery_beat_intervalschedule": KEEP,
    "batching_apikey": KEEP,
    "auth_user": KEEP,
    "auth_group": KEEP,
}
ADDS = {
    "batching_batch": set(),
    "batching_request": set(),
    "batching_submission": set(),
    "batching_lane": set(),
    "delivery_attempt": set(),
    "delivery_rejection": set(),
    "delivery_replay": set(),
    "batching_run": set(),
    "batching_export": set(),
    "delivery_intakestatus": set(),
    "django_fsm_log_statelog": set(),
    "batching_flag": {"operator", "admin", "root"},
    "batching_destination": KEEP,
    "batching_account": KEEP,
    "batching_project": KEEP,
    "batching_apikey": KEEP,
    "auth_user": KEEP,
    "auth_group": {"root"},
}


def expected(role, allowed, opened=200):
    return opened if role in allowed else 403


@pytest.mark.parametrize("role", ROLES)
def test_each_list_opens_for_those_who_may_look(as_, role):
    client = as_(role)

    found = {page: client.get(reverse(f"admin:{page}_changelist")).status_code for page in PAGES}

    assert found == {page: expected(role, allowed) for page, allowed in PAGES.items()}


@pytest.mark.parametrize("role", ROLES)
def test_each_form_for_a_new_row_opens_for_those_who_may_keep_it(as_, role):
    client = as_(role)

    found = {page: client.get(reverse(f"admin:{page}_add")).status_code for page in ADDS}

    assert found == {page: expected(role, allowed) for page, allowed in ADDS.items()}


MOVES = [
    *(("batching_batch", move) for move in batches.MOVES),
    *(("batching_request", move) for move in requests.MOVES),
    *(("batching_destination", move) for move in destinations.MOVES),
    *(("delivery_replay", move) for move in replay_admin.MOVES),
    *(("batching_run", move) for move in runs.MOVES),
    *(("batching_export", move) for move in export_rows.MOVES),
    *(("batching_submission", move) for move in submissions.MOVES),
    *(("batching_lane", move) for move in lanes.MOVES),
    *(("batching_account", move) for move in accounts.MOVES if not move.calls_outside),
]
ROWS = {
    "batching_batch": a_batch,
    "batching_request": a_request,
    "batching_destination": a_destination,
    "batching_export": Export.objects.create,
    "batching_submission": lambda: Submission.objects.create(project=a_project()),
    "batching_run": lambda: Run.objects.create(rows_of="batching.batch", move="pause"),
    "delivery_replay": lambda: Replay.objects.create(per_second=1),
    "batching_lane": a_lane,
    "batching_account": an_account,
}
OPERATES = {"operator", "admin", "root"}


@pytest.mark.parametrize("role", ROLES)
@pytest.mark.parametrize(
    ("page", "move"), MOVES, ids=[f"{page}-{move.name}" for page, move in MOVES]
)
def test_each_move_is_for_those_who_may_make_it(as_, role, page, move):
    row = ROWS[page]()
    client = as_(role)
    allowed = (
        OPERATES
        if {".operate_", ".order_"} & set(re.findall(r"\.[a-z]+_", move.permission))
        else KEEP
    )
    done = 200 if move.asks_reason else 302
    url = reverse(f"admin:{page}_{move.name}_one", args=[row.pk])

    assert client.get(url).status_code == expected(role, allowed)
    assert client.post(url, {"confirmed": "yes"}).status_code == expected(role, allowed, done)


@pytest.mark.parametrize("role", ROLES)
@pytest.mark.parametrize(
    ("page", "move"), MOVES, ids=[f"{page}-{move.name}" for page, move in MOVES]
)
def test_each_move_on_many_rows_is_for_those_who_may_make_it(as_, role, page, move):
    row = ROWS[page]()
    allowed = (
        OPERATES
        if {".operate_", ".order_"} & set(re.findall(r"\.[a-z]+_", move.permission))
        else KEEP
    )
    chosen = {"action": move.name, "_selected_action": row.pk, "index": 0}

    shown = as_(role).post(reverse(f"admin:{page}_changelist"), chosen, follow=True)

    is_offered = role in allowed and not move.is_for_one
    assert (b"Kept in the history" in shown.content) == is_offered


@pytest.mark.parametrize("role", ROLES)
def test_what_a_list_shows_is_sent_again_by_those_who_operate(as_, role):
    client = as_(role)
    url = reverse("admin:batching_request_replay")
    listed = client.get(reverse("admin:batching_request_changelist"))

    assert client.get(url).status_code == expected(role, OPERATES)
    assert client.post(url, {"sent": "failed"}).status_code == expected(role, OPERATES)
    assert (url.encode() in listed.content) == (role in OPERATES)


@pytest.mark.parametrize(("role", "buttons"), [("viewer", False), ("operator", True)])
def test_a_viewer_is_shown_no_action(as_, role, buttons):
    batch = a_batch()
    client = as_(role)

    page = client.get(reverse("admin:batching_batch_change", args=[batch.pk])).content.decode()
    listed = client.get(reverse("admin:batching_batch_changelist")).content.decode()

    assert (f"/admin/batching/batch/{batch.pk}/seal/" in page) == buttons
    assert ('value="seal"' in listed) == buttons


@pytest.mark.parametrize("role", ROLES)
def test_bodies_open_only_with_their_own_permission(as_, role):
    request = a_request(body={"model": "m", "input": "a private question"})
    client = as_(role)

    answers = [
        client.get(reverse("admin:batching_request_payload", args=[request.pk])),
        client.get(reverse("admin:batching_request_raw", args=[request.pk, "body"])),
    ]

    assert {a.status_code for a in answers} == {expected(role, OPERATES)}
    assert all((b"a private question" in a.content) == (role in OPERATES) for a in answers)


def test_a_viewer_sees_nothing_of_a_body_on_any_page(as_):
    request = a_request(body={"model": "m", "input": "a private question"}, batch=a_batch())
    client = as_("viewer")

    for url in (
        reverse("admin:batching_request_change", args=[request.pk]),
        reverse("admin:batching_request_changelist"),
        reverse("admin:batching_batch_change", args=[request.batch_id]),
    ):
        content = client.get(url).content
        assert b"a private question" not in content
        assert b"/payload/" not in content


@pytest.mark.parametrize("role", ["viewer", "operator", "admin", "root"])
def test_rows_of_the_machine_can_be_neither_changed_nor_deleted(as_, role):
    request = a_request(batch=a_batch())
    Attempt.objects.create(
        request=request, destination=a_destination(), number=1, outcome="delivered"
    )
    client = as_(role)

    for page, row in (
        ("batching_request", request),
        ("batching_batch", request.batch),
        ("delivery_attempt", Attempt.objects.get()),
    ):
        assert client.post(reverse(f"admin:{page}_change", args=[row.pk])).status_code == 403
        assert client.post(reverse(f"admin:{page}_delete", args=[row.pk])).status_code == 403


def test_the_first_page_tells_someone_without_a_group_whom_to_ask(as_):
    assert b"in no group yet" in as_("nobody").get(reverse("admin:index")).content


def test_an_administrator_can_not_raise_himself(as_):
    client = as_("admin")
    me = client.get(reverse("admin:index")).wsgi_request.user
    fields = {"username": me.username, "is_staff": "on", "is_active": "on", "is_superuser": "on"}
    fields |= {"date_joined_0": "2026-01-01", "date_joined_1": "00:00:00"}

    client.post(reverse("admin:auth_user_change", args=[me.pk]), fields)

    me.refresh_from_db()
    assert not me.is_superuser
    assert me.username == fields["username"]


def test_an_administrator_can_not_take_over_a_superuser(as_, django_user_model):
    boss = django_user_model.objects.create_superuser("boss", password="hers")
    client = as_("admin")

    page = reverse("admin:auth_user_password_change", args=[boss.pk])

    assert (
        client.post(page, {"password1": "mine1234!", "password2": "mine1234!"}).status_code == 403
    )
    assert client.post(reverse("admin:auth_user_delete", args=[boss.pk])).status_code == 403


def test_rows_that_others_point_to_are_not_deleted(as_):
    client = as_("root")
    key, _ = ApiKey.issue(a_project(), "k")
    rows = (
        key,
        a_project(),
        a_lane(),
        an_account(),  # the lane's
        Flag.objects.create(name=Flag.MAINTENANCE),
    )

    for row in rows:
        page = f"admin:{row._meta.app_label}_{row._meta.model_name}_delete"
        assert client.post(reverse(page, args=[row.pk]), {"post": "yes"}).status_code == 403
    assert Batch.objects.count() == 0
