"""Every kind of workload has one module in each medium, with what the show asks of it."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest

import sim.show
from sim.show.kinds import FAMILIES, module
from sim.show.views.run import views_of

ASKED = {
    "views": ("SIZES", "facts", "is_complete", "view", "lanes_of"),
    "words": ("TERMS", "finding", "aside", "course"),
    "tables": ("grids",),
    "plots": ("ALONE",),
    "files": ("timeline",),
}
"""Medium -> what the module of a kind of workload has."""
SHOW = Path(sim.show.__file__).parent


@pytest.mark.parametrize("medium", ASKED)
@pytest.mark.parametrize("name", dict.fromkeys(FAMILIES.values()))
def test_a_kind_of_workload_has_all_that_a_medium_asks_of_it(medium: str, name: str) -> None:
    assert [asked for asked in ASKED[medium] if not hasattr(module(medium, name), asked)] == []


def test_a_run_has_the_view_of_its_kind_of_workload(runs: dict[str, Any]) -> None:
    views = [run for result in runs.values() for run in views_of(result).runs]
    assert {run.kind for run in views} >= FAMILIES.keys() - {"prefill"}
    assert {run.kind: run.family for run in views}.items() <= FAMILIES.items()


def test_a_result_that_does_not_name_its_workload_is_read_by_its_metrics(runs: dict[str, Any]) -> None:
    for name, result in runs.items():
        (known,) = views_of(result).runs
        (guessed,) = views_of({**result, "scenario": {}}).runs
        assert (name, guessed.kind, guessed.family) == (name, "", known.family)


@pytest.mark.parametrize("medium", ["words", "tables", "plots"])
def test_what_shows_a_view_reads_no_document(medium: str) -> None:
    """`result.get("timeline")` stands in the views alone."""
    raw = re.compile(r"\b(result|document|run|scenario|metrics|timeline)(\.result)?(\.get\(\"|\[\")")
    reading = [path.name for path in (SHOW / medium).glob("*.py") if raw.search(path.read_text())]
    assert reading == []
