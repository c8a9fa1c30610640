"""Sweeps: every point has a row, the best is the best, nothing is computed twice, and pruning changes no winner."""

from __future__ import annotations

from concurrent.futures import Future
from dataclasses import replace
from pathlib import Path
from threading import Timer
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from sim.errors import InputError
from sim.runs import all_to_all
from sim.runs import run as single
from sim.runs.kinds import Forecast
from sim.sweeps import answers, changes, driver
from sim.sweeps.answers import Point
from sim.sweeps.points import Batch, work
from sim.sweeps.workers import Rows
from sweeping import EXCHANGE, STEP, Died, Here, run, sweep_of

EP = {"axes": {"layout.ep": [8, 16]}}


# --- rows ----------------------------------------------------------------------------------------------------------


def test_a_point_has_the_metrics_of_the_same_scenario_alone(tmp_path: Path) -> None:
    found = run(sweep_of(**EP), tmp_path)
    alone = single.run_document(sweep_of(**EP).document(1))
    assert found["points"][1]["values"] == {"layout.ep": 16}
    assert found["points"][1]["metrics"] == alone["metrics"]
    assert found["schema"] == "moesim.sweep/1"


def test_points_that_cannot_be_keep_their_reason(tmp_path: Path) -> None:
    axes = {"layout.ep": [3, 16], "workload.tokens_per_rank": [64, 128]}
    found = run(sweep_of(axes=axes), tmp_path)
    assert [point["status"] for point in found["points"]] == ["infeasible", "infeasible", "ok", "ok"]
    assert "a divisor of the 16 ranks" in found["points"][0]["reason"]
    assert found["counts"] == {"points": 4, "ok": 2, "infeasible": 2, "pruned": 0, "failed": 0}


