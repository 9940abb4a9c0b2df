"""The commands that speak to a running server, over real HTTP."""

from __future__ import annotations

import io
import json

import pytest
from django.core.management import call_command
from django.utils import timezone

from batching import sendfile
from batching.management.commands.submit import place
from batching.models import ApiKey, Request, RequestBody, Submission
from batching.remote import Server, Trouble
from tests.api.conftest import new_request


@pytest.fixture
def served(transactional_db, live_server, project):
    """Return (URL, key) of a running server."""
    return live_server.url, ApiKey.issue(project, "cli")[1]


@pytest.fixture
def file(tmp_path):
    path = tmp_path / "in.jsonl"
    path.write_text("".join(json.dumps(new_request(f"r-{n}")) + "\n" for n in range(5)))
    return path


def run(served, command, *words):
    """Return (exit code, standard output, standard error)."""
    out, err = io.StringIO(), io.StringIO()
    url, key = served
    code = 0
    try:
        call_command(command, *map(str, words), url=url, key=key, stdout=out, stderr=err)
    except SystemExit as left:
        code = left.code
    return code, out.getvalue().strip(), err.getvalue()


def end_all(**how):
    """End every request of the database, as settling does."""
    facts = {"state": "processed", "settled_at": timezone.now(), **how}
    Request.objects.update(**facts)


def test_a_file_is_sent_as_one_submission(served, file, monkeypatch):
    monkeypatch.setattr(sendfile, "PART_LINES", 2)

    code, key, err = run(served, "submit", file)

    assert (code, Submission.objects.get().key) == (0, key)
    assert Submission.objects.get().accepted == Request.objects.count() == 5
    assert "5 accepted" in err


def test_lines_get_what_they_lack_and_nothing_else(served, tmp_path):
    path = tmp_path / "bare.jsonl"
    path.write_text('{"custom_id": "a", "body": {"model": "m", "n": 1.10}}')

    code, _, _ = run(served, "submit", path, "--endpoint", "/v1/embeddings", "--deliver", "queue:q",
                     "--max-wait", "0")  # fmt: skip

    request = Request.objects.get()
    assert (code, request.lane.endpoint, request.destination.queue) == (0, "/v1/embeddings", "q")
    assert bytes(RequestBody.objects.get().body) == b'{"model": "m", "n": 1.10}'


def test_refused_lines_are_told_by_their_place_in_the_file(served, file, monkeypatch):
    monkeypatch.setattr(sendfile, "PART_LINES", 2)
    file.write_text(file.read_text() + '{"custom_id": 7}\n')

    code, _, err = run(served, "submit", file)

    assert code == 1
    assert "line 6: validation_error" in err


def test_a_run_that_was_stopped_goes_on_where_it_was(served, file, monkeypatch):
    monkeypatch.setattr(sendfile, "PART_LINES", 2)
    send, sent = Server.send, []

    def stopped_after_the_second(self, lines, **how):
        sent.append(how["name"])
        answer = send(self, lines, **how)
        if len(sent) == 2:
            raise KeyboardInterrupt
        return answer

    monkeypatch.setattr(Server, "send", stopped_after_the_second)
    code, _, err = run(served, "submit", file)
    assert (code, "goes on from here" in err) == (130, True)

    code, key, _ = run(served, "submit", file)

    row = Submission.objects.get()
    assert (code, key, row.accepted, row.duplicates) == (0, row.key, 5, 0)
    assert len(sent) == 4  # the second part twice, and answered alike
    assert sent[1] == sent[2]


def test_a_file_that_changed_meanwhile_is_not_mixed_up(served, file):
    run(served, "submit", file)
    file.write_text(json.dumps(new_request("other")) + "\n")

    code, _, err = run(served, "submit", file)
    again, _, _ = run(served, "submit", file, "--again")

    assert (code, again) == (2, 0)
    assert "--again starts anew" in err


def test_waiting_writes_each_result_and_forgets_the_run(served, file, tmp_path):
    out = tmp_path / "out.jsonl"
    run(served, "submit", file)
    end_all()

    code, _, _ = run(served, "submit", file, "--out", out)

    results = [json.loads(line)["custom_id"] for line in out.read_text().splitlines()]
    assert (code, results) == (0, [f"r-{n}" for n in range(5)])
    assert not sendfile.state_of(file).exists()


def test_results_written_beyond_the_last_cursor_are_cut_off(served, file, tmp_path):
    out = tmp_path / "out.jsonl"
    run(served, "submit", file)
    end_all()
    state = sendfile.state_of(file)
    state.write_text(json.dumps({**json.loads(state.read_text()), "out_path": str(out)}))
    out.write_text('{"half a li')

    run(served, "submit", file, "--out", out)

    assert len([json.loads(line) for line in out.read_text().splitlines()]) == 5


def test_bad_ends_are_an_exit_code(served, file):
    _, key, _ = run(served, "submit", file)
    end_all(state="failed", error_code="server_error")

    assert run(served, "submit", file, "--wait")[0] == 1
    assert run(served, "status", key)[0] == 1
    code, out, _ = run(served, "results", key)
    assert (code, len(out.splitlines())) == (1, 5)


def test_status_lists_and_shows(served, file):
    _, key, _ = run(served, "submit", file)

    assert key in run(served, "status")[1]
    assert "0 answered" in run(served, "status", key)[1]
    assert "More is to come" in run(served, "results", key)[2]


@pytest.mark.parametrize(
    ("url", "key", "words", "told"),
    [
        ("http://127.0.0.1:9", "k", ("status",), "does not answer"),
        (None, "bm_live_wrong", ("status",), "401 unauthorized"),
        (None, None, ("status", "sub_none"), "404 not_found"),
        (None, None, ("submit", "/nowhere.jsonl"), "can't be read"),
    ],
)
def test_what_goes_wrong_on_the_way_is_code_2(served, monkeypatch, url, key, words, told):
    monkeypatch.setattr(Server.__init__, "__kwdefaults__", {"patience_s": 0})

    code, _, err = run((url or served[0], key or served[1]), *words)

    assert (code, told in err) == (2, True), err


def test_a_file_is_judged_without_a_server(file, tmp_path):
    file.write_text(file.read_text() + "{bad\n" + json.dumps(new_request("r-0")) + "\n")
    out = io.StringIO()

    with pytest.raises(SystemExit) as left:
        call_command("estimate", str(file), stdout=out)

    told = out.getvalue()
    assert left.value.code == 1
    assert "gpt-4o-mini /v1/responses: 5 requests" in told
    assert "line 6: malformed_json" in told
    assert "line 7: duplicate_custom_id" in told


@pytest.mark.parametrize(
    ("word", "config"),
    [
        ("https://a/b", {"type": "webhook", "webhook_url": "https://a/b"}),
        ("name:crm", {"type": "destination", "name": "crm"}),
        (
            "exchange:e:k",
            {"type": "rabbitmq", "rabbitmq_exchange": "e", "rabbitmq_routing_key": "k"},
        ),
    ],
)
def test_places_are_words(word, config):
    assert place(word) == config


def test_other_words_are_no_places():
    with pytest.raises(Trouble, match="--deliver takes"):
        place("exchange:e")
