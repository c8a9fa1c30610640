"""The executor of a step: the pure replay where nothing takes time but compute, then sends, exchanges and skew."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, fields

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from sim.engine.step_plan import ExchangeTimes, StepPlan
from sim.engine.step_records import GroupRecord, NodeRecords, TaskRecords
from sim.engine.training import run_events, run_step
from sim.schedule.operations import Pipeline
from sim.schedule.pipelines import plan
from sim.schedule.programs import LayerTimes, PhaseTime
from sim.schedule.replay import replay
from sim.schedule.training import StageTimes, tasks

SHAPES = {
    "gpipe": [(1, 1), (3, 5), (8, 8)],
    "1f1b": [(1, 3), (4, 2), (4, 9), (8, 24)],
    "interleaved": [(2, 4), (4, 12)],
    "zb1p": [(4, 8), (6, 7), (8, 20)],
    "zb2p": [(4, 8), (6, 7), (8, 20)],
    "dualpipe": [(2, 4), (4, 8), (8, 20), (16, 120)],
    "dualpipev": [(2, 4), (4, 9), (8, 20)],
}
CASES = [(kind, *shape) for kind, shapes in SHAPES.items() for shape in shapes]


@dataclass
class Even:
    """Exchanges of a fixed time, alike for all; `loads` by (layer, microbatch) of lanes."""

    exchange_s: float = 0.0
    fill: float = 0.5
    lanes: int = 1
    loads: dict[tuple[int, int], np.ndarray] = field(default_factory=dict)
    asked: list[tuple[str, bool, int, int]] = field(default_factory=list)

    def exchange(
        self, kernel: str, overlapped: bool, group: int, layer: int, microbatch: int
    ) -> ExchangeTimes:
        self.asked.append((kernel, overlapped, layer, microbatch))
        return ExchangeTimes(np.full(self.lanes, self.exchange_s), self.fill, 50e6, self.exchange_s)

    def load(self, group: int, layer: int, microbatch: int) -> np.ndarray | float:
        return self.loads.get((layer, microbatch), 1.0)

    def jitter(self, group: int) -> float:
        return 1.0

    def even(self) -> Callable[[str, bool], ExchangeTimes] | None:
        return None if self.loads else lambda kernel, overlapped: self.exchange(kernel, overlapped, 0, 0, 0)


def stage(
    f: float, b_in: float, w: float, *, layer: int = 0, routed: float = 0.0, exchanges: bool = False
) -> StageTimes:
    """A stage of one layer; `routed` is the part that grows with the load."""
    none = PhaseTime()

    def split(time: float) -> PhaseTime:
        return PhaseTime(time * (1 - routed), time * routed)

    times = LayerTimes(layer, exchanges, none, split(f), none, split(b_in), none, split(w))
    return StageTimes((times,), (times,))


def run(
    pipeline: Pipeline,
    stages: Sequence[StageTimes],
    *,
    costs: Even | None = None,
    send_s: float = 0.0,
    blocking: bool = True,
    overlap: bool = True,
    speed: np.ndarray | float = 1.0,
    num_groups: int = 1,
    keep_tasks: int = 0,
) -> list[GroupRecord]:
    """What the events leave; the compiled loop, wherever it would be taken, must leave the same."""
    costs = costs or Even()
    step = StepPlan(
        tasks=tasks(pipeline, stages, lambda kernel: costs.exchange_s, overlap=overlap),
        num_groups=num_groups,
        lanes=costs.lanes,
        costs=costs,
        speed=[[speed] * num_groups for _ in pipeline.orders],
        send_s=send_s,
        send_bytes=58.7e6,
        blocking=blocking,
    )
    records = run_events(step, keep_tasks=keep_tasks)
    assert_same(run_step(step, keep_tasks=keep_tasks), records)
    return records


def assert_same(found: Sequence[GroupRecord], expected: Sequence[GroupRecord]) -> None:
    """Equal to 1e-9 of the whole step, and in everything that is no time exactly."""
    assert len(found) == len(expected)
    tiny = 1e-9 * max(end_s(expected), 1e-30)
    for mine, theirs in zip(found, expected, strict=True):
        assert (mine.pipeline_rank, mine.group) == (theirs.pipeline_rank, theirs.group)
        assert mine.end_s == pytest.approx(theirs.end_s, abs=tiny, rel=0)
        for part, columns in (("tasks", TaskRecords), ("nodes", NodeRecords)):
            for column in (one.name for one in fields(columns)):
                x, y = (np.asarray(getattr(getattr(one, part), column)) for one in (mine, theirs))
                assert x.shape == y.shape
                assert np.abs(x - y).max(initial=0) <= tiny if column.endswith("_s") else (x == y).all()


def end_s(records: Sequence[GroupRecord]) -> float:
    return max(float(record.end_s.max()) for record in records)


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
    stages = [stage(1, 1.2, 0.8, layer=i, exchanges=i % 2 == 0) for i in range(pipeline.num_stages)]
    records = run(
        pipeline,
        stages,
        costs=Even(0.3, 0.9, lanes=2),
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
    stages = [stage(1, 1, 1), stage(0, 0, 0, exchanges=True)]
    quiet = run(plan("gpipe", 2, 2), stages, costs=Even(1.0, 0.0), send_s=0.5, blocking=False)
    busy = run(plan("gpipe", 2, 2), stages, costs=Even(1.0, 1.0), send_s=0.5, blocking=False)
    assert busy[1].tasks[1].end_s > quiet[1].tasks[1].end_s


# --- exchanges and skew -------------------------------------------------------------------------------------


def test_a_chunk_alone_exposes_its_exchanges_and_a_pair_hides_what_it_can() -> None:
    whole = run(plan("1f1b", 1, 3), [stage(1, 1, 1, exchanges=True)], costs=Even(0.25))[0]
    assert [t.kind for t in whole.tasks] == ["F", "B"] * 3
    # F: dispatch, mlp, combine. B: combine(B), mlp(B), then mlp(W) beside dispatch(B).
    assert [t.end_s - t.start_s for t in whole.tasks] == pytest.approx([1.5, 2.25] * 3)
    assert [t.exposed_s for t in whole.tasks] == pytest.approx([0.5, 0.25] * 3)


def test_schedules_without_pairs_never_overlap_two_microbatches() -> None:
    for kind in ("gpipe", "1f1b", "interleaved", "zb1p"):
        costs = Even(0.25)
        pipeline = plan(kind, 2, 4)
        records = run(pipeline, [stage(1, 1, 1, exchanges=True)] * pipeline.num_stages, costs=costs)
        assert {task.kind for record in records for task in record.tasks} <= {"F", "B", "B_in", "W"}
        assert not any(overlapped for _, overlapped, _, _ in costs.asked)


def test_overlap_hides_exchanges_that_are_exposed_without_it() -> None:
    pipeline, stages = plan("dualpipe", 4, 12), [stage(1, 1, 1, exchanges=True)] * 4
    hidden = run(pipeline, stages, costs=Even(0.4))
    bare = run(pipeline, stages, costs=Even(0.4), overlap=False)
    free = run(pipeline, stages)
    assert end_s(free) < end_s(hidden) < end_s(bare)

    def exposed(records: list[GroupRecord]) -> float:
        return sum(task.exposed_s for record in records for task in record.tasks)

    assert exposed(free) == pytest.approx(0)
    assert exposed(hidden) < 0.7 * exposed(bare)


def test_every_task_is_its_compute_and_its_exposed_time() -> None:
    pipeline = plan("dualpipe", 4, 12)
    stages = [stage(1 + i / 10, 1, 0.9, layer=i, exchanges=True) for i in range(4)]
    plan_tasks = tasks(pipeline, stages, lambda kernel: 0.7)
    for record, given_ in zip(run(pipeline, stages, costs=Even(0.7), send_s=0.1), plan_tasks, strict=True):
        for done, task in zip(record.tasks, given_, strict=True):
            compute = sum(node.mean_s for node in task.program if node.exchange is None)
            assert done.end_s - done.start_s == pytest.approx(compute + done.exposed_s)


def test_an_exchange_begins_when_the_slowest_lane_is_there() -> None:
    speed = np.array([1.0, 1.5])
    times = LayerTimes(0, True, PhaseTime(1.0), *[PhaseTime()] * 5)
    [record] = run(
        plan("gpipe", 1, 1),
        [StageTimes((times,), (times,))],
        costs=Even(0.25, lanes=2),
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
    records = run(pipeline, [stage(1, 1, 1, exchanges=True)] * 4, costs=Even(0.4, lanes=3), send_s=0.2)
    assert sum(task.barrier_s for record in records for task in record.tasks) == 0


def test_a_rank_computes_its_routed_load_in_f_b_and_w_of_the_same_microbatch() -> None:
    costs = Even(0.0, lanes=2, loads={(7, 1): np.array([0.5, 1.5])})
    records = run(plan("zb1p", 1, 2), [stage(1, 1, 1, layer=7, routed=0.5)], costs=costs)
    # Microbatch 0 has the mean load. Of microbatch 1 lane 1 computes 1.25, 1.25, 1.25.
    assert float(records[0].end_s[1]) == pytest.approx(3 + 3 * 1.25)
    assert float(records[0].end_s[0]) == pytest.approx(3 + 3 * 0.75)


def test_groups_of_a_stage_do_not_wait_for_one_another() -> None:
    pipeline = plan("1f1b", 2, 4)
    step = StepPlan(
        tasks=tasks(pipeline, [stage(1, 1, 1)] * 2, lambda kernel: 0.0),
        num_groups=2,
        lanes=1,
        costs=Even(),
        speed=[[1.0, 2.0]] * 2,
        send_s=0.0,
        send_bytes=1.0,
    )
    quick, slow = (end_s([record for record in run_step(step) if record.group == group]) for group in (0, 1))
    assert slow == pytest.approx(2 * quick)


def test_nodes_are_kept_of_the_first_tasks_of_each_kind() -> None:
    pipeline = plan("dualpipe", 2, 8)
    for record in run(pipeline, [stage(1, 1, 1, exchanges=True)] * 2, costs=Even(0.1), keep_tasks=2):
        kinds = [record.tasks[i].kind for i in sorted({node.task for node in record.nodes})]
        assert all(kinds.count(kind) <= 2 for kind in kinds)
        for node in record.nodes:
            task = record.tasks[node.task]
            assert task.start_s - 1e-9 <= node.start_s <= node.end_s <= task.end_s + 1e-9
