"""Faults between two instants, and those of any part: ends of flows, collectives and steps by hand."""

from __future__ import annotations

from functools import lru_cache
from pathlib import Path
from typing import Any

import pytest

from balanced import SCENARIO
from sim import documents
from sim.errors import InfeasibleError
from sim.runs import training
from sim.runs.run import run_document
from sim.scenario.resolve import resolve
from sim.schedule.reductions import update_s

FLOWS = "flow_id,src,dst,bytes,start_us\n{}\n"
NODES = "{{hardware: h800, nodes: 2, faults: {}}}"
HOSTS = "{{fabric: {{kind: leaf_spine, hosts: 4, hosts_per_leaf: 2, spines: 2, link: 400 Gb/s}}, faults: {}}}"
LATENCY_MS, CROSS_MS = 2.8e-3, 0.9e-3  # within a leaf, and more across


def ends_ms(folder: Path, faults: str, *rows: str, cluster: str = NODES) -> list[float]:
    """When each flow's last byte was sent [ms]."""
    (folder / "flows.csv").write_text(FLOWS.format("\n".join(rows)))
    text = f"name: mine\ncluster: {cluster.format(faults)}\nworkload: {{kind: flows, file: flows.csv}}\n"
    document = documents.loads(text, "mine.yaml")
    document.folder = folder
    latency = LATENCY_MS if cluster == NODES else 0.0
    return [row[2] / 1e3 - latency for row in run_document(document)["flow_completion"]]


@pytest.mark.parametrize(
    ("fault", "end_ms"),
    [
        (
            "node: 1, nic: 2, bandwidth: 50 %, from: 1 ms, until: 2 ms",
            2.5,
        ),  # half of what a millisecond carries is left
        ("node: 1, nic: 2, bandwidth: 50 %, from: 1 ms", 3.0),
        ("node: 1, bandwidth: 10 GB/s, until: 1 ms", 2.8),
        ("rail: 2, bandwidth: 0 %, from: 1 ms, until: 5 ms", 6.0),
        ("link: node0/nic2/tx, bandwidth: 25 %, until: 4 ms", 5.0),
        ("link: node0/nic2/rx, bandwidth: 25 %, until: 4 ms", 2.0),  # nobody sends there
        ("leaf: rail2/leaf0, bandwidth: 25 %, until: 4 ms", 5.0),
        ("node: 1, nic: 2, bandwidth: 50 %, from: 3 ms", 2.0),
    ],
)
def test_100_megabytes_at_50_gb_per_s_end_when_the_fault_lets_them(
    tmp_path: Path, fault: str, end_ms: float
) -> None:
    assert ends_ms(tmp_path, f"[{{{fault}}}]", "1,2,10,100e6,0") == pytest.approx([end_ms], abs=1e-6)


def test_what_a_slow_sender_leaves_free_goes_to_its_neighbour_for_as_long(tmp_path: Path) -> None:
    """50 MB each into one NIC. In the first millisecond 10 and 40 GB/s: then 40 and 10 MB are left, and 25 GB/s each."""
    slow = "[{node: 0, nic: 3, bandwidth: 20 %, until: 1 ms}]"
    found = ends_ms(tmp_path, slow, "1,3,10,50e6,0", "2,2,10,50e6,0")
    assert found == pytest.approx([2.0 + CROSS_MS, 1.4], abs=1e-6)


def test_two_windows_of_two_links_are_crossed_one_after_the_other(tmp_path: Path) -> None:
    """1 ms whole, 1 ms at half by the sender, 1 ms at a fifth by the receiver; of 100 MB 15 are left."""
    faults = "[{node: 0, nic: 2, bandwidth: 50 %, from: 1 ms, until: 2 ms}, {node: 1, nic: 2, bandwidth: 20 %, from: 2 ms, until: 3 ms}]"
    assert ends_ms(tmp_path, faults, "1,2,10,100e6,0") == pytest.approx([3.3], abs=1e-6)


