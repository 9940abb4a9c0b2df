"""docs/lifecycle.md says what the code does."""

from __future__ import annotations

import pytest
from django.core.management import CommandError, call_command

from batching.lifecycle import BatchState, RequestState, arrows
from batching.management.commands import lifecycle
from batching.models import Batch, Request


@pytest.fixture
def document(monkeypatch, tmp_path):
    """A copy that a test may spoil."""
    copy = tmp_path / "lifecycle.md"
    copy.write_text(lifecycle.DOCUMENT.read_text())
    monkeypatch.setattr(lifecycle, "DOCUMENT", copy)
    return copy


def test_the_document_is_fresh():
    call_command("lifecycle", "--check")


def test_a_stale_document_is_refused_and_mended(document):
    fresh = document.read_text()
    document.write_text(fresh.replace("seal", "heal"))
    with pytest.raises(CommandError, match="lifecycle --write"):
        call_command("lifecycle", "--check")

    document.write_text(fresh.replace("| `seal`", "| `heal`"))
    call_command("lifecycle", "--write")

    assert document.read_text() == fresh


def test_a_document_without_its_marks_is_refused(document):
    document.write_text("# Nothing")

    with pytest.raises(ValueError, match="batch: begin"):
        call_command("lifecycle", "--write")


@pytest.mark.parametrize(("model", "states"), [(Batch, BatchState), (Request, RequestState)])
def test_every_state_and_transition_is_printed(model, states, capsys):
    call_command("lifecycle")

    text = capsys.readouterr().out
    assert all(f"| `{step.name}` |" in text for step in arrows(model))
    assert all(str(state) in text for state in states)
