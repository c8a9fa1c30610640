"""Flow lists: the CSV and its problems, idle latencies, dependencies, and given paths."""

from __future__ import annotations

import re
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from sim.cluster.hardware import load_hardware
from sim.cluster.topology import Cluster, Fabric, LeafSpine, build, build_leaf_spine
from sim.engine.executor import run_flows
from sim.errors import InputError
from sim.schedule import flow_list
from sim.schedule.flows import NONE, Columns

LINK = 50e9  # bytes/s
HEADERS = 4160 / 4096


def bare(routing: str = "adaptive", spines: int = 8) -> LeafSpine:
    return LeafSpine(
        hosts=64, hosts_per_leaf=8, spines=spines, link_bytes_per_s=LINK, routing=routing,  # type: ignore[arg-type]
        link_latency_s=500e-9, switch_latency_s=300e-9, payload_per_packet_bytes=4096, wire_per_packet_bytes=4160,
    )  # fmt: skip


SAME_LEAF, CROSS_LEAF = float(bare().idle_latency_s(True)), float(bare().idle_latency_s(False))


def finish(
    tmp_path: Path, rows: str, spec: LeafSpine | None = None, header: str = "flow_id,src,dst,bytes,start_us"
) -> np.ndarray:
    """When each flow of a CSV has arrived [s]."""
    spec = spec or bare()
    file = tmp_path / "flows.csv"
    file.write_text(f"{header}\n{rows}\n")
    table = flow_list.read(file, spec.hosts, spec)
    cluster = build_leaf_spine(spec)
    return run_flows(cluster, flow_list.plan(table, cluster, spec)).transfers[0].finish_s


def seconds(num_bytes: float, rate: float = LINK) -> float:
    return num_bytes * HEADERS / rate


def test_a_lone_flow_takes_its_wire_bytes_and_the_idle_latency(tmp_path: Path) -> None:
    found = finish(tmp_path, "1,0,7,1e6,0\n2,8,63,2e6,5")
    assert found == pytest.approx([seconds(1e6) + SAME_LEAF, 5e-6 + seconds(2e6) + CROSS_LEAF])


def test_an_incast_is_fair_to_connections_whatever_their_bytes(tmp_path: Path) -> None:
    """1 and 3 MB into host 0: each at half rate until the small one is out."""
    found = finish(tmp_path, "1,1,0,1e6,0\n2,2,0,3e6,0")
    assert found == pytest.approx([seconds(2e6) + SAME_LEAF, seconds(4e6) + SAME_LEAF])


@pytest.mark.parametrize("spines", [8, 4, 2])
def test_an_oversubscribed_leaf_takes_as_many_times_longer(tmp_path: Path, spines: int) -> None:
    """Eight hosts send across: uplinks of `spines` links carry eight hosts' bytes."""
    rows = "\n".join(f"{i},{i},{8 + i},1e6,0" for i in range(8))
    assert finish(tmp_path, rows, bare(spines=spines)) == pytest.approx(
        np.full(8, seconds(1e6) * 8 / spines + CROSS_LEAF)
    )


def test_a_flow_that_waits_starts_one_latency_back_after_arrival(tmp_path: Path) -> None:
    found = finish(
        tmp_path,
        "1,0,9,1e6,2,0\n2,9,0,1e6,0,1\n3,9,0,1e6,0,",
        header="flow_id,src,dst,bytes,start_us,after_flow_id",
    )
    arrived = 2e-6 + seconds(1e6) + CROSS_LEAF
    assert found == pytest.approx(
        [arrived, arrived + CROSS_LEAF + seconds(1e6) + CROSS_LEAF, seconds(1e6) + CROSS_LEAF]
    )


def test_given_paths_collide_where_they_share_a_link(tmp_path: Path) -> None:
    rows = "1,0,8,1e6,0,LS0->US3 US3->LS_1\n2,1,16,1e6,0,LS0->US3 US3->LS2\n3,2,17,1e6,0,LS_0->US_4 US_4->LS_2\n4,3,4,1e6,0,"
    found = finish(tmp_path, rows, bare("static"), header="flow_id,src,dst,bytes,start_us,links")
    assert found[:2] == pytest.approx([seconds(2e6) + CROSS_LEAF] * 2)
    assert found[2:] == pytest.approx([seconds(1e6) + CROSS_LEAF, seconds(1e6) + SAME_LEAF])


