"""What Batcher relies on from every provider. Runs over the registry with recorded samples.

samples/<kind>/contract.json says where each call goes and which recorded answer it gets, what the
recorded batches mean and how the recorded lines are to be read. docs/adding-a-provider.md explains it.
"""

from __future__ import annotations

import json
import re
from datetime import UTC, datetime
from pathlib import Path

import pytest
import requests
import responses

from batching.providers.base import (
    Kind,
    NotFound,
    ProviderError,
    RemoteBatch,
    RemoteFile,
    Source,
    Status,
    TakesFiles,
    Trouble,
)
from batching.providers.registry import KINDS, limits_for, provider_for, traits_for

SAMPLES = Path(__file__).parent / "samples"
BASE_URL = "https://provider.test/base"
KEY = "key-0123456789abcdef"
LONG_AGO = datetime(2001, 1, 1, tzinfo=UTC)

CALLS = {
    "check": lambda provider, folder: provider.check(),
    "upload": lambda provider, folder: provider.upload(_input(folder), filename="input.jsonl"),
    "find_file": lambda provider, folder: provider.find_file("input.jsonl"),
    "create": lambda provider, folder: provider.create(
        source=Source(file_id="file_1", path=_input(folder)),
        endpoint="/v1/chat/completions",
        metadata={"batcher_batch": "bat_1"},
    ),
    "retrieve": lambda provider, folder: provider.retrieve("batch_1"),
    "list_batches": lambda provider, folder: list(provider.list_batches(since=LONG_AGO)),
    "cancel": lambda provider, folder: provider.cancel("batch_1"),
    "download": lambda provider, folder: provider.download("file_1", into=folder / "answers.jsonl"),
    "delete_file": lambda provider, folder: provider.delete_file("file_1"),
}
WITH_EFFECT = {"upload", "create", "cancel"}
JSON_CALLS = sorted(CALLS.keys() - {"download", "delete_file"})


class Samples:
    """The recorded answers of one kind."""

    def __init__(self, kind: str) -> None:
        contract = json.loads((SAMPLES / kind / "contract.json").read_text())
        self.folder = SAMPLES / contract.get("same_as", kind)
        self.contract = json.loads((self.folder / "contract.json").read_text())

    def content(self, name: str) -> bytes:
        return (self.folder / name).read_bytes()

    def answer(self, call: str, **given) -> None:
        """Let the call be answered from the sample, or as given."""
        told = self.contract["calls"][call]
        if not given:
            given = {"body": self.content(told["answer"]), "status": 200}
        responses.add(told["method"], BASE_URL + told["path"], **given)


def of_each_kind(calls):
    """Run a test for each of these calls that a kind knows, and each kind."""
    pairs = [
        (kind, call) for kind in KINDS for call in calls if call in Samples(kind).contract["calls"]
    ]
    return pytest.mark.parametrize(("kind", "call"), pairs)


def _input(folder: Path) -> Path:
    path = folder / "input.jsonl"
    path.write_bytes(b'{"custom_id":"req_1"}\n')
    return path


@pytest.fixture(params=KINDS)
def kind(request) -> str:
    return request.param


@pytest.fixture
def samples(kind) -> Samples:
    return Samples(kind)


@pytest.fixture
def provider(kind):
    return provider_for(kind, base_url=BASE_URL, api_key=KEY)


@pytest.fixture
def trouble(provider, tmp_path):
    """Make a call that must fail and return its error, checked for leaks."""

    def made(call: str) -> ProviderError:
        with pytest.raises(ProviderError) as failure:
            CALLS[call](provider, tmp_path)
        assert KEY not in str(failure.value)
        return failure.value

    return made


def test_limits_are_known_without_an_account(kind, provider):
    limits = limits_for(kind)

    assert (limits, traits_for(kind)) == (provider.limits, provider.traits)
    assert limits.max_requests > 0
    assert 0 < limits.max_line_bytes <= limits.max_bytes
    assert limits.endpoints
    assert all(endpoint.startswith("/") for endpoint in limits.endpoints)