@pytest.mark.parametrize(
    ("fault", "end_ms"),
    [("node: 3, bandwidth: 50 %", 4.0), ("leaf: leaf1, bandwidth: 50 %, from: 1 ms, until: 2 ms", 2.5), ("link: leaf0/up, bandwidth: 25 %", 4.0)],
)  # fmt: skip
def test_hosts_leaves_and_links_of_a_bare_fabric_may_be_at_fault(
    tmp_path: Path, fault: str, end_ms: float
) -> None:
    """Two uplinks of 50 GB/s are pooled: a quarter of them is half a host's link."""
    assert ends_ms(tmp_path, f"[{{{fault}}}]", "1,0,3,100e6,0", cluster=HOSTS) == pytest.approx(
        [end_ms], abs=1e-3
    )


def test_bytes_that_nobody_will_ever_take_are_infeasible(tmp_path: Path) -> None:
    for fault in ("node: 1, nic: 2, bandwidth: 0 %, from: 1 ms", "node: 1, bandwidth: 0 %"):
        with pytest.raises(InfeasibleError, match="no capacity in node1/nic2/rx"):
            ends_ms(tmp_path, f"[{{{fault}}}]", "1,2,10,100e6,0")


EXCHANGE = """\
name: mine
cluster: {{hardware: h800, nodes: {nodes}, faults: {faults}}}
workload: {{kind: all_to_all, bytes_per_rank: 1 GB, kernel: {{kind: nccl}}}}
"""


def exchange_s(faults: str = "[]", nodes: int = 2) -> tuple[float, float]:
    """Time of the exchange, and the part of it that passes before its first byte [s]."""
    result = run_document(documents.loads(EXCHANGE.format(faults=faults, nodes=nodes), "mine.yaml"))
    return result["metrics"]["exchange"]["completion_time_s"], result["timeline"]["kernels"][0]["fixed_s"]


def test_a_nic_at_half_rate_for_as_long_as_the_exchange_makes_it_half_as_long_again() -> None:
    """Half of its bytes are left then, and go at full rate. At a quarter, 3/4 are left."""
    whole_s, fixed_s = exchange_s()
    for part, times in ((50, 1.5), (25, 1.75), (0, 2.0)):
        slow_s, _ = exchange_s(f"[{{node: 1, nic: 4, bandwidth: {part} %, until: {whole_s} s}}]")
        assert slow_s - fixed_s == pytest.approx(times * (whole_s - fixed_s), rel=1e-6)


def test_a_gpu_with_half_its_scale_up_takes_twice_as_long_within_a_node() -> None:
    (whole_s, fixed_s), (slow_s, _) = (
        exchange_s(f, 1) for f in ("[]", "[{node: 0, gpu: 3, scale_up: 50 %}]")
    )
    assert slow_s - fixed_s == pytest.approx(2 * (whole_s - fixed_s), rel=1e-6)


@lru_cache(maxsize=32)
def step(faults: str = "[]") -> dict[str, Any]:
    return run_document(documents.loads(SCENARIO.format(fabric="{}", faults=faults), "mine.yaml"))


def step_s(faults: str = "[]") -> float:
    return float(step(faults)["metrics"]["step_time_s"])


@pytest.mark.parametrize("what", ["nic: 3, bandwidth: 50 %", "gpu: 3, clock: 50 %", "gpu: 3, hbm: 50 %"])
def test_a_window_over_the_whole_step_is_a_fault_that_lasts(what: str) -> None:
    lasts = step_s(f"[{{node: 1, {what}}}]")
    assert lasts > step_s() * 1.001
    assert step_s(f"[{{node: 1, {what}, from: 0 s, until: 1 h}}]") == pytest.approx(lasts, rel=1e-9)
    assert step_s(f"[{{node: 1, {what}, from: 10 s}}]") == pytest.approx(step_s(), rel=1e-9)


def test_a_gpu_that_is_dead_for_a_while_makes_the_step_longer_by_that_while() -> None:
    """The last stage computes without a pause from its forward to its backward: all else waits for it."""
    ends = step()["timeline"]["pipeline"][3]
    inside = (ends["start_s"][0] + ends["end_s"][0]) / 2
    fault = f"[{{node: 3, clock: 0 %, from: {inside} s, until: {inside + 0.5} s}}]"
    later = step_s(fault) - step_s()
    assert 0 < later <= 0.5 * (1 + 1e-9)
    assert later > 0.49  # it may have been sending when it died