def test_a_bug_in_one_point_ends_no_sweep(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(scenario: Any, *_: Any, **asked: Any) -> Any:
        if scenario.ep == 8:
            raise ZeroDivisionError("of ours")
        return real(scenario, *_, **asked)

    real = all_to_all.run_all_to_all
    monkeypatch.setattr(all_to_all, "run_all_to_all", broken)
    found = run(sweep_of(**EP), tmp_path)
    assert [point["status"] for point in found["points"]] == ["failed", "ok"]
    assert found["points"][0]["reason"].startswith("ZeroDivisionError: of ours (in test_sweep.py, line")


def test_a_metric_that_is_no_number_fails_its_point_alone(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def odd(scenario: Any, *_: Any, **asked: Any) -> Any:
        result = real(scenario, *_, **asked)
        if scenario.ep == 8:
            result["metrics"]["combine"]["time_s"] = float("nan")
        return result

    real = all_to_all.run_all_to_all
    monkeypatch.setattr(all_to_all, "run_all_to_all", odd)
    found = run(sweep_of(**EP), tmp_path)
    assert [point["status"] for point in found["points"]] == ["failed", "ok"]
    assert found["points"][0]["reason"] == "no finite number came out for combine.time_s"


@pytest.mark.parametrize(
    ("constraint", "kept"),
    [
        ("layout.ep <= 8", [8]),
        ("workload.kernel.kind == 'two_hop' and layout.dp >= 16", [8, 16]),
        ("dispatch.time_s < 60 us", [8]),
        ("dispatch.nodes_per_token > 1.5 and layout.ep < 1000", [16]),
    ],
)
def test_constraints_over_scenario_and_metrics_decide(
    constraint: str, kept: list[int], tmp_path: Path
) -> None:
    found = run(sweep_of(**EP, constraints=[constraint]), tmp_path)
    assert [point["values"]["layout.ep"] for point in found["points"] if point["status"] == "ok"] == kept
    others = [point for point in found["points"] if point["status"] != "ok"]
    assert all(f"the constraint '{constraint}' is not met: " in point["reason"] for point in others)


def test_a_constraint_reads_a_quantity_as_the_scenario_does(tmp_path: Path) -> None:
    key = "cluster.override.gpu.scale_up.bandwidth"
    found = run(sweep_of(axes={key: ["100GB/s", "1,000 Gb/s"]}, constraints=[f"{key} < 110 GB/s"]), tmp_path)
    assert [point["status"] for point in found["points"]] == ["ok", "infeasible"]


def test_a_constraint_asks_for_words_among_the_metrics(tmp_path: Path) -> None:
    found = run(sweep_of(**EP, constraints=["dispatch.binding == 'latency'"]), tmp_path)
    alone = run(sweep_of(**EP), tmp_path)
    binding = [point["metrics"]["dispatch"]["binding"] for point in alone["points"]]
    assert binding == ["scale_up", "latency"]
    assert [point["status"] for point in found["points"]] == ["infeasible", "ok"]
    assert found["points"][0]["reason"].endswith("is not met: dispatch.binding = scale_up")


def test_what_a_constraint_excludes_is_not_run_and_not_kept(tmp_path: Path) -> None:
    found = run(sweep_of(**EP, constraints=["layout.ep < 16"]), tmp_path)
    assert found["runs"] == {"computed": 1, "remembered": 0, "of_changes": 0}
    again = run(sweep_of(**EP), tmp_path)
    assert [point["status"] for point in again["points"]] == ["ok", "ok"]
    assert again["runs"] == {"computed": 1, "remembered": 1, "of_changes": 0}


def test_a_constraint_that_changed_judges_rows_that_are_remembered(tmp_path: Path) -> None:
    run(sweep_of(**EP), tmp_path)
    found = run(sweep_of(**EP, constraints=["layout.ep < 16"]), tmp_path)
    assert [point["status"] for point in found["points"]] == ["ok", "infeasible"]
    assert found["runs"] == {"computed": 0, "remembered": 2, "of_changes": 0}


@pytest.mark.parametrize(
    ("said", "told"),
    [
        ({"constraints": ["layot.ep < 8"]}, "did you mean layout.ep?"),
        ({"constraints": ["dispatch.time < 1 s"]}, "did you mean dispatch.time_s?"),
        ({"objectives": {"dispatch.tims_s": "minimise"}}, "did you mean dispatch.time_s?"),
        ({"constraints": ["workload.kernel.kind < 3"]}, "values that can be compared"),
        ({"constraints": ["dispatch.binding == nic"]}, "did you mean 'nic', a word in quotes?"),
    ],
)
def test_names_that_no_point_has_are_told(said: dict[str, Any], told: str, tmp_path: Path) -> None:
    with pytest.raises(InputError) as caught:
        run(sweep_of(**{**EP, **said}), tmp_path)
    assert told in str(caught.value)


def test_replicas_are_averaged_and_spread(tmp_path: Path) -> None:
    base = {**EXCHANGE, "fidelity": "flow"}
    base["workload"] = {**EXCHANGE["workload"], "gate": {"kind": "uniform", "sampling": "tokens"}}
    found = run(sweep_of(base=base, axes={"layout.ep": [16]}, replicas=3), tmp_path)
    [point] = found["points"]
    sweep = sweep_of(base=base, axes={"layout.ep": [16]}, replicas=3)
    times = [single.run_document(sweep.document(0, i))["metrics"]["dispatch"]["time_s"] for i in range(3)]
    assert point["metrics"]["dispatch"]["time_s"] == pytest.approx(np.mean(times), rel=1e-12)
    assert point["spread"]["dispatch.time_s"] == pytest.approx(np.std(times, ddof=1), rel=1e-9)
    assert found["runs"]["computed"] == 3


def test_replicas_count_in_the_order_of_their_seeds_whichever_was_there_first(tmp_path: Path) -> None:
    """What is no number, the link that binds, is the first replica's: a remembered later one must not take its place."""
    workload = {**EXCHANGE["workload"], "gate": {"kind": "uniform", "sampling": "tokens"}}
    base = {**EXCHANGE, "fidelity": "flow", "seed": 3, "workload": workload}
    axes = {"layout.ep": [8, 16]}
    binding = []
    for seed in (3, 4):
        found = run(sweep_of(base={**base, "seed": seed}, axes=axes), tmp_path / str(seed))
        binding.append([point["metrics"]["dispatch"]["binding_resource"] for point in found["points"]])
    assert binding[0] != binding[1]
    afresh = run(sweep_of(base=base, axes=axes, replicas=2), tmp_path)
    resumed = run(sweep_of(base=base, axes=axes, replicas=2), tmp_path / "4")
    assert resumed["runs"] == {"computed": 2, "remembered": 2, "of_changes": 0}
    assert resumed["points"] == afresh["points"]
    assert [point["metrics"]["dispatch"]["binding_resource"] for point in afresh["points"]] == binding[0]


KERNELS: list[dict[str, Any]] = [{"kind": "flat", "copies": "per_rank"}, {"kind": "two_hop"}]
COPIES = ["workload.kernel.copies == 'per_rank'"]
"""A constraint whose name only the first kernel has."""


class Backwards(Here):
    """Workers of which the last batch ends first."""

    slots = 8

    def submit(self, batch: Batch) -> Future[Rows]:
        done: Future[Rows] = Future()
        self.batches.append(batch)
        Timer(0.2 / len(self.batches), lambda: done.set_result(work(batch))).start()
        return done


@pytest.mark.parametrize("workers", [Here, Backwards])
def test_names_are_asked_of_the_first_point_whichever_ends_first(
    workers: type[Here], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(driver, "_BATCH_S", 0.0)  # one point a batch
    found = run(sweep_of(axes={"workload.kernel": KERNELS}, constraints=COPIES), tmp_path, workers())
    assert found["counts"]["ok"] == 2
    turned = sweep_of(axes={"workload.kernel": KERNELS[::-1]}, constraints=COPIES)
    with pytest.raises(InputError, match=r"got 'workload\.kernel\.copies'"):
        run(turned, tmp_path / "turned", workers())


def test_a_point_without_an_objective_cannot_be(tmp_path: Path) -> None:
    """Only a run that is priced has a cost."""
    run_of = {"tokens": "14.8 T", "price": "2 $/GPU-hour"}
    axes = {"run": {"priced": {"workload.run": run_of}, "bare": {}}}
    found = run(sweep_of(base=STEP, axes=axes, objectives={"run_cost_usd": "minimise"}), tmp_path)
    assert [point["status"] for point in found["points"]] == ["ok", "infeasible"]
    assert found["points"][1]["reason"] == "it has no metric run_cost_usd"
    assert found["ranked"] == found["pareto"] == [0]


# --- ranking -------------------------------------------------------------------------------------------------------

SCORES = st.lists(st.tuples(st.integers(0, 6), st.integers(0, 6)), min_size=1, max_size=30)


def points_of(scores: list[tuple[int, int]]) -> list[Point]:
    return [Point(i, "ok", metrics={"a": a, "b": b}) for i, (a, b) in enumerate(scores)]


@given(SCORES)
def test_the_front_is_what_nothing_beats(scores: list[tuple[int, int]]) -> None:
    found = answers.rank(points_of(scores), {"a": "minimise", "b": "maximise"})
    ranked, pareto = found.order, found.pareto
    signed = [(a, -b) for a, b in scores]
    unbeaten = {i for i, one in enumerate(signed) if not any(answers.beats(other, one) for other in signed)}
    assert set(pareto) == unbeaten
    assert sorted(ranked) == list(range(len(scores)))
    assert set(ranked[: len(pareto)]) == unbeaten
    assert not any(
        answers.beats(signed[later], signed[now]) for i, now in enumerate(ranked) for later in ranked[i:]
    )


@given(SCORES, st.integers(1, 3))
def test_points_of_different_conditions_do_not_beat_one_another(
    scores: list[tuple[int, int]], conditions: int
) -> None:
    objectives = {"a": "minimise", "b": "maximise"}
    found = answers.rank(points_of(scores), objectives, lambda number: number % conditions)
    assert sorted(found.order) == list(range(len(scores)))
    for condition in range(min(conditions, len(scores))):
        alone = answers.rank([p for p in points_of(scores) if p.number % conditions == condition], objectives)
        assert [n for n in found.pareto if n % conditions == condition] == alone.pareto
        assert [n for n in found.order if n % conditions == condition] == alone.order
        assert [n for n in found.best if n % conditions == condition] == alone.order[:1]


@given(SCORES)
def test_one_objective_sorts_and_equals_share_the_front(scores: list[tuple[int, int]]) -> None:
    found = answers.rank(points_of(scores), {"b": "maximise"})
    ranked, pareto = found.order, found.pareto
    assert [scores[i][1] for i in ranked] == sorted((b for _, b in scores), reverse=True)
    assert set(pareto) == {i for i, (_, b) in enumerate(scores) if b == max(b for _, b in scores)}


def test_the_last_bits_of_a_sum_decide_no_ranking() -> None:
    """A tenth added up in another order is 0.3 or 0.30000000000000004: the lower number leads, and both share the front."""
    first, second = 0.1 + 0.2, 0.3
    assert second < first
    points = [Point(0, "ok", metrics={"a": first, "b": 1.0}), Point(1, "ok", metrics={"a": second, "b": 1.0})]
    for objectives in ({"a": "minimise"}, {"a": "minimise", "b": "minimise"}):
        found = answers.rank(points, objectives)
        assert (found.order, found.best, found.pareto) == ([0, 1], [0], [0, 1])
    apart = [Point(0, "ok", metrics={"a": 1.00000001}), Point(1, "ok", metrics={"a": 1.0})]
    assert answers.rank(apart, {"a": "minimise"}).order == [1, 0]


# --- pruning -------------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def layouts(tmp_path_factory: pytest.TempPathFactory) -> dict[str, dict[str, Any]]:
    """A small sweep of layouts, with and without pruning, with two objectives and with one."""
    axes = {
        "workload.schedule": ["1f1b", "dualpipe"],
        "layout.tp": [1, 2],
        "layout.pp": [1, 2, 4, 8, 16],
        "layout.ep": [1, 2, 4, 8],
        "workload.precision": ["bf16", "fp8"],
    }
    found = {}
    for count, objectives in (
        (1, {"step_time_s": "minimise"}),
        (2, {"step_time_s": "minimise", "memory_peak_bytes": "minimise"}),
    ):
        for prune in (False, True):
            sweep = sweep_of(base=STEP, axes=axes, objectives=objectives, prune=prune)
            found[f"{count}-{prune}"] = run(sweep, tmp_path_factory.mktemp("store"))
    return found


@pytest.mark.slow
@pytest.mark.parametrize("count", [1, 2])
def test_pruning_changes_no_winner(count: int, layouts: dict[str, dict[str, Any]]) -> None:
    whole, pruned = layouts[f"{count}-False"], layouts[f"{count}-True"]
    assert pruned["pareto"] == whole["pareto"]
    assert pruned["ranked"][0] == whole["ranked"][0]
    for one, other in zip(whole["points"], pruned["points"], strict=True):
        assert other["status"] in (one["status"], "pruned")
        if other["status"] == "ok":
            assert other["metrics"] == one["metrics"]
    skipped = [point for point in pruned["points"] if point["status"] == "pruned"]
    assert len(skipped) == pruned["counts"]["pruned"]
    assert all("its lower bound is worse" in point["reason"] for point in skipped)


@pytest.mark.slow
def test_no_point_is_better_than_its_forecast(layouts: dict[str, dict[str, Any]]) -> None:
    ran = [point["metrics"] for point in layouts["1-False"]["points"] if point["status"] == "ok"]
    assert len(ran) > 20
    assert all(metrics["step_time_s"] >= metrics["lower_bound_s"] > 0 for metrics in ran)


@pytest.fixture
def bounds_by_hand(monkeypatch: pytest.MonkeyPatch) -> None:
    """EP16 can be at best a second, EP8 takes no time; one point a round."""
    from sim.sweeps import points
    from sim.sweeps import run as sweep

    def forecast(scenario: Any) -> Any:
        return replace(real(scenario), best={"dispatch.time_s": 1.0 if scenario.ep == 16 else 0.0})

    real = points.forecast
    monkeypatch.setattr(points, "forecast", forecast)
    monkeypatch.setattr(sweep, "_FIRST_ROUND", 1)


@pytest.mark.usefixtures("bounds_by_hand")
def test_a_point_whose_bound_is_beaten_is_skipped_and_says_so(tmp_path: Path) -> None:
    """Bounds are put in by hand: EP16 can be at best a second, EP8 takes microseconds."""
    found = run(sweep_of(**EP, prune=True), tmp_path)
    assert [point["status"] for point in found["points"]] == ["ok", "pruned"]
    assert found["runs"]["computed"] == 1
    assert found["ranked"] == found["pareto"] == [0]


@pytest.mark.usefixtures("bounds_by_hand")
def test_a_point_is_skipped_only_for_one_of_the_same_condition(tmp_path: Path) -> None:
    """EP16 can be at best a second, EP8 takes microseconds; asked for the best of each, both have to run."""
    found = run(sweep_of(**EP, prune=True, given="layout.ep"), tmp_path)
    assert [point["status"] for point in found["points"]] == ["ok", "ok"]


def test_the_bound_of_a_point_is_the_mean_of_those_of_its_replicas(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """EP16 can be at best 1 s with the first seed and 0 s with the second, so 0.5 s on average, which 0.7 s do not beat."""
    from sim.sweeps import points
    from sim.sweeps import run as sweep

    def forecast(scenario: Any) -> Any:
        least = 0.0 if scenario.ep == 8 else 1.0 - scenario.seed % 2
        time_s = 0.7 if scenario.ep == 8 else least + 0.1
        return Forecast(lambda: {"dispatch": {"time_s": time_s}}, best={"dispatch.time_s": least})

    monkeypatch.setattr(points, "forecast", forecast)
    monkeypatch.setattr(sweep, "_FIRST_ROUND", 1)
    found = run(sweep_of(**EP, prune=True, replicas=2), tmp_path)
    assert [point["status"] for point in found["points"]] == ["ok", "ok"]
    assert found["ranked"] == [1, 0]


def test_points_without_a_bound_all_run(tmp_path: Path) -> None:
    found = run(sweep_of(**EP, prune=True), tmp_path)
    assert [point["status"] for point in found["points"]] == ["ok", "ok"]


# --- what would have to change -------------------------------------------------------------------------------------


def test_points_that_lack_memory_alone_say_what_they_would_do_with_it(tmp_path: Path) -> None:
    model = {"cluster.override.gpu.hbm.capacity": "12 GB", "cluster.nodes": 4}
    sweep = sweep_of(base=STEP, set=model, axes={"layout.pp": [1, 4]}, objectives={"step_time_s": "minimise"})
    found = run(sweep, tmp_path)
    assert {point["status"] for point in found["points"]} == {"infeasible"}
    assert found["changes"]
    change = found["changes"][0]
    assert change["needed_bytes"] > change["capacity_bytes"] == 12e9
    assert sum(change["parts"].values()) == pytest.approx(change["needed_bytes"], rel=1e-9)
    assert change["metrics"]["memory_peak_bytes"] == pytest.approx(change["needed_bytes"], rel=1e-9)
    times = [one["metrics"]["step_time_s"] for one in found["changes"]]
    assert times == sorted(times)


def test_of_points_that_lack_memory_those_are_told_that_none_beats_with_less(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """All of them tried, a few, or a few nearest and a few of promise: what is told is as good, and nothing that needs far more."""
    said = {
        "base": STEP,
        "set": {"cluster.override.gpu.hbm.capacity": "20 GB", "cluster.nodes": 4},
        "axes": {
            "layout.pp": [1, 2, 4],
            "layout.ep": [4, 8],
            "layout.tp": [1, 2, 4],
            "workload.schedule": ["1f1b", "dualpipe"],
        },
        "objectives": {"step_time_s": "minimise"},
    }
    whole = run(sweep_of(**said), tmp_path)
    told = [(one["needed_bytes"], one["metrics"]["step_time_s"]) for one in whole["changes"]]
    assert len(told) >= 2
    assert sorted(told, key=lambda one: one[1]) == sorted(told, reverse=True)  # less time, more memory
    assert max(needed for needed, _ in told) <= 2.5 * 20e9
    best = min(whole["changes"], key=lambda one: one["metrics"]["step_time_s"])
    room = {**said["set"], "cluster.override.gpu.hbm.capacity": f"{best['needed_bytes'] * 1.01:.0f} B"}
    roomy = run(sweep_of(**{**said, "set": room}), tmp_path)
    assert roomy["points"][best["point"]]["metrics"]["step_time_s"] == pytest.approx(
        best["metrics"]["step_time_s"]
    )
    assert roomy["best"] == [best["point"]]
    monkeypatch.setattr(changes, "_TRIED", 3)
    few = run(sweep_of(**said), tmp_path)
    assert few["runs"]["of_changes"] <= 6 < whole["runs"]["of_changes"]
    assert min(few["changes"], key=lambda one: one["metrics"]["step_time_s"]) == best


def test_what_would_have_to_change_is_held_to_the_constraints_too(tmp_path: Path) -> None:
    said = {
        "base": STEP,
        "set": {"cluster.override.gpu.hbm.capacity": "12 GB", "cluster.nodes": 4},
        "axes": {"layout.pp": [1, 4]},
        "objectives": {"step_time_s": "minimise"},
    }
    assert run(sweep_of(**said), tmp_path)["changes"]
    assert not run(sweep_of(**said, constraints=["step_time_s < 1 us"]), tmp_path)["changes"]


# --- deaths --------------------------------------------------------------------------------------------------------


def test_a_point_that_kills_its_worker_three_times_is_a_row_and_the_others_run(tmp_path: Path) -> None:
    deaths: list[list[int]] = []

    def kill(batch: Batch) -> None:
        if any(document.get(("layout", "ep")) == 8 for _, document in batch.tasks):
            deaths.append([number for number, _ in batch.tasks])
            raise Died

    found = run(sweep_of(axes={"layout.ep": [2, 4, 8, 16]}), tmp_path, Here(kill))
    assert [point["status"] for point in found["points"]] == ["ok", "ok", "failed", "ok"]
    assert "its worker died 3 times while it ran alone" in found["points"][2]["reason"]
    assert deaths[-3:] == [[2], [2], [2]]
    assert found["runs"]["computed"] == 4


def test_a_worker_that_dies_once_costs_no_point(tmp_path: Path) -> None:
    lives = iter([True])

    def kill(_: Batch) -> None:
        if next(lives, False):
            raise Died

    found = run(sweep_of(axes={"layout.ep": [2, 4, 8, 16]}), tmp_path, Here(kill))
    assert found["counts"]["ok"] == 4
