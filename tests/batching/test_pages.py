"""Pages by id: every row once and in order, however the ids lie, in few queries."""

from __future__ import annotations

import pytest

from batching import pages
from batching.models import Flag

LAYOUTS = {
    "none": [],
    "one": [7],
    "dense": range(1, 31),
    "sparse": range(1, 3_000, 97),
    "a gap": [1, 2, 3, 50_000, 50_001, 9_000_000],
    "sparse, then dense": [*range(1, 2_000, 400), *range(5_000, 5_040)],
}


def flags(ids):
    Flag.objects.all().delete()
    Flag.objects.bulk_create(Flag(pk=pk, name=f"flag {pk}") for pk in ids)
    return Flag.objects.all()


@pytest.mark.django_db
@pytest.mark.parametrize("ids", LAYOUTS.values(), ids=LAYOUTS)
def test_each_row_comes_once_and_in_order(ids):
    found = list(pages.in_order(flags(ids), 4))

    assert [row.pk for page in found for row in page] == list(ids)
    assert all(len(page) <= 4 for page in found)


@pytest.mark.django_db
def test_it_goes_on_behind_a_row():
    found = pages.in_order(flags(range(1, 21)), 4, after=13)

    assert [row.pk for page in found for row in page] == [14, 15, 16, 17, 18, 19, 20]


@pytest.mark.django_db
def test_a_page_costs_one_query(django_assert_max_num_queries):
    rows = flags(range(1, 41))

    with django_assert_max_num_queries(13):
        assert len(list(pages.in_order(rows, 4))) == 10


@pytest.mark.django_db
def test_many_gaps_cost_few_queries(django_assert_max_num_queries):
    rows = flags(range(1, 100_000, 2_500))

    with django_assert_max_num_queries(40):
        assert sum(map(len, pages.in_order(rows, 4))) == 40
