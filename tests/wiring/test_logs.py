"""One event is one line, with its facts at the end."""

from __future__ import annotations

import logging

import pytest

from batcher.logs import LineFormatter, logging_settings


def line(text: str = "batch sealed", exc_info=None, **facts: object) -> str:
    record = logging.makeLogRecord(
        {"name": "batching.packing", "levelname": "INFO", "msg": text, "exc_info": exc_info} | facts
    )
    settings = logging_settings("INFO")["formatters"]["line"]
    return LineFormatter(settings["format"], settings["datefmt"]).format(record)


def test_facts_stand_behind_the_event():
    assert line(batch="bat_1", lines=3).endswith(
        "batching.packing batch sealed batch=bat_1 lines=3"
    )


@pytest.mark.parametrize(
    ("fact", "shown"),
    [
        pytest.param("two words", '"two words"', id="blank"),
        pytest.param("a\nb", r'"a\nb"', id="newline"),
        pytest.param('say "x"', r'"say \"x\""', id="quotes"),
        pytest.param("a=b", '"a=b"', id="equals-sign"),
        pytest.param("", '""', id="empty"),
        pytest.param(None, "None", id="none"),
        pytest.param("\x1b[31m", r'"\u001b[31m"', id="terminal-codes"),
    ],
)
def test_a_fact_can_not_be_taken_for_two_or_break_the_line(fact: object, shown: str):
    assert line(fact=fact).endswith(f" fact={shown}")


def test_a_traceback_follows_the_line_with_its_facts():
    try:
        raise ValueError("odd")
    except ValueError as problem:
        written = line(exc_info=(ValueError, problem, problem.__traceback__), batch="bat_1")

    first, *rest = written.split("\n")
    assert first.endswith("batch sealed batch=bat_1")
    assert rest[0].startswith("Traceback")


def test_times_are_utc_and_say_so():
    assert line().split(" ")[0].endswith("Z")
