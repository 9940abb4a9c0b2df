"""Settings that an admin changes in the panel: checked, logged, in force at once, and taken back."""

from __future__ import annotations

import time

import pytest
from django.urls import reverse

from batching import overrides
from batching.models import AuditEntry, Override
from batching.overrides import effective
from tests.batching.rows import an_account

pytestmark = pytest.mark.django_db(transaction=True)

NAME = "BATCHER_MAX_OVERTAKES"


def page(name=NAME):
    return reverse("admin:batching_setting", args=[name])


def saved(client, value, name=NAME, reason="a quiet night", **more):
    return client.post(page(name), {"value": value, "reason": reason, **more})


def row_on_page(client, name=NAME):
    sections = client.get(reverse("admin:batching_settings")).context["sections"]
    return next(row for section in sections for row in section.rows if row.name == name)


def test_what_is_set_here_holds_at_once_and_says_who_set_it(as_):
    admin = as_("admin")

    assert saved(admin, "7").status_code == 302

    row = row_on_page(admin)
    assert effective(NAME) == 7
    assert (row.value, row.source, row.by) == ("7", "set here", "the-admin")


def test_what_is_set_here_comes_before_the_environment(as_, settings, monkeypatch):
    monkeypatch.setitem(settings.ENVIRONMENT._source, NAME, "30")
    settings.BATCHER_MAX_OVERTAKES = 30
    admin = as_("admin")
    assert row_on_page(admin).source == "environment"

    saved(admin, "7")

    assert effective(NAME) == 7
    assert admin.get(page()).context["environment"] == "30"


def test_what_is_taken_back_is_what_the_environment_says_again(as_):
    admin = as_("admin")
    before = effective(NAME)
    saved(admin, "7")

    saved(admin, "", reason="morning", deed="reset")

    assert effective(NAME) == before
    assert row_on_page(admin).source == "default"
    assert not Override.objects.exists()


def test_each_change_is_in_the_audit_log_with_its_reason(as_):
    admin = as_("admin")
    saved(admin, "7")
    saved(admin, "8")
    saved(admin, "", reason="morning", deed="reset")

    told = AuditEntry.objects.filter(object_key=NAME).order_by("pk")
    assert [(one.action, one.before, one.after, one.reason) for one in told] == [
        ("setting.change", None, {"value": "7"}, "a quiet night"),
        ("setting.change", {"value": "7"}, {"value": "8"}, "a quiet night"),
        ("setting.reset", {"value": "8"}, None, "morning"),
    ]
    assert next(c.reason for c in admin.get(page()).context["changes"]) == "morning"


@pytest.mark.parametrize(
    ("name", "value"),
    [
        pytest.param(NAME, "", id="blank"),
        pytest.param(NAME, "-1", id="too small"),
        pytest.param(NAME, "100001", id="too large"),
        pytest.param(NAME, "many", id="no number"),
        pytest.param("BATCHER_RETRY_DELAYS", "5,x", id="no list of seconds"),
    ],
)
def test_a_value_that_the_environment_could_not_have_is_refused_at_its_field(as_, name, value):
    answer = saved(as_("admin"), value, name=name)

    assert list(answer.context["form"].errors) == ["value"]
    assert not Override.objects.exists()


def test_no_setting_is_changed_without_a_reason(as_):
    answer = saved(as_("admin"), "7", reason=" ")

    assert list(answer.context["form"].errors) == ["reason"]
    assert not Override.objects.exists()


@pytest.mark.parametrize(
    "name", ["DATABASE_URL", "BATCHER_ENCRYPTION_KEYS", "PORT", "BATCHER_WEBHOOK_PORTS", "NOTHING"]
)
def test_secrets_addresses_and_what_is_no_setting_have_no_page(as_, name):
    assert as_("admin").get(page(name)).status_code == 404


@pytest.mark.parametrize(("role", "status"), [("viewer", 403), ("operator", 403), ("admin", 200)])
def test_only_admins_change_settings(as_, role, status):
    client = as_(role)

    assert client.get(page()).status_code == status
    assert bool(row_on_page(client).url) is (status == 200)


def test_another_process_goes_by_the_row_when_what_it_read_is_old(monkeypatch):
    overrides.forget()
    before = effective(NAME)
    Override.objects.create(name=NAME, value="7", reason="r", changed_by="a")
    assert effective(NAME) == before

    later = time.monotonic() + overrides.FRESH_S
    monkeypatch.setattr(overrides.time, "monotonic", lambda: later)

    assert effective(NAME) == 7


def test_a_row_that_this_version_does_not_understand_is_ignored(as_):
    Override.objects.create(name=NAME, value="lots", reason="r", changed_by="a")
    Override.objects.create(name="BATCHER_GONE", value="1", reason="r", changed_by="a")
    overrides.forget()

    assert effective(NAME) == 20
    assert row_on_page(as_("admin")).source == "default"


def test_many_questions_cost_one_query(django_assert_num_queries):
    overrides.forget()

    with django_assert_num_queries(1):
        assert [effective(NAME) for _ in range(5)] == [20] * 5


def test_polling_goes_by_what_is_set(as_):
    from batching.polling import pace

    saved(as_("admin"), "17", name="BATCHER_POLL_SECONDS")

    assert pace(an_account()).total_seconds() == 17