@pytest.mark.parametrize("routing", ["static", "adaptive", "ecmp"])
def test_links_carry_the_payload_of_what_crosses_them_and_are_busy_with_its_headers(
    routing: str, tmp_path: Path
) -> None:
    """3 MB leave a leaf and come into others, 1 MB stays; each crosses the two links of its hosts."""
    rows = "1,0,8,1e6,0,LS0->US3 US3->LS1\n2,1,16,2e6,0,LS0->US4 US4->LS2\n3,2,3,1e6,0,\n"
    if routing != "static":
        rows = re.sub("LS.*", "", rows)
    (tmp_path / "flows.csv").write_text(f"flow_id,src,dst,bytes,start_us,links\n{rows}")
    spec = bare(routing)
    cluster = build_leaf_spine(spec)
    flows = flow_list.plan(flow_list.read(tmp_path / "flows.csv", spec.hosts, spec), cluster, spec)
    for carried, times in ((flows.bytes_by_resource, 1), (flows.line_by_resource, HEADERS)):
        found = carried(len(cluster.names))
        assert found[cluster.up[0]].sum() == pytest.approx(3e6 * times)
        assert found[cluster.down[1:3]].sum(axis=1) == pytest.approx([1e6 * times, 2e6 * times])
        assert found.sum() == pytest.approx((2 * 3e6 + 2 * 4e6) * times)


def test_ecmp_is_no_faster_than_spraying_and_repeats_itself(tmp_path: Path) -> None:
    rows = "\n".join(f"{i},{i},{(i + 8) % 64},1e6,0" for i in range(64))
    sprayed, hashed, again = (finish(tmp_path, rows, bare(kind)) for kind in ("adaptive", "ecmp", "ecmp"))
    assert sprayed == pytest.approx(np.full(64, seconds(1e6) + CROSS_LEAF))
    assert hashed.max() > sprayed.max() * 1.5  # 8 flows hashed to 8 uplinks of each leaf: some share
    assert np.all(hashed >= sprayed * (1 - 1e-9))
    np.testing.assert_array_equal(hashed, again)


def test_columns_in_any_order_and_blank_lines_are_fine(tmp_path: Path) -> None:
    found = finish(tmp_path, "\n0, 1e6 ,7,0,1\n\n", header=" start_us,bytes,dst,src,flow_id")
    assert found == pytest.approx([seconds(1e6) + SAME_LEAF])


def test_no_bytes_take_the_latency_alone(tmp_path: Path) -> None:
    assert finish(tmp_path, "1,0,7,0,3") == pytest.approx([3e-6 + SAME_LEAF])


def test_flows_on_a_cluster_go_from_nic_to_nic(tmp_path: Path) -> None:
    cluster: Cluster = build(load_hardware("h800"), 4, Fabric(nodes_per_leaf=2))
    file = tmp_path / "flows.csv"
    file.write_text("flow_id,src,dst,bytes,start_us\n1,0,8,5e6,0\n2,1,17,5e6,0\n")
    flows = flow_list.plan(flow_list.read(file, cluster.num_gpus), cluster, None)
    assert run_flows(cluster, flows).transfers[0].finish_s == pytest.approx([1e-4 + 2.8e-6, 1e-4 + 3.7e-6])


# --- problems --------------------------------------------------------------------------------------------------------


def problems(tmp_path: Path, text: str, *, static: bool = False) -> list[str]:
    file = tmp_path / "flows.csv"
    file.write_text(text)
    with pytest.raises(InputError) as caught:
        flow_list.read(file, 64, bare("static") if static else None)
    return [str(problem).removeprefix(f"{tmp_path}/") for problem in caught.value.problems]


def test_all_problems_of_a_csv_are_told_with_line_and_column(tmp_path: Path) -> None:
    text = "flow_id,src,dst,bytes,start_us,after_flow_id\n1,0,1,-5,0,0\n1,64,1,10,x,0\n3,2,2,nan,-1,9\n4,a,1,10,0,4\n"
    told = problems(tmp_path, text)
    for start in (
        "flows.csv:2:4: bytes: got -5; wanted a number of 0 or more",
        "flows.csv:3:1: flow_id: got 1; wanted a new id; the first stands in line 2",
        "flows.csv:3:2: src: got host 64; wanted a host from 0 to 63",
        "flows.csv:3:5: start_us: got 'x'; wanted a number of 0 or more",
        "flows.csv:4:3: dst: got host 2; wanted another host than src",
        "flows.csv:4:4: bytes: got nan; wanted a number of 0 or more",
        "flows.csv:4:5: start_us: got -1; wanted a number of 0 or more",
        "flows.csv:4:6: after_flow_id: got 9; wanted the flow_id of another row, or 0",
        "flows.csv:5:2: src: got 'a'; wanted a whole number of 0 or more",
        "flows.csv:5:6: after_flow_id: got a flow that waits for itself",
    ):
        assert any(line.startswith(start) for line in told), (start, told)


