"""Views of a list that a person keeps: a name for its filters, one's own alone."""

from __future__ import annotations

import pytest
from django.urls import reverse

from batching.admin import saved_views
from batching.models import SavedView

pytestmark = pytest.mark.django_db
LIST = reverse("admin:batching_request_changelist")
KEEP = reverse("admin:batching_request_keep_view")


def keep(client, name, query=""):
    return client.post(KEEP, {"name": name, "query": query})


def offered(client, query=""):
    return [view["name"] for view in client.get(f"{LIST}?{query}").context["saved_views"]]


def test_a_view_is_kept_without_the_place_and_offered_by_name(as_):
    client = as_("viewer")

    answer = keep(client, "bad ones", "state__exact=failed&model=m&top=9&before=7&p=2&q=")

    assert answer.url == f"{LIST}?state__exact=failed&model=m"
    assert SavedView.objects.get().query == "state__exact=failed&model=m"
    assert b'aria-current="page">bad ones' in client.get(answer.url).content


def test_a_name_that_is_there_means_the_new_filters(as_):
    client = as_("viewer")
    keep(client, "mine", "model=a")

    keep(client, "mine", "model=b")

    assert SavedView.objects.get().query == "model=b"


def test_views_are_their_owners_alone(as_):
    keep(as_("operator"), "theirs")
    theirs = SavedView.objects.get()
    client = as_("viewer")

    client.post(reverse("admin:batching_request_drop_view", args=[theirs.pk]))

    assert offered(client) == []
    assert SavedView.objects.get() == theirs


def test_a_view_is_taken_away(as_):
    client = as_("viewer")
    keep(client, "a")
    keep(client, "b")

    answer = client.post(
        reverse("admin:batching_request_drop_view", args=[SavedView.objects.get(name="a").pk]),
        {"query": "model=m"},
    )

    assert answer.url == f"{LIST}?model=m"
    assert offered(client) == ["b"]


@pytest.mark.parametrize("name", ["", " ", "n" * 61])
def test_a_name_that_is_none_keeps_nothing(as_, name):
    keep(as_("viewer"), name)

    assert not SavedView.objects.exists()


def test_there_is_an_end_to_views(as_, monkeypatch):
    monkeypatch.setattr(saved_views, "MOST", 1)
    client = as_("viewer")
    keep(client, "one")

    keep(client, "two")
    keep(client, "one", "model=m")

    assert list(SavedView.objects.values_list("name", "query")) == [("one", "model=m")]


def test_only_who_may_see_a_list_keeps_views_of_it_and_never_by_looking(as_):
    assert keep(as_("nobody"), "x").status_code == 403
    assert as_("viewer").get(KEEP).status_code == 405
