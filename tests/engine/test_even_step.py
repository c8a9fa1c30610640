"""The compiled loop of balanced steps against the events that it stands for."""

from __future__ import annotations

import sys
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from test_training import SHAPES, Even, assert_same, stage

from sim.engine import even_step, step_compiled
from sim.engine.step_plan import ExchangeTimes, StepPlan
from sim.engine.training import run_events, run_step
from sim.runs import training
from sim.scenario.resolve import resolve
from sim.scenario.settings import read
from sim.schedule.pipelines import plan
from sim.schedule.programs import LayerTimes, PhaseTime
from sim.schedule.training import StageTimes, Tasks, by_hand, tasks

BALANCED = [f"workload.skew.{key}=0" for key in ("routed_load", "kernel_jitter", "gpu_spread")]


class Unlike(Even):
    """Exchanges that differ by kernel, and beside compute."""

    def exchange(
        self, kernel: str, overlapped: bool, group: int, layer: int, microbatch: int
    ) -> ExchangeTimes:
        by = {"dispatch": 1.0, "combine": 1.7}[kernel] * (1.3 if overlapped else 1.0)
        whole = self.exchange_s * by
        return ExchangeTimes(np.array([whole]), min(1.0, self.fill / by), 50e6 * by, whole)


seconds = st.sampled_from((0.0, 0.1, 0.37, 1.0))
phase = st.builds(PhaseTime, seconds, seconds, st.sampled_from((0.0, 0.0, 0.05)))
layers = st.lists(
    st.builds(LayerTimes, st.just(0), st.booleans(), *[phase] * 6, st.booleans()), min_size=1, max_size=3
).map(tuple)


@st.composite
def steps(draw: st.DrawFn) -> StepPlan:
    """Small steps of every schedule, with whatever can meet on a NIC."""
    kind = draw(st.sampled_from(sorted(SHAPES)))
    num_ranks = 2 * draw(st.integers(1, 3))
    pipeline = plan(kind, num_ranks, (2 + draw(st.integers(0, 3))) * num_ranks)
    stages = [draw(st.builds(StageTimes, layers, layers)) for _ in range(pipeline.num_stages)]
    costs = Unlike(draw(st.sampled_from((0.0, 0.3, 2.0))), draw(st.sampled_from((0.0, 0.4, 0.9, 1.0))))
    return StepPlan(
        tasks=tasks(
            pipeline, stages, {"dispatch": 0.3, "combine": 0.4}.__getitem__, overlap=draw(st.booleans())
        ),
        num_groups=1,
        lanes=1,
        costs=costs,
        speed=[[draw(st.sampled_from((1.0, 1.2)))] for _ in range(num_ranks)],
        send_s=draw(st.sampled_from((0.0, 0.1, 0.5, 2.0))),
        send_bytes=draw(st.sampled_from((0.0, 1.0, 58e6, 1e9))),
        blocking=draw(st.booleans()),
    )


@given(step=steps())
def test_the_loop_leaves_what_the_events_leave(step: StepPlan) -> None:
    assert_same(run_step(step, keep_tasks=2), run_events(step, keep_tasks=2))