def test_a_dead_nic_of_a_while_holds_up_the_sends_of_its_lane() -> None:
    """Node 1's NIC 3 dies as the first activations come, and they wait for its return."""
    first = step()["timeline"]["pipeline"][0]["end_s"][0]
    fault = f"[{{node: 1, nic: 3, bandwidth: 0 %, from: 0 s, until: {first + 0.2} s}}]"
    assert step_s(fault) - step_s() == pytest.approx(0.2, rel=1e-6)


def test_half_the_memory_rate_doubles_the_update_and_slows_what_is_bound_by_memory() -> None:
    scenario = resolve(documents.loads(SCENARIO.format(fabric="{}", faults="[]"), "mine.yaml"))
    whole = training.Step.from_scenario(scenario)
    update = update_s(whole.links, whole.parameters[1].shard(whole.work.layout))
    slow, healthy = (
        step(faults)["timeline"]["optimizer_s"][1] for faults in ("[{node: 1, hbm: 50 %}]", "[]")
    )
    assert slow - healthy == pytest.approx(update, rel=1e-6)
    compute = step_s("[{node: 1, hbm: 50 %}]") - step_s() - update
    clock = step_s("[{node: 1, clock: 50 %}]") - step_s()
    assert 0 < compute < 0.5 * clock  # GEMMs are bound by the tensor cores


@pytest.mark.parametrize(
    ("fault", "named"),
    [
        ("node: 1, gpu: 3, clock: 0 %", "node 1, gpu 3 is dead"),
        ("node: 2, clock: 0 %", "node 2 is dead"),
        ("node: 1, gpu: 3, scale_up: 0 %", "node1/gpu3/scale_up"),
        ("node: 1, bandwidth: 0 %", "no living rail joins node 0 and node 1"),
        ("node: 1, gpu: 3, clock: 0 %, from: 10 ms", "node 1, gpu 3 is dead from 0.01 s on"),
        ("node: 1, nic: 3, bandwidth: 0 %, from: 10 ms", "node 1, nic 3 is dead from 0.01 s on"),
    ],
)
def test_a_part_that_the_step_needs_and_never_gets_is_infeasible(fault: str, named: str) -> None:
    with pytest.raises(InfeasibleError, match=named):
        step(f"[{{{fault}}}]")


PREFILL = """\
name: mine
cluster: {{hardware: h800, nodes: 4, faults: {faults}}}
model: deepseek-v3
layout: {{ep: {ep}, pp: {pp}}}
workload:
  kind: prefill
  prompt_tokens: {tokens}
  chunk_tokens: 2048
  prompts_per_gpu: 2
  overlap: false
  skew: {{kernel_jitter: 0, gpu_spread: 0}}
  kernel: {{kind: two_hop}}
  gate: {{kind: uniform, sampling: expected}}
"""


