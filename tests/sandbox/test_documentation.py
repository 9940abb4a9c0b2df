"""docs/sandbox.md names every fault, route and ready-made scenario, and its examples work."""

from __future__ import annotations

import json
import re

import pytest

from sandbox.faults import AnyRule, Match
from sandbox.scenario import load, parse, ready_made
from sandbox.server import ROUTES
from tests.sandbox_process import ROOT

DOCUMENT = (ROOT / "docs" / "sandbox.md").read_text()
FAULTS = {rule.__struct_config__.tag: rule for rule in AnyRule.__args__}
EXAMPLES = re.findall(r'`(\{"fault": ".*?\})`', DOCUMENT)


@pytest.mark.parametrize("fault", FAULTS)
def test_every_fault_has_a_row_with_an_example(fault):
    assert f"| `{fault}` |" in DOCUMENT
    assert any(f'{{"fault": "{fault}"' in example for example in EXAMPLES)


@pytest.mark.parametrize("fault", FAULTS)
def test_every_member_of_a_fault_is_named_in_its_row(fault):
    row = next(row for row in DOCUMENT.splitlines() if row.startswith(f"| `{fault}` |"))
    own = set(FAULTS[fault].__struct_fields__) - {"match", "times", "rate"}

    assert {name for name in own if name not in row} == set()


@pytest.mark.parametrize("example", EXAMPLES)
def test_every_example_is_a_rule(example):
    assert len(parse(json.dumps({"rules": [json.loads(example)]}).encode()).rules) == 1


def test_the_long_example_is_a_scenario():
    (example,) = re.findall(r"```json\n(.*?)```", DOCUMENT, re.DOTALL)

    assert len(parse(example.encode()).rules) == 2


def test_every_condition_and_route_is_named():
    routes = {name for name, *_ in ROUTES if not name.startswith("sandbox.")}

    assert {name for name in Match.__struct_fields__ if f"| `{name}` |" not in DOCUMENT} == set()
    assert {name for name in routes if f"`{name}`" not in DOCUMENT} == set()


def test_every_ready_made_scenario_is_described_in_its_own_words():
    rows = {f"| `{name}` | {load(name).description} |" for name in ready_made()}

    assert {row for row in rows if row not in DOCUMENT} == set()