@pytest.mark.parametrize(
    ("name", "settings"),
    [
        ("mixtral-training", []),
        ("qwen3-training", ["workload.microbatches=32"]),
        ("v3-training-h800", []),
        ("v3-training-measured", ["workload.microbatches=64"]),
        (
            "v3-training-h800",
            ["layout.pp=8", "layout.tp=2", "workload.schedule=zb1p", "workload.microbatches=32"],
        ),
    ],
)
def test_balanced_scenarios_have_the_same_metrics_without_numba(
    name: str, settings: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    scenario = resolve(read(name, [*BALANCED, *settings, "cluster.override={gpu.hbm.capacity: 1 TB}"]))
    compiled = training.Step.of(scenario).run()
    monkeypatch.setitem(sys.modules, "sim.engine.even_step", None)
    assert_close(training.Step.of(scenario).run(), compiled)


def assert_close(found: dict[str, Any], expected: dict[str, Any]) -> None:
    """Equal to 1e-9, of the whole step where a metric is a part of it that may vanish."""
    assert found.keys() == expected.keys()
    for name, value in expected.items():
        for key, one in value.items() if isinstance(value, dict) else [(name, value)]:
            mine = found[name][key] if isinstance(value, dict) else found[name]
            tiny = 1e-9 * expected["step_time_s"] if key.endswith("_s") else 0.0
            assert mine == pytest.approx(one, rel=1e-9, abs=tiny), (name, key)


def counted(monkeypatch: pytest.MonkeyPatch) -> list[StepPlan]:
    """The steps that the compiled loop is given from now on."""
    given: list[StepPlan] = []
    run_even: Callable[..., Any] = even_step.run_even

    def noted(step: StepPlan, *rest: Any) -> Any:
        given.append(step)
        return run_even(step, *rest)

    monkeypatch.setattr(even_step, "run_even", noted)
    return given


def test_every_balanced_step_takes_the_loop_and_no_skewed_one(monkeypatch: pytest.MonkeyPatch) -> None:
    given = counted(monkeypatch)
    few = ["workload.microbatches=8"]
    training.Step.of(resolve(read("mixtral-training", [*BALANCED, *few]))).run()
    assert len(given) == 1
    for key in ("routed_load", "kernel_jitter", "gpu_spread"):
        some = f"workload.skew.{key}=5 %"
        training.Step.of(resolve(read("mixtral-training", [*BALANCED, *few, some]))).run()
    assert len(given) == 1


def test_ranks_that_stand_side_by_side_as_lanes_take_the_loop_when_they_are_alike(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    given = counted(monkeypatch)
    asked = [
        *BALANCED,
        "layout.ep=1",
        "workload.microbatches=8",
        "cluster.override={gpu.hbm.capacity: 10 TB}",
    ]
    training.Step.of(resolve(read("mixtral-training", asked))).run()
    assert [len(step.tasks) for step in given] == [8]


def test_a_run_has_the_metrics_that_a_sweep_asks_for() -> None:
    scenario = resolve(read("qwen3-training", [*BALANCED, "workload.microbatches=16"]))
    assert training.run_training(scenario, lambda _: None)["metrics"] == training.Step.of(scenario).run()


def test_one_compiled_version_serves_all_steps() -> None:
    for kind, shapes in SHAPES.items():
        pipeline = plan(kind, *shapes[0])
        made = tasks(pipeline, [stage(1, 1, 1)] * pipeline.num_stages, lambda kernel: 0.0)
        for table in (made, by_hand(list(made))):
            run_step(step_of(table))
    assert len(step_compiled.run.signatures) == 1


def step_of(table: Tasks) -> StepPlan:
    return StepPlan(table, 1, 1, Even(0.3), [[1.0]] * len(table), send_s=0.2, send_bytes=1.0)


def test_messages_that_nobody_sends_are_told_as_a_deadlock() -> None:
    made = tasks(plan("1f1b", 2, 2), [stage(1, 1, 1)] * 2, lambda kernel: 0.0)
    first, second = made
    mute = [task if task.kind == "B" else _without_sends(task) for task in first]
    with pytest.raises(AssertionError, match="deadlock"):
        run_step(step_of(by_hand([mute, list(second)])))


def _without_sends(task: Any) -> Any:
    return type(task)(*(getattr(task, name) for name in task.__slots__[:-1]), sends=())


@pytest.mark.parametrize("kind", sorted(SHAPES))
def test_tasks_given_one_by_one_run_like_the_table_they_come_from(kind: str) -> None:
    pipeline = plan(kind, *SHAPES[kind][-1])
    stages = [stage(1, 1.2, 0.8, layer=i, exchanges=i % 2 == 0) for i in range(pipeline.num_stages)]
    made = tasks(pipeline, stages, lambda kernel: 0.3)
    assert_same(run_step(step_of(by_hand(list(made))), keep_tasks=1), run_step(step_of(made), keep_tasks=1))