def test_columns_that_are_missing_or_unknown_are_named(tmp_path: Path) -> None:
    told = problems(tmp_path, "flow_id,source,dst,bytes,start_us\n1,0,1,1,0\n")
    assert told[0].startswith("flows.csv:1:1: src: got no such column")
    assert told[1].startswith("flows.csv:1:2: source: got the unknown column 'source'")


def test_circles_of_waiting_flows_are_found(tmp_path: Path) -> None:
    told = problems(
        tmp_path,
        "flow_id,src,dst,bytes,start_us,after_flow_id\n1,0,1,1,0,3\n2,0,1,1,0,1\n3,0,1,1,0,2\n4,0,1,1,0,3\n",
    )
    assert len(told) == 1
    assert "without circles" in told[0]


@pytest.mark.parametrize(
    "text", ["", "\n", "flow_id,src,dst,bytes,start_us\n", "a;b;c\n1;2;3\n", "\x00\n", '"flow_id\n']
)
def test_a_csv_without_flows_says_so(tmp_path: Path, text: str) -> None:
    assert problems(tmp_path, text)


def test_a_thousand_problems_are_cut_short(tmp_path: Path) -> None:
    rows = "\n".join(f"{i},0,1,-1,0" for i in range(1000))
    told = problems(tmp_path, f"flow_id,src,dst,bytes,start_us\n{rows}\n")
    assert len(told) == 21
    assert "980 more problems" in told[-1]


def test_links_are_for_static_routing_and_must_fit_the_hosts(tmp_path: Path) -> None:
    header = "flow_id,src,dst,bytes,start_us,links\n"
    assert "routing: static" in problems(tmp_path, header + "1,0,8,1,0,LS0->US3 US3->LS_1\n")[0]
    assert "links like" in problems(tmp_path, header + "1,0,8,1,0,up down\n", static=True)[0]
    for links in ("LS1->US3 US3->LS_1", "LS0->US3 US4->LS_1", "LS0->US9 US9->LS_1", "LS0->US3", ""):
        with pytest.raises(InputError, match=r"flows\.csv:2:6: links"):
            finish(tmp_path, f"7,0,8,1,0,{links}", bare("static"), header=header.strip())


@pytest.mark.parametrize("cell", ["9" * 30, "9" * 400, "9" * 5000, "1e300", "x" * 200_000])
@pytest.mark.parametrize("column", range(6))
def test_numbers_beyond_reason_are_problems(tmp_path: Path, column: int, cell: str) -> None:
    row = ["1", "0", "1", "10", "0", "0"]
    row[column] = cell
    assert problems(tmp_path, "flow_id,src,dst,bytes,start_us,after_flow_id\n" + ",".join(row) + "\n")


@given(st.text(alphabet="0123456789.,-+e\n\"' aLSU>_", max_size=80))
def test_any_rows_read_or_say_why(tmp_path_factory: pytest.TempPathFactory, rows: str) -> None:
    file = tmp_path_factory.mktemp("csv") / "flows.csv"
    file.write_text("flow_id,src,dst,bytes,start_us,after_flow_id,links\n" + rows)
    try:
        table = flow_list.read(file, 64, bare("static"))
    except InputError as error:
        assert error.problems  # noqa: PT017
    else:
        assert np.all(table.payload_bytes >= 0)


# --- packing -------------------------------------------------------------------------------------------------------


def test_columns_pack_flow_by_flow_in_the_order_they_came() -> None:
    columns = Columns(3)
    columns.add(np.array([5, NONE, 6]), 1.0, np.array([2.0, 2.0, 3.0]))
    columns.add(np.array([7, 7, 7]), np.array([1.0, 0.0, 0.0]), np.array([1.0, 0.0, 0.5]))
    nobody = np.zeros(0, dtype=np.int64)
    packed = columns.pack(
        np.ones(3), share=np.ones(3), latency_s=np.zeros(3), party_flow=nobody, party_rank=nobody
    )
    assert packed.start.tolist() == [0, 2, 2, 4]
    assert packed.resource.tolist() == [5, 7, 6, 7]
    assert packed.wire.tolist() == [1, 1, 1, 0]
    assert packed.line.tolist() == [2, 1, 3, 0.5]
