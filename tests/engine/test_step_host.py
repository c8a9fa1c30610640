"""The host as a third stream of a step, against what one thread that issues launches in order does."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from sim.engine.step import run_step
from sim.engine.step_plan import GroupCollective, Host, StepPlan, Traffic
from sim.engine.step_records import GroupRecord
from sim.schedule.flows import Columns
from sim.schedule.programs import Node, Program
from sim.schedule.training import PipelineTask, tasks_from_rows

MOVED_S = 3.0


def chain(*nodes: tuple[float | None, int, int]) -> Program:
    """Nodes one after another: device time [s], None for a collective of `MOVED_S`; launches; synchronisations."""
    return tuple(
        Node("n", "F", 0, "moved" if work is None else None, work or 0.0,
             waits=(i - 1,) if i else (), launches=launches, syncs=syncs)
        for i, (work, launches, syncs) in enumerate(nodes)
    )  # fmt: skip


def planned(programs: Sequence[Program], host: Host | None, speeds: Sequence[float] = (1.0,)) -> StepPlan:
    """Programs of one rank, one after another, on lanes of some slowness that all take part in its collectives."""
    lanes = len(speeds)
    columns = Columns(lanes)
    columns.add(np.arange(lanes), 1.0, 1.0)
    place, moved = np.arange(lanes), np.full(lanes, MOVED_S)
    flows = columns.pack(moved, share=moved, latency_s=np.zeros(lanes), party_flow=place, party_rank=place)
    traffic = Traffic(
        np.ones(lanes), np.zeros(lanes, dtype=np.int64), [[{"moved": GroupCollective(flows, 0.0)}]], {}
    )
    rows = [PipelineTask("F", program, 0, 0, False, (), ()) for program in programs]
    return StepPlan(
        tasks_from_rows([rows]), traffic, 1, lanes, np.array(speeds).reshape(1, 1, lanes), host=host
    )


def ran(program: Program, host: Host | None, speeds: Sequence[float] = (1.0,)) -> GroupRecord:
    (record,) = run_step(planned([program], host, speeds), keep_tasks=1).records
    return record


def end_s(program: Program, host: Host | None) -> float:
    return float(ran(program, host).end_s.max())


def host_s(program: Program, host: Host | None) -> float:
    return float(ran(program, host).tasks.host_s.sum())


programs = st.lists(
    st.tuples(st.sampled_from((None, 0.0, 0.5, 4.0)), st.integers(0, 5), st.integers(0, 2)),
    min_size=1,
    max_size=8,
)


@settings(max_examples=40)
@given(nodes=programs)
def test_an_infinitely_fast_host_changes_nothing(nodes: list[tuple[float | None, int, int]]) -> None:
    program = chain(*nodes)
    assert end_s(program, Host(0.0, 0.0)) == end_s(program, None)
    assert host_s(program, Host(0.0, 0.0)) == 0.0


@settings(max_examples=40)
@given(nodes=programs)
def test_of_a_chain_the_time_is_that_of_the_device_and_what_it_waits_for_the_host(
    nodes: list[tuple[float | None, int, int]],
) -> None:
    program, host = chain(*nodes), Host(1.0, 2.0)
    record = ran(program, host)
    moved = MOVED_S * sum(work is None for work, _, _ in nodes)
    alone = sum(work or 0.0 for work, _, _ in nodes) + moved
    assert end_s(program, None) == pytest.approx(alone)
    assert float(record.end_s.max()) == pytest.approx(alone + record.tasks.host_s.sum())
    assert record.tasks.exposed_s.sum() == pytest.approx(moved)


def test_without_device_work_a_step_takes_launches_times_launch() -> None:
    assert end_s(chain((0.0, 7, 0), (0.0, 1, 0), (0.0, 12, 0)), Host(0.25, 0.0)) == pytest.approx(20 * 0.25)


def test_a_node_ends_after_its_last_launch_which_is_as_long_as_the_others() -> None:
    # Ten launches of 0.05 s, the last of which is issued after 10 s.
    assert end_s(chain((0.5, 10, 0)), Host(1.0, 0.0)) == pytest.approx(10.05)
    # Of long launches only the first is waited for.
    assert end_s(chain((50.0, 10, 0)), Host(1.0, 0.0)) == pytest.approx(51.0)


def test_a_host_that_is_ahead_costs_its_first_launch_alone() -> None:
    assert end_s(chain(*[(10.0, 2, 0)] * 5), Host(1.0, 0.0)) == pytest.approx(1.0 + 5 * 10.0)


def test_a_synchronisation_drains_the_device() -> None:
    # Issued at 1 and run until 11; then the host takes 2 and issues the next in 1.
    assert end_s(chain((10.0, 1, 0), (1.0, 1, 1)), Host(1.0, 2.0)) == pytest.approx(11.0 + 2.0 + 1.0 + 1.0)
    assert end_s(chain((10.0, 1, 0), (1.0, 1, 0)), Host(1.0, 2.0)) == pytest.approx(12.0)
    assert host_s(chain((10.0, 1, 0), (1.0, 1, 1)), Host(1.0, 2.0)) == pytest.approx(1.0 + 3.0)


def test_what_is_issued_after_a_synchronisation_waits_for_the_host_again() -> None:
    after = chain((10.0, 1, 0), (0.0, 1, 1), *[(0.0, 1, 0)] * 4)
    assert end_s(after, Host(1.0, 0.0)) == pytest.approx(11.0 + 5.0)
    assert end_s(chain((10.0, 1, 0), *[(0.0, 1, 0)] * 5), Host(1.0, 0.0)) == pytest.approx(11.0)


def test_the_host_is_no_more_launches_ahead_than_the_bound() -> None:
    # The device ends ten launches at 101. The 14th may be issued when the 10th has ended, at 102, and the 30th 16 later.
    backlog = chain(*[(10.0, 1, 0)] * 10, *[(0.0, 1, 0)] * 20)
    assert end_s(backlog, Host(1.0, 0.0)) == pytest.approx(101.0)
    assert end_s(backlog, Host(1.0, 0.0, run_ahead=4)) == pytest.approx(118.0)


def test_a_graph_issues_all_of_it_with_one_launch() -> None:
    launches = chain((0.5, 9, 0), (0.0, 20, 0), (0.25, 4, 0))
    graph = tuple(node._replace(launches=int(i == 0)) for i, node in enumerate(launches))
    assert end_s(launches, Host(1.0, 0.0)) == pytest.approx(33.0 + 0.25 / 4)
    assert end_s(graph, Host(1.0, 0.0)) == pytest.approx(1.0 + 0.75)


def test_a_late_collective_is_the_hosts_and_not_exposed_communication() -> None:
    # Two launches before it, the second at 6; it moves for 3 s, and the host is ahead of what follows.
    record = ran(chain((1.0, 4, 0), (None, 2, 0), (1.0, 1, 0)), Host(1.0, 0.0))
    assert record.nodes.start_s[1] == pytest.approx(6.0)
    assert float(record.end_s[0]) == pytest.approx(6.0 + MOVED_S + 1.0)
    assert record.tasks.exposed_s.sum() == pytest.approx(MOVED_S)
    assert record.tasks.host_s.sum() == pytest.approx(5.0)


def test_a_collective_that_synchronises_waits_for_the_slowest_lane() -> None:
    record = ran(chain((4.0, 1, 0), (None, 1, 1)), Host(1.0, 2.0), speeds=(1.0, 2.0))
    assert record.end_s == pytest.approx([1.0 + 8.0 + 2.0 + 1.0 + MOVED_S] * 2)


def test_a_synchronisation_waits_for_what_a_collective_depends_on_and_not_for_its_stream() -> None:
    # The first is under way from 1 to 4; what the second needs is computed at 3, and the host goes on at 5.
    moved, compute = chain((None, 1, 0))[0], chain((1.0, 1, 0))[0]
    record = ran((moved, compute, moved._replace(waits=(1,), syncs=1)), Host(1.0, 2.0))
    assert record.nodes.start_s == pytest.approx([1.0, 2.0, 6.0])


def test_the_host_runs_on_from_task_to_task() -> None:
    # Twenty launches, whoever's they are; a task that follows finds what the host has issued meanwhile.
    program = chain((0.0, 5, 0))
    (record,) = run_step(planned([program] * 4, Host(0.5, 0.0))).records
    assert record.tasks.end_s == pytest.approx([2.5, 5.0, 7.5, 10.0])
    long = chain((8.0, 1, 0))
    (record,) = run_step(planned([long, program], Host(0.5, 0.0))).records
    assert record.tasks.end_s == pytest.approx([8.5, 8.5])
