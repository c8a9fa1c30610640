"""The executor of a step: the pure replay where nothing takes time but compute, then sends, collectives, skew and folding."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from dataclasses import fields, replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import sim
from sim.engine import machine_code, step_loop
from sim.engine import step as step_engine
from sim.engine.step import run_step
from sim.engine.step_arrays import laid_out
from sim.engine.step_network import network_of
from sim.engine.step_plan import Conditions, StepPlan
from sim.engine.step_records import GroupRecord, NodeRecords, TaskRecords
from sim.engine.step_transfers import _scale, end_of
from sim.schedule.pipelines import plan
from sim.schedule.programs import LayerTimes, PhaseTime
from sim.schedule.replay import replay
from sim.schedule.training import StageTimes, tasks
from steps import SHAPES, end_s, planned, run, stage

CASES = [(kind, *shape) for kind, shapes in SHAPES.items() for shape in shapes]


def assert_same(found: list[GroupRecord], expected: list[GroupRecord], tiny: float = 1e-9) -> None:
    """Equal to a part of the whole step, and in everything that is no time exactly."""
    assert len(found) == len(expected)
    tiny *= max(end_s(expected), 1e-30)
    for mine, theirs in zip(found, expected, strict=True):
        assert mine.pipeline_rank == theirs.pipeline_rank
        assert mine.end_s == pytest.approx(theirs.end_s, abs=tiny, rel=0)
        for part, columns in (("tasks", TaskRecords), ("nodes", NodeRecords)):
            for column in (field.name for field in fields(columns)):
                x, y = (np.asarray(getattr(getattr(record, part), column)) for record in (mine, theirs))
                assert x.shape == y.shape
                assert np.abs(x - y).max(initial=0) <= tiny if column.endswith("_s") else (x == y).all()


# --- against the replay -------------------------------------------------------------------------------------


@pytest.mark.parametrize(("kind", "num_ranks", "num_microbatches"), CASES)
def test_a_step_without_sends_and_exchanges_is_the_replay(
    kind: str, num_ranks: int, num_microbatches: int
) -> None:
    pipeline = plan(kind, num_ranks, num_microbatches)
    rng = np.random.default_rng(num_ranks)
    parts = [tuple(rng.uniform(0.5, 2.0, 3)) for _ in range(pipeline.num_stages)]
    expected = replay(
        pipeline,
        {(key, i): x for i, one in enumerate(parts) for key, x in zip(("F", "B_in", "W"), one, strict=True)},
    )
    # The replay knows no rendezvous: a sender that waits for its receiver may end later, never sooner.
    for blocking in (False, True):
        records = run(pipeline, [stage(*one) for one in parts], blocking=blocking)
        for record, starts, ends in zip(records, expected.starts, expected.ends, strict=True):
            got = [task.end_s for task in record.tasks]
            if blocking:
                assert all(x >= y - 1e-9 for x, y in zip(got, ends, strict=True))
            else:
                assert [task.start_s for task in record.tasks] == pytest.approx(starts)
                assert got == pytest.approx(ends)


def test_dualpipe_of_16_ranks_and_120_microbatches_takes_374_units_on_every_rank() -> None:
    # F = B_in = W = 1, FB = 3: 360 of work, 14 = (16/2 - 1)(3 + 2 - 3) of bubble, rendezvous or not.
    records = run(plan("dualpipe", 16, 120), [stage(1, 1, 1)] * 16)
    assert end_s(records) == pytest.approx(374)
    for record in records:
        assert sum(task.end_s - task.start_s for task in record.tasks) == pytest.approx(360)
        assert float(record.end_s[0]) - record.tasks[0].start_s <= 374


@pytest.mark.parametrize(("kind", "num_ranks", "num_microbatches"), CASES)
@pytest.mark.parametrize("blocking", [False, True])
def test_every_schedule_ends_with_sends_exchanges_and_skew(
    kind: str, num_ranks: int, num_microbatches: int, blocking: bool
) -> None:
    pipeline = plan(kind, num_ranks, num_microbatches)
    speed = np.array([1.0, 1.1])
    stages = [stage(1, 1.2, 0.8, layer=i, communicates=i % 2 == 0) for i in range(pipeline.num_stages)]
    records = run(
        pipeline,
        stages,
        collective_s=0.3,
        fill=0.9,
        lanes=2,
        send_s=0.2,
        blocking=blocking,
        speed=speed,
        num_groups=2,
    )
    assert [len(record.tasks) for record in records] == [
        len(order) for order in pipeline.orders for _ in "12"
    ]
    assert end_s(records) >= replay(pipeline, {"F": 1.05, "B_in": 1.26, "W": 0.84}).total_s - 1e-9


@given(
    kind=st.sampled_from(sorted(SHAPES)),
    half=st.integers(1, 4),
    more=st.integers(0, 6),
    send_s=st.sampled_from((0.0, 0.1, 2.0)),
    parts=st.tuples(*[st.sampled_from((0.1, 1.0, 3.0))] * 3),
)
def test_rendezvous_never_deadlocks(
    kind: str, half: int, more: int, send_s: float, parts: tuple[float, float, float]
) -> None:
    num_ranks = 2 * half
    num_microbatches = (2 + more) * num_ranks
    pipeline = plan(kind, num_ranks, num_microbatches)
    records = run(pipeline, [stage(*parts)] * pipeline.num_stages, send_s=send_s)
    assert [len(record.tasks) for record in records] == [len(order) for order in pipeline.orders]


# --- sends --------------------------------------------------------------------------------------------------


def test_a_send_adds_its_time_to_the_way_there_and_back() -> None:
    # Rank 0: F 0-1, B from 1 + 0.25 + (1 + 3) + 0.25. W is in B: 3.
    first, second = run(plan("1f1b", 2, 1), [stage(1, 2, 1)] * 2, send_s=0.25)
    assert [(t.kind, t.start_s, t.end_s) for t in first.tasks] == [("F", 0, 1), ("B", 5.5, 8.5)]
    assert [(t.kind, t.start_s, t.end_s) for t in second.tasks] == [("F", 1.25, 2.25), ("B", 2.25, 5.25)]


def test_a_blocking_send_delays_the_next_operation_and_a_free_one_does_not() -> None:
    # Two microbatches, gpipe: F1 on rank 0 starts when the first send is out, or at once.
    for blocking, start in ((True, 1.25), (False, 1.0)):
        first, _ = run(plan("gpipe", 2, 2), [stage(1, 2, 1)] * 2, send_s=0.25, blocking=blocking)
        assert first.tasks[1].start_s == pytest.approx(start)


def test_a_sender_waits_for_a_slow_receiver_when_its_buffer_is_full() -> None:
    # Rank 1 takes 10 an F: it has taken F0 and posted one buffer for F1; F2 must wait until F1 is begun at 11.
    first, second = run(plan("gpipe", 2, 4), [stage(1, 1, 1), stage(10, 1, 1)])
    assert [t.start_s for t in list(second.tasks)[:4]] == pytest.approx([1, 11, 21, 31])
    assert [t.start_s for t in list(first.tasks)[:4]] == pytest.approx([0, 1, 2, 11])


def test_a_send_and_an_exchange_on_one_nic_slow_each_other() -> None:
    # Rank 1 computes nothing and exchanges all the time; the activations that come meanwhile share its NIC.
    stages = [stage(1, 1, 1), stage(0, 0, 0, communicates=True)]
    quiet = run(plan("gpipe", 2, 2), stages, collective_s=1.0, fill=0.0, send_s=0.5, blocking=False)
    busy = run(plan("gpipe", 2, 2), stages, collective_s=1.0, fill=1.0, send_s=0.5, blocking=False)
    assert busy[1].tasks[1].end_s > quiet[1].tasks[1].end_s


# --- exchanges and skew -------------------------------------------------------------------------------------


def test_a_chunk_alone_exposes_its_exchanges_and_a_pair_hides_what_it_can() -> None:
    whole = run(plan("1f1b", 1, 3), [stage(1, 1, 1, communicates=True)], collective_s=0.25)[0]
    assert [t.kind for t in whole.tasks] == ["F", "B"] * 3
    # F: dispatch, mlp, combine. B: combine(B), mlp(B), then mlp(W) beside dispatch(B).
    assert [t.end_s - t.start_s for t in whole.tasks] == pytest.approx([1.5, 2.25] * 3)
    assert [t.exposed_s for t in whole.tasks] == pytest.approx([0.5, 0.25] * 3)


def test_schedules_without_pairs_never_overlap_two_microbatches() -> None:
    for kind in ("gpipe", "1f1b", "interleaved", "zb1p"):
        pipeline = plan(kind, 2, 4)
        step = planned(pipeline, [stage(1, 1, 1, communicates=True)] * pipeline.num_stages, collective_s=0.25)
        assert {task.kind for record in run_step(step).records for task in record.tasks} <= {
            "F",
            "B",
            "B_in",
            "W",
        }
        assert not any(overlapped for _, overlapped in step.tasks.programs)


def test_overlap_hides_exchanges_that_are_exposed_without_it() -> None:
    pipeline, stages = plan("dualpipe", 4, 12), [stage(1, 1, 1, communicates=True)] * 4
    hidden = run(pipeline, stages, collective_s=0.4)
    bare = run(pipeline, stages, collective_s=0.4, overlap=False)
    free = run(pipeline, stages)
    assert end_s(free) < end_s(hidden) < end_s(bare)

    def exposed(records: list[GroupRecord]) -> float:
        return sum(task.exposed_s for record in records for task in record.tasks)

    assert exposed(free) == pytest.approx(0)
    assert exposed(hidden) < 0.7 * exposed(bare)


def test_every_task_is_its_compute_and_its_exposed_time() -> None:
    pipeline = plan("dualpipe", 4, 12)
    stages = [stage(1 + i / 10, 1, 0.9, layer=i, communicates=True) for i in range(4)]
    plan_tasks = tasks(pipeline, stages, lambda kernel: 0.7)
    for record, given_ in zip(run(pipeline, stages, collective_s=0.7, send_s=0.1), plan_tasks, strict=True):
        for done, task in zip(record.tasks, given_, strict=True):
            compute = sum(node.mean_s for node in task.program if node.collective is None)
            assert done.end_s - done.start_s == pytest.approx(compute + done.exposed_s)


def test_an_exchange_begins_when_the_slowest_lane_is_there() -> None:
    speed = np.array([1.0, 1.5])
    times = LayerTimes(0, True, PhaseTime(1.0), *[PhaseTime()] * 5)
    [record] = run(
        plan("gpipe", 1, 1),
        [StageTimes((times,), (times,))],
        collective_s=0.25,
        lanes=2,
        speed=speed,
        keep_tasks=1,
    )
    forward = record.tasks[0]
    assert forward.barrier_s == pytest.approx(0.25)  # lane 0 waits half a second, lane 1 not at all
    assert forward.end_s == pytest.approx(1.5 + 0.25 + 0.25)
    dispatch = next(node for node in record.nodes if node.name == "dispatch(F)")
    assert (dispatch.start_s, dispatch.end_s) == pytest.approx((1.5, 1.75))


def test_without_skew_nobody_waits_at_a_barrier() -> None:
    pipeline = plan("dualpipe", 4, 8)
    records = run(pipeline, [stage(1, 1, 1, communicates=True)] * 4, collective_s=0.4, lanes=3, send_s=0.2)
    assert sum(task.barrier_s for record in records for task in record.tasks) == 0


def test_a_rank_computes_its_routed_load_in_f_b_and_w_of_the_same_microbatch() -> None:
    loads = np.ones((1, 8, 2, 2))
    loads[0, 7, 1] = 0.5, 1.5
    records = run(plan("zb1p", 1, 2), [stage(1, 1, 1, layer=7, routed=0.5)], lanes=2, loads=loads)
    # Microbatch 0 has the mean load. Of microbatch 1 lane 1 computes 1.25, 1.25, 1.25.
    assert float(records[0].end_s[1]) == pytest.approx(3 + 3 * 1.25)
    assert float(records[0].end_s[0]) == pytest.approx(3 + 3 * 0.75)


def test_groups_of_a_stage_do_not_wait_for_one_another() -> None:
    speed = np.array([1.0, 2.0])[:, None]
    records = run(plan("1f1b", 2, 4), [stage(1, 1, 1)] * 2, num_groups=2, speed=speed)
    quick, slow = (end_s([record for record in records if record.group == group]) for group in (0, 1))
    assert slow == pytest.approx(2 * quick)


def test_nodes_are_kept_of_the_first_tasks_of_each_kind() -> None:
    pipeline = plan("dualpipe", 2, 8)
    for record in run(pipeline, [stage(1, 1, 1, communicates=True)] * 2, collective_s=0.1, keep_tasks=2):
        kinds = [record.tasks[i].kind for i in sorted({node.task for node in record.nodes})]
        assert all(kinds.count(kind) <= 2 for kind in kinds)
        for node in record.nodes:
            task = record.tasks[node.task]
            assert task.start_s - 1e-9 <= node.start_s <= node.end_s <= task.end_s + 1e-9


# --- folding and the oracle -----------------------------------------------------------------------------------------


class AnyStep:
    """Small steps of every schedule, with whatever can meet on a NIC."""

    seconds = st.sampled_from((0.0, 0.1, 0.37, 1.0))
    phase = st.builds(PhaseTime, seconds, seconds, st.sampled_from((0.0, 0.0, 0.05)))
    layers = st.lists(
        st.builds(LayerTimes, st.just(0), st.booleans(), *[phase] * 6, st.booleans()), min_size=1, max_size=3
    ).map(tuple)

    @staticmethod
    @st.composite
    def draw(draw: st.DrawFn) -> StepPlan:
        kind = draw(st.sampled_from(sorted(SHAPES)))
        num_ranks = 2 * draw(st.integers(1, 3))
        pipeline = plan(kind, num_ranks, (2 + draw(st.integers(0, 3))) * num_ranks)
        stages = [
            draw(st.builds(StageTimes, AnyStep.layers, AnyStep.layers)) for _ in range(pipeline.num_stages)
        ]
        by = draw(st.sampled_from((0.0, 0.3, 2.0)))
        num_groups, lanes = draw(st.integers(1, 3)), draw(st.integers(1, 3))
        speeds = draw(st.lists(st.sampled_from((1.0, 1.2)), min_size=num_groups, max_size=num_groups))
        return planned(
            pipeline,
            stages,
            collective_s={"dispatch": by, "combine": 1.7 * by},
            fill=draw(st.sampled_from((0.0, 0.4, 0.9, 1.0))),
            send_s=draw(st.sampled_from((0.0, 0.1, 0.5, 2.0))),
            slowdown=draw(st.sampled_from((1.0, 1.3))),
            blocking=draw(st.booleans()),
            overlap=draw(st.booleans()),
            speed=np.array(speeds)[:, None],
            num_groups=num_groups,
            lanes=lanes,
        )


@st.composite
def broken(draw: st.DrawFn) -> StepPlan:
    """Any step, with NICs that are slow or dead for a while, and lanes that compute more slowly."""
    step = draw(AnyStep.draw())
    nodes = [node for program, _ in step.tasks.programs for node in program]
    times = np.array([(node.fixed_s, node.routed_s) for node in nodes]).T.reshape(2, -1)
    parts = np.array(draw(st.lists(st.sampled_from((1.0, 0.5, 0.0)), min_size=5, max_size=5)))
    several = st.lists(st.integers(0, 1), min_size=7, max_size=7)
    capacity = step.traffic.capacity * np.array([np.ones(step.traffic.capacity.shape)] * 3)
    capacity[1] *= np.resize(parts, len(capacity[1]))
    variant = np.array(
        [np.resize(draw(several), step.speed.size).reshape(step.speed.shape) for _ in range(3)]
    )
    return replace(
        step,
        conditions=Conditions(
            np.array([0.7, 3.1]), capacity, variant, *np.stack([times, 1.7 * times], axis=1)
        ),
    )


@pytest.mark.slow
@settings(max_examples=40)
@given(step=broken())
def test_a_folded_step_with_faults_is_the_step_of_every_lane_by_itself(step: StepPlan) -> None:
    unlike = step.speed * (1 + 1e-11 * np.arange(step.speed.size).reshape(step.speed.shape))
    assert_same(
        run_step(step, keep_tasks=2).records, run_step(replace(step, speed=unlike), keep_tasks=2).records
    )


@settings(max_examples=20)
@given(step=AnyStep.draw())
def test_conditions_that_change_nothing_change_nothing(step: StepPlan) -> None:
    nodes = [node for program, _ in step.tasks.programs for node in program]
    times = np.array([(node.fixed_s, node.routed_s) for node in nodes]).T.reshape(2, 1, -1)
    capacity, variant = (
        np.array([step.traffic.capacity] * 3),
        np.zeros((3, *step.speed.shape), dtype=np.int64),
    )
    same = Conditions(np.array([0.7, 3.1]), capacity, variant, *times)
    assert_same(
        run_step(replace(step, conditions=same), keep_tasks=2).records, run_step(step, keep_tasks=2).records
    )


@given(step=AnyStep.draw())
def test_a_folded_step_is_the_step_of_every_lane_by_itself(step: StepPlan) -> None:
    """Speeds that differ in the eleventh digit leave nothing alike; the step is the same to the ninth."""
    count = step.speed.size
    unlike = step.speed * (1 + 1e-11 * np.arange(count).reshape(step.speed.shape))
    apart = run_step(replace(step, speed=unlike), keep_tasks=2)
    folded = run_step(step, keep_tasks=2)
    assert sum(map(len, apart.network.folded.lanes)) == step.num_groups * step.lanes
    assert_same(folded.records, apart.records)
    assert folded.bytes == pytest.approx(apart.bytes)


def test_what_is_alike_is_one_and_what_differs_is_not() -> None:
    """Ten groups of four lanes: one of each where nothing differs; a slow GPU tells its group apart, and its lane."""
    shape = plan("1f1b", 4, 8)
    even = planned(
        shape, [stage(1, 1, 1, communicates=True)] * 4, collective_s=0.3, send_s=0.1, num_groups=10, lanes=4
    )
    folded = run_step(even).network.folded
    assert (len(folded.groups), [len(lanes) for lanes in folded.lanes]) == (1, [1])
    speed = even.speed.copy()
    speed[2, 7, 3] = 1.5
    folded = run_step(replace(even, speed=speed)).network.folded
    assert sorted(folded.groups.tolist()) == [0, 7]
    assert sorted(len(lanes) for lanes in folded.lanes) == [1, 2]


@settings(max_examples=10)
@given(step=broken())
def test_a_step_is_the_same_compiled_and_as_plain_python(step: StepPlan) -> None:
    found = []
    with pytest.MonkeyPatch.context() as patched:
        for loop in (step_loop.run.machine_code, step_loop.run.plain):
            patched.setattr(step_engine, "_loop", lambda *_, loop=loop: loop)
            found.append(run_step(step, keep_tasks=2).records)
    assert_same(*found)


@settings(max_examples=5)
@given(step=broken())
def test_arrays_of_every_step_are_laid_out_alike(step: StepPlan) -> None:
    """One of another layout is another type to numba, which takes twenty seconds to compile the loop for it."""
    shape = (1, 2, 3, step.lanes)
    turned = replace(step, loads=np.ones(shape[::-1]).T, jitter=np.ones((4, 2)).T)
    network = network_of(turned)
    for part in (*laid_out(turned, network, 2), network.templates):
        arrays = [field for field in part if isinstance(field, np.ndarray)]
        assert arrays
        assert all(array.flags.c_contiguous for array in arrays)


def test_a_step_without_collectives_is_no_other_type_to_numba(monkeypatch: pytest.MonkeyPatch) -> None:
    types = set()

    def loop(*args: Any) -> int:
        types.add(machine_code._taken(args)[0])
        return int(step_loop.run.plain(*args))

    monkeypatch.setattr(step_engine, "_loop", lambda *_: loop)
    for communicates in (False, True):
        stages = [stage(1, 1, 1, layer=i, communicates=communicates) for i in range(3)]
        times = {"collective_s": 0.3, "send_s": 0.1} if communicates else {}
        run(plan("gpipe", 3, 5), stages, **times)
    assert len(types) == 1


PROGRAM = """
import json, sys
from sim.runs import training
from sim.scenario.resolve import resolve
from sim.scenario.settings import read
print(json.dumps(training.Step.from_scenario(resolve(read(sys.argv[1], sys.argv[2:]))).run(), sort_keys=True))
"""


@pytest.mark.slow
@pytest.mark.parametrize(
    "settings",
    [
        ["workload.skew={routed_load: 0, kernel_jitter: 0, gpu_spread: 0}"],
        [
            "workload.skew={routed_load: 0, kernel_jitter: 0, gpu_spread: 0}",
            "software=megatron_bridge_2026_06",
        ],
        ["workload.microbatches=16", "workload.global_batch=null"],
        [
            "cluster.faults=[{node: 3, nic: 1, bandwidth: 100 Gb/s}, {node: 1, nic: 2, bandwidth: 0 %, from: 1 s, until: 2 s}, "
            "{node: 2, gpu: 1, hbm: 50 %, from: 1.5 s}, {node: 0, clock: 0 %, until: 10 ms}]",
            "workload.microbatches=16",
        ],
    ],
)
def test_the_loop_is_the_same_compiled_and_as_plain_python(settings: list[str]) -> None:
    settings = [setting for setting in settings if not setting.endswith("=null")]
    found = []
    for off in ("0", "1"):
        env = os.environ | {"NUMBA_DISABLE_JIT": off, "PYTHONPATH": str(Path(sim.__file__).parents[1])}
        command = [sys.executable, "-c", PROGRAM, "mixtral-training", *settings]
        found.append(
            json.loads(subprocess.run(command, env=env, capture_output=True, text=True, check=True).stdout)
        )
    assert_close(*found)


def assert_close(found: Any, expected: Any) -> None:
    if isinstance(expected, dict):
        assert found.keys() == expected.keys()
        for key, value in expected.items():
            assert_close(found[key], value)
    else:
        assert found == pytest.approx(expected, rel=1e-9, abs=1e-12)


def test_a_flow_ends_when_what_is_left_of_it_has_gone_be_it_half_a_byte() -> None:
    state = SimpleNamespace(left=[0.5, 0.5, 0.0], rate=[1.0, 0.0, 0.0])
    assert [end_of(state, flow, 2.0) for flow in range(3)] == [2.5, np.inf, 2.0]


def test_a_collective_asks_as_much_of_a_link_as_its_flows_together_under_their_loads() -> None:
    """Three times the bytes of a flow whose lane has three times the load, and those of one that is nobody's as they are."""
    t = SimpleNamespace(
        first=[0, 2], owner=[0, -1], owner_first=[0, 1], owner_lane=[1], payload=[10.0, 20.0], share=[1.0, 2.0],
        entry=[0, 1, 2], taker=[-1, -1], line=[1.0, 0.5],
    )  # fmt: skip
    n = SimpleNamespace(
        template=[0], first_bundle=[0, 1], bundle=[0, 0], crossings=SimpleNamespace(asked=[9.0]), line=[1.0, 0.5],
        left=[0.0, 0.0], share=[0.0, 0.0],
    )  # fmt: skip
    w = SimpleNamespace(
        tracks=[SimpleNamespace(task=0, node=0, draws=0)], tasks=[SimpleNamespace(forward=0, backward=0)],
        nodes=[SimpleNamespace(layer=0, forward=True)],
    )  # fmt: skip
    _scale(w, SimpleNamespace(loads=np.array([[[[1.0, 3.0]]]])), t, n, 0)
    assert (n.left, n.share) == ([30.0, 20.0], [3.0, 2.0])
    assert n.crossings.asked == [1.0 * 3.0 + 0.5 * 2.0]
