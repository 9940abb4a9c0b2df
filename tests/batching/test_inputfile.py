"""The input file of a batch: the same requests, the same bytes."""

from __future__ import annotations

import json

import pytest

from batching import inputfile
from batching.limits import line_bytes
from tests.batching.fake_provider import FakeProvider
from tests.batching.rows import a_batch, a_request

pytestmark = pytest.mark.django_db


def write(batch):
    return inputfile.write(batch, FakeProvider())


def with_body(batch, body: bytes):
    request = a_request(batch=batch, size_bytes=line_bytes("/v1/responses", body))
    type(request.payload).objects.filter(pk=request.pk).update(body=body)
    return request


def test_the_same_requests_give_the_same_file():
    batch = a_batch()
    requests = [a_request(batch=batch) for _ in range(3)]

    first = write(batch)
    content = first.path.read_bytes()
    second = write(batch)

    assert first == second
    assert second.path.read_bytes() == content
    ids = [json.loads(line)["custom_id"] for line in content.splitlines()]
    assert ids == [r.key for r in requests]
    assert (first.lines, first.size_bytes) == (3, len(content))


def test_only_pending_requests_are_written():
    batch = a_batch()
    pending = a_request(batch=batch)
    for state in ("processing", "processed", "delivered", "failed", "cancelled"):
        a_request(batch=batch, state=state)
    a_request(batch=a_batch())

    file = write(batch)

    assert file.lines == 1
    assert json.loads(file.path.read_bytes())["custom_id"] == pending.key


@pytest.mark.parametrize(
    ("page_rows", "page_bytes"), [(1, 10**6), (2, 10**6), (100, 1), (100, 450)]
)
def test_pages_are_bounded_and_change_nothing(monkeypatch, page_rows, page_bytes):
    batch = a_batch()
    for number in range(7):
        with_body(batch, b'{"model":"m","n":%d}' % number)
    whole = write(batch).path.read_bytes()

    monkeypatch.setattr(inputfile, "_PAGE_ROWS", page_rows)
    monkeypatch.setattr(inputfile, "_PAGE_BYTES", page_bytes)

    assert write(batch).path.read_bytes() == whole
    assert len(list(inputfile._pages(batch))) > 1


def test_a_body_over_several_lines_is_one_line_of_the_file():
    batch = a_batch()
    with_body(batch, b'{\r\n  "model": "m",\n  "input": "a\\nb"\n}')

    content = write(batch).path.read_bytes()

    assert content.count(b"\n") == 1
    assert json.loads(content)["body"] == {"model": "m", "input": "a\nb"}


def test_a_body_is_spliced_in_as_it_came():
    batch = a_batch()
    body = '{ "model":"m", "n": 1.10, "t": "\u2028 \\ud800 \\u0000", "n": 1 }'.encode()
    with_body(batch, body)

    assert body in write(batch).path.read_bytes()


def test_half_a_file_of_a_crash_is_gone_after_the_next_writing(data_dir):
    batch = a_batch()
    a_request(batch=batch)
    (data_dir / "batches").mkdir()
    (data_dir / "batches" / f"{batch.key}.0.partial").write_bytes(b'{"custom')

    file = write(batch)

    assert list(file.path.parent.iterdir()) == [file.path]
