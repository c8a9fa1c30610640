"""Sweep files: which points they mean, and what is said of problems before anything runs."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sim.errors import InputError, Mark
from sim.sweeps import file as sweep_file
from sim.sweeps.axes import Axis, Space
from sweeping import EXCHANGE, STEP, sweep_of

BALANCED = {"routed_load": 0, "kernel_jitter": 0, "gpu_spread": 0}
HERE = Mark("sweep.yaml", 1, 1)
BARE = {
    "cluster": {"hardware": "h800", "nodes": 2},
    "workload": {"kind": "all_to_all", "bytes_per_rank": "1 GiB", "kernel": {"kind": "nccl"}},
}
"""An exchange without a model."""


def told(**said: Any) -> str:
    with pytest.raises(InputError) as caught:
        sweep_of(**said)
    return str(caught.value)


def values(axis: Any, key: str = "workload.tokens_per_rank") -> list[Any]:
    return list(sweep_of(axes={key: axis}).space.axes[0].values)


# --- points --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("skew", "points", "told"), [({}, 60, 1), ({"routed_load": 0}, 60, 1), (BALANCED, 60, 0), ({}, 40, 0)]
)
def test_many_steps_of_unlike_ranks_are_told_to_be_slow(skew: dict[str, Any], points: int, told: int) -> None:
    base = {**STEP, "workload": {**STEP["workload"], "skew": skew}}
    sweep = sweep_of(base=base, axes={"seed": list(range(points))}, objectives={"step_time_s": "minimise"})
    assert [hint.startswith("steps of unlike ranks") for hint in sweep_file.hints(sweep)] == [True] * told


@given(st.lists(st.integers(1, 5), min_size=1, max_size=4))
def test_every_combination_is_a_point_once_the_last_axis_fastest(sizes: list[int]) -> None:
    axes = tuple(Axis.from_key(f"a{i}", list(range(size)), HERE) for i, size in enumerate(sizes))
    space = Space(axes)
    points = [tuple(space.values(number).values()) for number in space.numbers()]
    assert points == sorted(points)
    assert len(set(points)) == len(points) == space.size


@given(st.integers(1, 200), st.integers(0, 5))
def test_a_sample_is_a_part_without_repetition_and_the_same_for_a_seed(count: int, seed: int) -> None:
    space = Space((Axis.from_key("a", list(range(20)), HERE), Axis.from_key("b", list(range(7)), HERE)))
    drawn = list(space.sample(count, seed).numbers())
    assert len(set(drawn)) == len(drawn) == min(count, 140)
    assert drawn == list(space.sample(count, seed).numbers())
    assert set(drawn) <= set(range(140))


def test_a_point_sets_what_its_axes_say() -> None:
    sweep = sweep_of(
        axes={
            "machine": {"a": {"cluster.hardware": "h100", "cluster.nodes": 4}, "b": {}},
            "layout.ep": [8, 16],
        }
    )
    first, last = sweep.document(0), sweep.document(3)
    assert (
        first.get(("cluster", "hardware")),
        first.get(("cluster", "nodes")),
        first.get(("layout", "ep")),
    ) == ("h100", 4, 8)
    assert (
        last.get(("cluster", "hardware")),
        last.get(("cluster", "nodes")),
        last.get(("layout", "ep")),
    ) == ("h800", 2, 16)
    assert sweep.space.values(0) == {"machine": "a", "layout.ep": 8}


def test_replicas_follow_on_the_seed_of_the_base() -> None:
    sweep = sweep_of(base={**EXCHANGE, "seed": 5}, axes={"layout.ep": [8]}, replicas=3)
    assert [sweep.document(0, i).get(("seed",)) for i in range(3)] == [5, 6, 7]


def test_ranges_have_both_ends() -> None:
    assert values({"from": 100, "to": 400, "step": 100}) == [100, 200, 300, 400]
    assert values({"from": 8, "to": 64, "times": 2}) == [8, 16, 32, 64]
    assert values({"from": 8, "to": 50, "times": 2}) == [8, 16, 32]
    key = "cluster.override.gpu.scale_up.bandwidth"
    assert values({"from": "100 GB/s", "to": "300 GB/s", "step": "100 GB/s"}, key) == [
        "100 GB/s",
        "200 GB/s",
        "300 GB/s",
    ]
    assert values({"from": "12.5 GB/s", "to": "50 GB/s", "times": 2}, key) == [
        "12.5 GB/s",
        "25 GB/s",
        "50 GB/s",
    ]


def test_small_values_of_a_range_are_not_nothing() -> None:
    key = "workload.skew.routed_load"
    found = sweep_of(
        base=STEP, axes={key: {"from": 0, "to": 3e-10, "step": 1e-10}}, objectives={"step_time_s": "minimise"}
    )
    assert found.space.axes[0].values == (0, 1e-10, 2e-10, 3e-10)


@given(st.integers(1, 50), st.integers(1, 20), st.integers(1, 9))
def test_a_range_is_equal_steps(first: int, count: int, step: int) -> None:
    found = values({"from": first, "to": first + count * step, "step": step})
    assert found == [first + i * step for i in range(count + 1)]


def test_auto_takes_every_size_that_could_be() -> None:
    base = {
        **STEP,
        "cluster": {"hardware": "h800", "nodes": 4},
    }  # 32 GPUs; Mixtral: 32 layers, 8 experts, 32 heads
    axes = dict.fromkeys(
        ("layout.pp", "layout.ep", "layout.tp", "layout.cp", "layout.dp", "workload.schedule"), "auto"
    )
    sweep = sweep_of(base=base, axes=axes, objectives={"step_time_s": "minimise"})
    found = {axis.name: axis.values for axis in sweep.space.axes}
    assert found["layout.pp"] == found["layout.dp"] == (1, 2, 4, 8, 16, 32)
    assert found["layout.ep"] == found["layout.tp"] == found["layout.cp"] == (1, 2, 4, 8)
    assert {"1f1b", "dualpipe", "zb1p", "interleaved"} < set(found["workload.schedule"])


def test_auto_of_a_deployment_takes_tp_and_etp_across_nodes_and_stages() -> None:
    """16 GPUs of two nodes; DeepSeek-V3: 61 layers, 128 heads, 256 experts of 2,048."""
    base = {
        "name": "mine", "cluster": {"hardware": "h200", "nodes": 2}, "model": "deepseek-v3",
        "workload": {"kind": "decode", "requests": 16, "context_tokens": 1024, "gate": {"kind": "uniform"}, "kernel": {"kind": "low_latency"}},
    }  # fmt: skip
    axes = dict.fromkeys((f"layout.{name}" for name in ("pp", "ep", "etp", "tp", "cp")), "auto")
    sweep = sweep_of(base=base, axes=axes, objectives={"tpot_s": "minimise"})
    assert {axis.name: axis.values for axis in sweep.space.axes} == dict.fromkeys(axes, (1, 2, 4, 8, 16))


def test_auto_looks_at_the_clusters_and_models_of_the_other_axes() -> None:
    nodes = {"cluster.nodes": [1, 4], "cluster.hardware": ["h800", "h100"]}
    for axes in ({**nodes, "layout.pp": "auto"}, {"layout.pp": "auto", **nodes}):
        found = sweep_of(base=STEP, axes=axes, objectives={"step_time_s": "minimise"}).space.axes
        assert [axis.name for axis in found] == list(axes)
        pp = next(axis.values for axis in found if axis.name == "layout.pp")
        assert pp == (1, 2, 4, 8, 16, 32)  # 8 and 32 GPUs; the base has 16


def test_a_sample_may_be_of_more_combinations_than_can_be_run() -> None:
    axes = {
        "workload.tokens_per_rank": {"from": 1, "to": 10_000, "step": 1},
        "workload.kernel.comm_sms": {"from": 1, "to": 100, "step": 1},
        "seed": {"from": 0, "to": 99, "step": 1},
    }
    space = sweep_of(axes=axes, sample={"points": 3}).space
    assert (space.size, len(space)) == (100_000_000, 3)
    assert all(0 <= number < space.size for number in space.numbers())


# --- problems --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("said", "wanted"),
    [
        ({"axes": {"layout.epp": [8]}}, "layout.epp: got the unknown key 'epp'; wanted one of: cp, dp, ep, etp, order, pp, tp"),
        ({"axes": {"layuot.ep": [8]}}, "did you mean layout?"),
        ({"axes": {"layout.ep": []}}, "axes.layout.ep: got no value; wanted one value or more"),
        ({"axes": {}}, "axes: got no axis"),
        ({"axes": {"layout.ep": [8, 16, 8]}}, "got 8 twice"),
        ({"axes": {"workload.kernel.comm_sms": "auto"}}, "'auto' is for layout.pp"),
        ({"axes": {"cluster.hardware": ["h800", "h10"]}}, "did you mean h100?"),
        ({"axes": {"cluster.override.gpu.scale_up.bandwith": ["1 GB/s"]}}, "did you mean bandwidth?"),
        ({"axes": {"cluster.override.gpu.scale_up.bandwidth": [400]}}, "a rate with its unit"),
        ({"axes": {"workload.tokens_per_rank": ["many"]}}, "workload.tokens_per_rank"),
        ({"axes": {"machine": {"a": {"cluster.hardwar": "h800"}}}}, "did you mean hardware?"),
        ({"axes": {"layout.ep": [8]}, "constraints": ["layout.ep <="]}, "got the end in 'layout.ep <='"),
        ({"axes": {"layout.ep": [8]}, "objectives": {}}, "objectives: got none"),
        ({"axes": {"layout.ep": [8]}, "objectives": {"dispatch.tim_s": "minimise"}}, "did you mean dispatch.time_s?"),
        ({"axes": {"layout.ep": [8]}, "objectives": {"step_time_s": "minimise"}}, "wanted a metric of all_to_all"),
        ({"axes": {"layout.ep": [8]}, "objectives": {"dispatch.binding": "minimise"}}, "wanted a metric of all_to_all"),
        ({"axes": {"layout.ep": [8]}, "constraints": ["layot.ep < 9"]}, "did you mean layout.ep?"),
        ({"axes": {"layout.ep": [8]}, "constraints": ["phases.1F1B_s < 1 s"]}, "a key of the scenario, memory.* or a metric"),
        ({"axes": {"layout.ep": [8]}, "objectives": {"a": "smallest"}}, "one of: minimise, maximise"),
        ({"axes": {"layout.ep": {"from": 1, "to": 8}}}, "either 'step' or 'times'"),
        ({"axes": {"layout.ep": {"from": 8, "to": 1, "step": 1}}}, "'to' at or above 'from'"),
        ({"axes": {"workload.tokens_per_rank": {"from": 1, "to": 10**6, "step": 1}}}, "at most 10000"),
        ({"axes": {"layout.ep": [8, "8"]}}, "got 8 twice"),
        ({"axes": {"layout.ep": [8, 8.0]}}, "got 8 twice"),
        ({"axes": {"layout.ep": {"from": 1, "to": 8, "times": "inf"}}}, "a valid number"),
        ({"axes": {"layout.ep": {"from": 1, "to": "1e309", "step": 1}}}, "axes.layout.ep.to: got '1e309'; wanted a finite number"),
        ({"axes": {"layout.ep": 8}}, "axes.layout.ep: got 8; wanted a list of values, a range"),
        ({"axes": {"layout.ep": "all"}}, "axes.layout.ep: got 'all'; wanted a list of values, a range"),
        ({"axes": {"layout.ep": "auto"}, "base": BARE}, "got 'auto' for a base without a model"),
        ({"axes": {"layout.ep": "auto", "cluster.nodes": {"from": 1, "to": 501, "step": 1}}}, "'auto' next to 501 clusters"),
        ({"axes": {"layout.ep": [8]}, "base": {**EXCHANGE, "variants": [1, 2]}}, "variants: got [1, 2]; wanted a mapping"),
        ({"axes": {"layout.ep": [8]}, "base": {**EXCHANGE, "variants": {"a": {}}}}, "base: got a scenario with variants; wanted"),
        ({"axes": {"layout.ep": {"from": "1 GB", "to": "8 ms", "step": "1 GB"}}}, "the unit of 'from', 'GB'"),
        ({"axes": {"layout.ep": [8]}, "base": "h800-vs-h10"}, "did you mean h800-vs-h100?"),
        ({"axes": {"layout.ep": [8]}, "base": "h800-vs-h100"}, "variant: one of h800-ep8"),
        ({"axes": {"layout.ep": [8]}, "base": "h800-vs-h100", "variant": "h80"}, "variant: one of h800-ep8"),
        ({"axes": {"layout.ep": [8]}, "set": {"layout.epp": 8}}, "got the unknown key 'epp'"),
        ({"axes": {"layout.ep": [8]}, "axis": 3}, "did you mean axes?"),
    ],
)  # fmt: skip
def test_a_problem_is_told_before_anything_runs(said: dict[str, Any], wanted: str) -> None:
    assert wanted in told(**said)


@pytest.mark.parametrize(
    ("objective", "constraint"),
    [
        ("phases.1F1B_s", "phases_mean.bubble_s < 1 s and memory.total_bytes < 80 GB and layout.ep < 9"),
        ("run_cost_usd", "mfu_causal_fraction > 1 % and workload.schedule == '1f1b'"),
    ],
)
def test_names_that_a_run_may_have_are_let_through(objective: str, constraint: str) -> None:
    axes = {"layout.ep": [8]}
    found = sweep_of(base=STEP, axes=axes, objectives={objective: "minimise"}, constraints=[constraint])
    assert list(found.objectives) == [objective]


def test_a_name_is_held_to_every_kind_that_an_axis_sets() -> None:
    other = {**EXCHANGE["workload"], "kind": "training"}
    axes = {"what": {"a": {}, "b": {"workload": other}}}
    with pytest.raises(
        InputError, match=r"wanted a metric of all_to_all or training; did you mean step_time_s\?"
    ):
        sweep_of(base=EXCHANGE, axes=axes, objectives={"step_tim_s": "minimise"})


def test_a_problem_of_an_axis_stands_at_its_line() -> None:
    text = "axes:\n  layout.tp: [1]\n  layout.epp: [8]\n"
    with pytest.raises(InputError) as caught:
        sweep_of(text)
    [problem] = caught.value.problems
    assert problem.where is not None
    assert (problem.where.file, problem.where.column) == ("sweep.yaml", 3)
    assert problem.where.line > 1


def test_a_value_beyond_all_numbers_is_told_at_its_line() -> None:
    with pytest.raises(InputError, match=r"axes\.x\.0\.alpha: got '1e309'; wanted a finite number"):
        sweep_of("axes:\n  x: [{alpha: 1e309}]\n")


def test_a_grid_over_ten_million_points_is_refused_with_its_count() -> None:
    axes = {
        f"workload.{key}": {"from": 1, "to": 1000, "step": 1}
        for key in ("tokens_per_rank", "kernel.comm_sms")
    }
    said = told(axes={**axes, "layout.ep": [8, 16], "seed": list(range(20))})
    assert "40,000,000 points (1000 x 1000 x 2 x 20)" in said


def test_values_that_are_right_only_beside_others_are_no_problem() -> None:
    kernels = {
        "two_hop": {"workload.kernel": {"kind": "two_hop"}},
        "flat": {"workload.kernel": {"kind": "flat"}},
    }
    sweep = sweep_of(axes={"kernel": kernels, "workload.kernel.copies": ["per_rank", "per_expert"]})
    assert sweep.space.size == 4


def test_what_the_base_expects_is_not_asked_of_points() -> None:
    sweep = sweep_of(base="deepep-ep16-h800", axes={"workload.tokens_per_rank": [128]})
    assert sweep.document(0).get(("expect",)) is None
    assert sweep.document(0).get(("name",)) == "tried"
