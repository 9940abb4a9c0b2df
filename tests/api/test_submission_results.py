"""All results of one submission: in order, resumable, and safe in a spreadsheet."""

from __future__ import annotations

import csv
import io
import json

import pytest

from batching.api import submission_results_views
from batching.models import Answer, Request
from tests.api.conftest import first_error
from tests.api.test_reads import send
from tests.api.test_results import settle


def read(api, key, query="", **headers):
    return api.get(f"/api/submissions/{key}/results{query}", **headers)


def ids(answer):
    return [json.loads(line)["custom_id"] for line in answer.getvalue().splitlines()]


def rows(answer):
    return list(csv.reader(io.StringIO(answer.getvalue().decode())))


def test_results_come_in_the_order_in_which_they_were_sent(api, monkeypatch):
    monkeypatch.setattr(submission_results_views, "_ROWS", 2)
    key = send(api, "a", "b", "c")
    for age, custom_id in enumerate("abc"):
        settle(custom_id, seconds_ago=age)

    answer = read(api, key)

    assert ids(answer) == ["a", "b", "c"]
    assert answer["X-Complete"] == "true"
    assert answer["Content-Type"] == "application/x-ndjson"
    assert ids(read(api, key, f"?cursor={answer['X-Next-Cursor']}")) == []


def test_the_answer_ends_before_the_first_unfinished_one_and_goes_on_later(api):
    key = send(api, "a", "b", "c")
    settle("a")
    settle("c")

    first = read(api, key)

    assert (ids(first), first["X-Complete"]) == (["a"], "false")
    assert ids(read(api, key, "?partial=true")) == ["a", "c"]
    settle("b")
    assert ids(read(api, key, f"?cursor={first['X-Next-Cursor']}")) == ["b", "c"]


def test_a_download_that_broke_off_goes_on_behind_its_last_line(api):
    key = send(api, "a", "b", "c")
    for custom_id in "abc":
        settle(custom_id)

    assert ids(read(api, key, "?after=a")) == ["b", "c"]
    assert [row[0] for row in rows(read(api, key, "?format=csv&after=b"))] == ["c"]


def test_nothing_yet_is_an_empty_answer(api):
    key = send(api, "a")

    answer = read(api, key)

    assert (answer.getvalue(), answer["X-Complete"]) == (b"", "false")


def test_csv_has_a_column_for_each_fact(api):
    key = send(api, "a")
    settle("a", text='x,"y"\n')
    Answer.objects.update(input_tokens=3, output_tokens=4)

    for answer in (read(api, key, "?format=csv"), read(api, key, accept="text/csv")):
        assert answer["Content-Type"] == "text/csv; charset=utf-8"
        head, row = rows(answer)
        found = dict(zip(head, row, strict=True))
        assert (found["custom_id"], found["outcome"]) == ("a", "succeeded")
        assert json.loads(found["response"]) == {"body": 'x,"y"\n'}
        assert (found["input_tokens"], found["output_tokens"], found["error"]) == ("3", "4", "")


@pytest.mark.parametrize("custom_id", ["=1+1", "+1", "-1", "@x"])
def test_no_cell_is_a_formula(api, custom_id):
    key = send(api, custom_id)
    settle(custom_id)

    assert rows(read(api, key, "?format=csv"))[1][0] == f"'{custom_id}"


def test_half_a_surrogate_pair_stops_no_file(api):
    key = send(api, "a", "b")
    settle("a")
    settle("b")
    line = rb'{"id":"1","response":{"status_code":200,"body":"\ud800"},"error":null}'
    Answer.objects.filter(request__custom_id="a").update(line=line)

    found = rows(read(api, key, "?format=csv"))

    assert [row[0] for row in found] == ["custom_id", "a", "b"]
    assert r"\ud800" in found[1][3]


@pytest.mark.parametrize(
    "query", ["?format=xml", "?after=nobody", "?after=%00", "?cursor=x", "?partial=2", "?x=1"]
)
def test_a_wrong_parameter_is_refused(api, query):
    answer = read(api, send(api, "a"), query)

    assert (answer.status_code, first_error(answer)["code"]) == (400, "invalid_parameter")


def test_anothers_submission_is_not_there(api, stranger):
    key = send(api, "a")

    assert read(stranger, key).status_code == 404
    assert read(api, "sub_%00").status_code == 404
    assert Request.objects.count() == 1