def test_input_line_is_one_line_with_the_body_as_it_came(provider):
    body = '{"model":"m", "a":1.10,"a":1.1,"s":"\u2028\\n\\u0000"}'.encode()

    line = provider.render_line(custom_id="req_1", endpoint="/v1/responses", body=body)

    assert line.endswith(b"\n")
    assert line.count(b"\n") == 1
    assert body in line
    assert "req_1" in json.dumps(json.loads(line))


def test_pretty_printed_body_still_makes_one_line_of_the_same_meaning(provider):
    body = (
        json.dumps({"model": "m", "input": "two\nlines"}, indent=2).replace("\n", "\r\n").encode()
    )

    line = provider.render_line(custom_id="req_1", endpoint="/v1/responses", body=body)

    assert len(line.splitlines()) == 1
    assert json.dumps(json.loads(body)) in json.dumps(json.loads(line))


def test_recorded_lines_are_read_as_recorded(provider, samples):
    for name, expected in samples.contract["answers"].items():
        answers = list(provider.read_answers(samples.folder / name))

        assert b"".join(each.raw + b"\n" for each in answers) == samples.content(name)
        assert [_as_recorded(each) for each in answers] == expected


def _as_recorded(answer) -> dict:
    names = ("custom_id", "kind", "status_code", "error_code", "is_retryable")
    usage = answer.usage
    tokens = usage and [
        usage.input_tokens,
        usage.cached_tokens,
        usage.output_tokens,
        usage.reasoning_tokens,
    ]
    return {name: getattr(answer, name) for name in names} | {"usage": tokens}


def test_recorded_lines_cover_every_way_to_end(samples):
    lines = [each for lines in samples.contract["answers"].values() for each in lines]

    assert {each["kind"] for each in lines} >= {Kind.SUCCEEDED, Kind.FAILED, Kind.NOT_RUN}


@pytest.mark.parametrize("junk", [b"{", b"[]", b"7", b"null", b'{"custom_id":7}', b"\xff", b"{}"])
def test_line_of_nobody_is_malformed_and_stops_nothing(provider, samples, tmp_path, junk):
    good = samples.content("output.jsonl").splitlines()[0]
    path = tmp_path / "answers.jsonl"
    path.write_bytes(junk + b"\n\n \r\n" + good)

    bad, read = provider.read_answers(path)

    assert (bad.kind, bad.raw, bad.custom_id) == (Kind.MALFORMED, junk, None)
    assert (read.kind, read.raw) == (Kind.SUCCEEDED, good)


@responses.activate
def test_recorded_batches_have_the_recorded_status(provider, samples):
    for name, status in samples.contract["statuses"].items():
        samples.answer("retrieve", body=samples.content(name))

        batch = provider.retrieve("batch_1")

        assert batch.status == status
        assert batch.raw_status
        assert batch.is_queue_full is (name in samples.contract["queue_full"])
        responses.reset()


def test_recorded_batches_cover_every_status(samples):
    never = samples.contract.get("never", [])

    assert set(samples.contract["statuses"].values()) == set(Status) - {Status.UNKNOWN, *never}


@responses.activate
def test_create_sends_the_requests_or_their_file(provider, samples, tmp_path):
    samples.answer("create")

    batch = CALLS["create"](provider, tmp_path)

    body = responses.calls[0].request.body
    sent = body.decode() if isinstance(body, bytes) else ""
    assert isinstance(batch, RemoteBatch)
    assert ("file_1" in sent) == isinstance(provider, TakesFiles)
    assert ("bat_1" in sent) == provider.traits.tags_batches


@responses.activate
def test_every_call_is_made_once_and_gives_its_value(provider, samples, tmp_path):
    expected = dict.fromkeys(("retrieve", "cancel", "create"), RemoteBatch)
    expected |= dict.fromkeys(("upload", "find_file"), RemoteFile)
    expected |= {"list_batches": list, "download": int}
    for name in samples.contract["calls"]:
        call = CALLS[name]
        samples.answer(name)

        value = call(provider, tmp_path)

        assert isinstance(value, expected.get(name, type(None))), name
        assert len(responses.calls) == 1, name
        responses.reset()
        responses.calls.reset()
    assert (tmp_path / "answers.jsonl").read_bytes() == samples.content("output.jsonl")


