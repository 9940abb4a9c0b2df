"""Limits that a person sets: figures as they are written, who wins, and where each setting comes from."""

from __future__ import annotations

import pytest
from django.urls import reverse

from batching.limits import configured_tokens
from batching.models import Account, AuditEntry, Flag, Lane, TokenLimit
from tests.batching.rows import a_lane, an_account

pytestmark = pytest.mark.django_db

LIST, ADD = "admin:batching_tokenlimit_changelist", "admin:batching_tokenlimit_add"


def holds(model, **account):
    an_account()
    Account.objects.update(**account)
    lane = Lane.objects.select_related("account").get(pk=a_lane(model).pk)
    return configured_tokens(lane)


@pytest.mark.parametrize("typed", ["1,234,567", "1234567", " 1 234 567 ", "1_234_567", "1'234'567"])
def test_a_figure_is_read_as_people_write_it(as_, typed):
    answer = as_("admin").post(reverse(ADD), {"prefix": " GPT-4.1-Mini ", "tokens": typed})

    assert answer.status_code == 302
    row = TokenLimit.objects.get()
    assert (row.prefix, row.tokens) == ("gpt-4.1-mini", 1_234_567)


@pytest.mark.parametrize("typed", ["", "0", "000", "-5", "1.5", "many", "1e6", "9" * 20])
def test_a_figure_that_is_none_is_refused_at_its_field(as_, typed):
    answer = as_("admin").post(reverse(ADD), {"prefix": "gpt-4.1-mini", "tokens": typed})

    assert list(answer.context["adminform"].form.errors) == ["tokens"]
    assert not TokenLimit.objects.exists()


def test_a_blank_prefix_is_refused(as_):
    answer = as_("admin").post(reverse(ADD), {"prefix": "  ", "tokens": "5"})

    assert list(answer.context["adminform"].form.errors) == ["prefix"]


def test_the_same_prefix_twice_is_refused(as_):
    TokenLimit.objects.create(prefix="gpt-4.1", tokens=5)

    answer = as_("admin").post(reverse(ADD), {"prefix": "GPT-4.1", "tokens": "6"})

    assert answer.status_code == 200
    assert TokenLimit.objects.get().tokens == 5


def test_the_longest_prefix_holds_in_any_case():
    TokenLimit.objects.create(prefix="gpt-4.1", tokens=5)
    TokenLimit.objects.create(prefix="gpt-4.1-mini", tokens=7)

    assert holds("GPT-4.1-mini-2025-04-14") == (7, "model")
    assert holds("gpt-4.1-2025-04-14") == (5, "model")
    assert holds("gpt-4o-mini") == (2_000_000, "table")


def test_the_nearer_figure_holds():
    account = an_account()
    TokenLimit.objects.create(prefix="gpt", tokens=1)
    assert holds("gpt-5") == (1, "model")
    assert holds("gpt-5", token_limit=2) == (2, "account")

    TokenLimit.objects.create(prefix="gpt", tokens=3, account=account)
    assert holds("gpt-5") == (3, "model")
    Lane.objects.update(token_limit=4)
    assert holds("gpt-5") == (4, "lane")


def test_another_accounts_figure_does_not_hold():
    TokenLimit.objects.create(prefix="gpt", tokens=3, account=an_account("other"))

    assert holds("gpt-4o-mini") == (2_000_000, "table")


def test_a_deleted_row_gives_the_table_back_also_for_names_with_dots(as_):
    row = TokenLimit.objects.create(prefix="gpt-4.1-mini", tokens=5)
    url = reverse("admin:batching_tokenlimit_delete", args=[row.pk])

    assert as_("admin").post(url, {"post": "yes"}).status_code == 302

    assert holds("gpt-4.1-mini") == (2_000_000, "table")


def test_a_change_is_in_the_audit_log(as_):
    row = TokenLimit.objects.create(prefix="gpt-5", tokens=5)
    url = reverse("admin:batching_tokenlimit_change", args=[row.pk])

    as_("admin").post(url, {"prefix": "gpt-5", "tokens": "1,000"})

    entry = AuditEntry.objects.get(action="tokenlimit.change")
    assert (entry.before, entry.after) == ({"tokens": 5}, {"tokens": 1000})


@pytest.mark.parametrize(("role", "status"), [("viewer", 403), ("operator", 403), ("admin", 200)])
def test_only_those_who_keep_accounts_keep_limits(as_, role, status):
    client = as_(role)

    assert client.get(reverse(ADD)).status_code == status
    assert client.get(reverse(LIST)).status_code == 200
    assert client.get(reverse("admin:batching_settings")).status_code == 200


def shown(client):
    """Return the page's settings by name, as (value, source)."""
    sections = client.get(reverse("admin:batching_settings")).context["sections"]
    return {row.name: (row.value, row.source) for section in sections for row in section.rows}


def test_each_setting_shows_its_value_and_where_it_comes_from(as_, settings, monkeypatch):
    an_account("main", max_requests=500)
    a_lane("gpt-4.1", account=an_account("main"), token_limit=9)
    monkeypatch.setitem(settings.ENVIRONMENT._source, "BATCHER_POLL_SECONDS", "60")
    monkeypatch.delitem(settings.ENVIRONMENT._source, "BATCHER_MAX_WAIT_SECONDS", raising=False)

    found = shown(as_("viewer"))

    assert found["main · max_requests"] == ("500", "row")
    assert found["main · max_bytes"] == ("200,000,000", "provider")
    assert found["main · max_batches_in_flight"] == ("no limit", "none")
    assert found["main · poll_seconds"][1] == "for all"
    assert found["BATCHER_POLL_SECONDS"][1] == "environment"
    assert found["BATCHER_MAX_WAIT_SECONDS"][1] == "default"
    assert found["gpt-4.1 /v1/responses · main · token_limit"] == ("9", "row (lane)")
    assert found["maintenance"] == ("off", "default")


def test_no_secret_is_on_the_page(as_, settings):
    an_account("main", api_key="sk-very-secret-1234", webhook_secret="whsec_c2VjcmV0c2VjcmV0")

    page = as_("admin").get(reverse("admin:batching_settings")).content.decode()

    assert "sk-very" not in page
    assert "whsec_" not in page
    assert not [key for key in settings.BATCHER_ENCRYPTION_KEYS if key in page]
    assert settings.SECRET_KEY not in page
    assert shown(as_("root"))["BATCHER_ENCRYPTION_KEYS"] == ("not set", "default")


def test_the_page_takes_few_queries_whatever_there_is(as_, django_assert_max_num_queries):
    client = as_("admin")
    for n in range(20):
        TokenLimit.objects.create(prefix=f"m-{n}", tokens=5)
        a_lane(f"m-{n}")

    with django_assert_max_num_queries(12):
        client.get(reverse("admin:batching_settings"))


def test_maintenance_outlives_a_restart(as_):
    add = reverse("admin:batching_flag_add")
    as_("operator").post(add, {"name": "maintenance", "is_on": "on", "reason": "moving house"})

    assert Flag.is_raised(Flag.MAINTENANCE)  # a row, read by every process
    assert shown(as_("viewer"))["maintenance"] == ("on", "row")
    assert AuditEntry.objects.get(action="flag.add").after["reason"] == "moving house"
