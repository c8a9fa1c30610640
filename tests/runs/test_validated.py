"""Results beyond the range of measurements say so; the range is that of counted rows of the published files."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

import pytest

from command import Moesim
from sim import documents
from sim.cluster.hardware import list_hardware
from sim.cluster.kernels import DEFAULTS, list_kernels, load_kernel
from sim.runs.run import run_document
from sim.runs.validated import COMPARED, LAUNCHES, compared_on, errors_on
from sim.scenario import settings
from sim.show.pages.run import run_html
from sim.validation.kernels import KernelFigures
from sim.validation.runs import RunFigures
from sim.validation.validate import GROUPS, load


def dotted(tree: dict[str, Any], at: str = "") -> dict[str, Any]:
    """The leaves of a scenario by their dotted keys."""
    found: dict[str, Any] = {}
    for key, value in tree.items():
        found |= dotted(value, f"{at}{key}.") if isinstance(value, dict) else {f"{at}{key}": value}
    return found


def compared() -> Iterator[dict[str, Any]]:
    """The scenario of every run with a counted row, dotted."""
    for name in GROUPS:
        figures = load(name)
        if not isinstance(figures, RunFigures):
            continue
        base = figures.scenario
        tree = settings.read(base).tree if isinstance(base, str) else base
        for run in figures.runs:
            if any(row.counted for row in run.rows):
                yield dotted(tree) | dotted(run.set)


RUNS = list(compared())


@pytest.mark.parametrize("name", [name for name in list_kernels() if name != "deepep_v1_2025_02"])
def test_the_range_of_a_generation_is_that_of_the_published_rows(name: str) -> None:
    mine = [
        run
        for run in RUNS
        if run["workload.kind"] == "all_to_all"
        and (run.get("workload.kernel.generation") or DEFAULTS[run["workload.kernel.kind"]]) == name
    ]
    known = load_kernel(name).validated
    if known is None:
        assert not mine
        return
    ranks = [8 * run["cluster.nodes"] for run in mine]
    assert set(known.hardware) == {run["cluster.hardware"] for run in mine}
    assert known.ep == (min(ranks), max(ranks))
    if known.tokens:
        tokens = [run["workload.tokens_per_rank"] for run in mine]
        assert known.tokens == (min(tokens), max(tokens))


@pytest.mark.parametrize("kind", COMPARED)
def test_the_runs_of_whole_models_are_those_of_the_published_rows(kind: str) -> None:
    found = {
        (run["model"], run["cluster.hardware"], run.get("software", "none"))
        for run in RUNS
        if run["workload.kind"] == kind
    }
    assert set(COMPARED[kind]) == found


def test_launches_were_compared_on_the_machines_of_the_published_tables() -> None:
    figures = [load(name) for name in GROUPS]
    tables = {group.hardware for group in figures if isinstance(group, KernelFigures)}
    assert tables == set(LAUNCHES)


def test_a_machine_says_what_was_compared_on_it_or_that_nothing_was(moesim: Moesim) -> None:
    models = "qwen3-30b-a3b, qwen3-235b-a22b, mixtral-8x22b, llama-3.1-405b, nemotron-4-340b"
    assert f"training of {models}" in compared_on("h100")
    for name, said in (
        ("h20", "Compared with measurements: all-to-alls of deepep_v1_2025_04"),
        ("mi355x", "Never compared with measurements"),
    ):
        assert said in moesim("show", "hardware", name).out


def test_a_machine_that_was_compared_says_its_own_mean_error_and_no_other_does(moesim: Moesim) -> None:
    sheets = {name: moesim("show", "hardware", name).out for name in list_hardware()}
    assert "Off by 3.00% on average over 5 figures, 5 predictions by 3.00%" in sheets["h20"]
    assert {name for name, sheet in sheets.items() if "on average over" in sheet} == {
        name for name in sheets if errors_on(name)
    }
    assert all(compared_on(name) for name in sheets if errors_on(name))
    assert json.loads(moesim("show", "hardware", "h20", "--json").out)["errors"]["figures"] == 5


SCENARIO = """
name: beyond
cluster: {{hardware: {hardware}, nodes: {nodes}}}
model: deepseek-v3
fidelity: closed_form
workload:
  kind: all_to_all
  tokens_per_rank: {tokens}
  gate: {{kind: uniform, sampling: expected}}
  kernel: {{kind: {kind}}}
"""


@pytest.mark.parametrize(
    ("hardware", "nodes", "tokens", "kind", "beyond"),
    [
        ("h800", 4, 4096, "two_hop", []),
        ("h100", 4, 128, "two_hop", ["kernel deepep_v1_2025_04 with h100, 128 tokens a rank: compared on h800 and h20, EP8 to EP64, 4,096 to 4,096 tokens"]),
        ("h800", 16, 4096, "two_hop", ["kernel deepep_v1_2025_04 with EP128: compared on h800 and h20, EP8 to EP64, 4,096 to 4,096 tokens"]),
        ("h800", 4, 4096, "flat", ["kernel flat: never compared"]),
    ],
)  # fmt: skip
def test_what_is_beyond_is_named_with_what_was_compared(
    hardware: str, nodes: int, tokens: int, kind: str, beyond: list[str]
) -> None:
    text = SCENARIO.format(hardware=hardware, nodes=nodes, tokens=tokens, kind=kind)
    result = run_document(documents.loads(text, "beyond.yaml"))
    assert result["provenance"]["outside_validation"] == beyond
    page = run_html(result)
    assert page.count("Beyond what was compared with measurements") == bool(beyond)
    assert all(phrase.partition(": compared")[0] in page for phrase in beyond)