@responses.activate
def test_listing_leaves_out_what_is_older(provider, samples):
    samples.answer("list_batches")
    every = list(provider.list_batches(since=LONG_AGO))
    newest = max(each.created_at for each in every)

    assert [each.created_at for each in provider.list_batches(since=newest)] == [newest]
    assert len(every) > 1


@of_each_kind(CALLS)
@responses.activate
def test_wrong_key_asks_for_a_person_and_is_not_repeated_in_the_error(call, samples, trouble):
    samples.answer(call, status=401, json={"error": {"message": f"Incorrect key: {KEY}"}})

    assert trouble(call).trouble is Trouble.CREDENTIALS


@of_each_kind(CALLS)
@responses.activate
def test_rate_limit_is_retried_when_the_provider_says(call, samples, trouble):
    body = {"error": {"message": "slow", "type": "rate_limit_error", "code": "rate_limit_exceeded"}}
    samples.answer(call, status=429, json=body, headers={"Retry-After": "7"})

    error = trouble(call)

    assert (error.trouble, error.after_s, error.status) == (Trouble.RETRY, 7.0, 429)


@of_each_kind(CALLS)
@responses.activate
def test_server_error_leaves_doubt_only_about_effects(call, samples, trouble):
    samples.answer(call, status=502, body="<html>Bad gateway</html>")

    assert trouble(call).trouble is (Trouble.UNKNOWN if call in WITH_EFFECT else Trouble.RETRY)


@of_each_kind(CALLS)
@responses.activate
def test_silence_leaves_doubt_only_about_effects(call, samples, trouble):
    samples.answer(call, body=requests.exceptions.ReadTimeout("no answer"))

    assert trouble(call).trouble is (Trouble.UNKNOWN if call in WITH_EFFECT else Trouble.RETRY)


@pytest.mark.parametrize("body", ["<html>", "", "[[[", "7"], ids=["html", "empty", "cut", "number"])
@of_each_kind(sorted(set(JSON_CALLS) - {"check"}))
@responses.activate
def test_success_that_cannot_be_read_leaves_doubt_only_about_effects(call, body, samples, trouble):
    samples.answer(call, body=body)

    assert trouble(call).trouble is (Trouble.UNKNOWN if call in WITH_EFFECT else Trouble.RETRY)


@of_each_kind(CALLS)
@responses.activate
def test_redirect_is_never_followed(call, samples, trouble):
    responses.add(responses.GET, re.compile("https://elsewhere.test/.*"), json={})
    samples.answer(call, status=307, headers={"Location": "https://elsewhere.test/"})

    assert trouble(call).trouble is Trouble.REFUSED
    assert len(responses.calls) == 1


@pytest.mark.parametrize("call", ["retrieve", "cancel", "download"])
@responses.activate
def test_what_is_gone_is_not_found(call, samples, trouble, tmp_path):
    samples.answer(call, status=404, json={"error": {"message": "no such thing"}})

    assert isinstance(trouble(call), NotFound)
    assert list(tmp_path.iterdir()) == []


@responses.activate
def test_file_that_is_gone_is_as_good_as_deleted(provider, samples):
    samples.answer("delete_file", status=404, json={"error": {"message": "no such file"}})

    assert provider.delete_file("file_1") is None


@of_each_kind(CALLS)
def test_refused_connection_proves_that_nothing_happened(call, kind, tmp_path):
    nobody = provider_for(kind, base_url="http://127.0.0.1:1/v1", api_key=KEY)

    with pytest.raises(ProviderError) as failure:
        CALLS[call](nobody, tmp_path)

    assert failure.value.trouble is Trouble.RETRY


@responses.activate
def test_key_reaches_no_log(provider, samples, trouble, caplog):
    caplog.set_level("DEBUG")
    samples.answer("create", status=500, body=KEY)

    trouble("create")

    assert KEY not in caplog.text
    assert KEY not in repr(provider)


def test_every_kind_has_samples():
    assert {path.name for path in SAMPLES.iterdir()} == set(KINDS)