@lru_cache(maxsize=32)
def prefill(fault: str = "", chunks: int = 1, pp: int = 1) -> dict[str, Any]:
    faults = f"[{{{fault}}}]" if fault else "[]"
    text = PREFILL.format(faults=faults, tokens=2048 * chunks, ep=32 // pp, pp=pp)
    return run_document(documents.loads(text, "mine.yaml"))


def prefill_later_s(fault: str, chunks: int = 1) -> float:
    """How much later a fault lets prompts of so many chunks end [s]."""
    slow, whole = (prefill(each, chunks)["metrics"]["ttft_s"] for each in (fault, ""))
    return float(slow - whole)


@pytest.mark.parametrize(
    ("node", "what", "lost"),
    [
        ("dispatch(0)", "nic: 3, bandwidth: 50 %", 1 / 2),
        ("combine(0)", "nic: 3, bandwidth: 25 %", 3 / 4),
        ("attention(0)", "gpu: 3, clock: 50 %", 1 / 2),
        ("attention(0)", "gpu: 3, clock: 0 %", 1),
    ],
)
def test_a_pass_is_later_by_what_a_part_loses_while_all_others_wait_for_it(
    node: str, what: str, lost: float
) -> None:
    """Of four nodes; NICs bind the exchanges. The fault comes and goes within the first such node."""
    line = prefill()["timeline"]["passes"][0]
    begin, end = (line[key][line["names"].index(node)] for key in ("start_s", "end_s"))
    window = f"from: {begin + (end - begin) / 3} s, until: {end - (end - begin) / 3} s"
    assert prefill_later_s(f"node: 1, {what}, {window}") == pytest.approx(lost * (end - begin) / 3, rel=1e-6)


def test_a_window_over_all_passes_is_a_fault_that_lasts() -> None:
    for what in ("nic: 3, bandwidth: 50 %", "gpu: 3, clock: 50 %"):
        lasts = prefill_later_s(f"node: 1, {what}")
        assert lasts > 0
        assert prefill_later_s(f"node: 1, {what}, until: 1 h") == pytest.approx(lasts, rel=1e-9)


def test_a_fault_that_comes_after_the_first_chunk_costs_what_it_costs_the_second() -> None:
    what = "node: 1, nic: 3, bandwidth: 50 %"
    both, first = (prefill_later_s(what, chunks) for chunks in (2, 1))
    after = f"{what}, from: {prefill()['metrics']['ttft_s']} s"
    assert prefill_later_s(after, 2) == pytest.approx(both - first, rel=1e-9)


def test_a_gpu_that_dies_in_a_pass_for_good_is_named() -> None:
    with pytest.raises(InfeasibleError, match=r"node 1.* is dead from 0\.1 s on"):
        prefill("node: 1, gpu: 3, clock: 0 %, from: 100 ms")


def piped_later_s(fault: str, chunks: int = 1) -> float:
    """How much later a fault lets prompts end on two stages, of which the second has nodes 2 and 3 [s]."""
    slow, whole = (prefill(each, chunks, 2)["metrics"]["ttft_s"] for each in (fault, ""))
    return float(slow - whole)


@pytest.mark.parametrize(
    ("node", "what"),
    [(1, "nic: 3, bandwidth: 50 %"), (1, "gpu: 3, hbm: 20 %"), (1, "gpu: 3, scale_up: 20 %"), (3, "gpu: 3, clock: 50 %")],
)  # fmt: skip
def test_a_window_over_all_passes_of_a_pipeline_is_a_fault_that_lasts(node: int, what: str) -> None:
    lasts = piped_later_s(f"node: {node}, {what}", 2)
    assert lasts > 0
    assert piped_later_s(f"node: {node}, {what}, until: 1 h", 2) == pytest.approx(lasts, rel=1e-6)
    assert piped_later_s(f"node: {node}, {what}, from: 1 h", 2) == 0.0
    end = prefill("", 1, 2)["metrics"]["ttft_s"]
    assert 0 < piped_later_s(f"node: {node}, {what}, until: {end} s", 2) < lasts


def test_a_gpu_that_is_dead_for_a_while_holds_up_its_stage_by_that_while() -> None:
    """The slower stage, the first, takes two microbatches a pass; the first of them is in an attention meanwhile."""
    line = prefill("", 1, 2)["timeline"]["passes"][0]
    first = line["names"].index("attention(0)")
    inside = (line["start_s"][first] + line["end_s"][first]) / 2
    dead = f"gpu: 3, clock: 0 %, from: {inside} s, until: {inside + 0.5} s"
    assert piped_later_s(f"node: 1, {dead}") == pytest.approx(0.5, rel=1e-6)


def test_a_slow_nic_of_a_stage_that_waits_for_another_is_hidden() -> None:
    """The first stage takes 5 % longer than the second."""
    assert piped_later_s("node: 3, nic: 3, bandwidth: 50 %") == 0.0


def test_a_window_before_a_stage_has_work_costs_nothing() -> None:
    """The first microbatch comes to the second stage after half of the pass."""
    end = prefill("", 1, 2)["metrics"]["ttft_s"]
    assert piped_later_s(f"node: 3, gpu: 3, clock: 0 %, until: {0.3 * end} s") == 0.0
