"""Faults of a cluster: what may be said, what is refused, and that none is accepted and ignored."""

from __future__ import annotations

from typing import Any

import pytest

from sim import documents
from sim.errors import InputError
from sim.runs.run import run_document
from sim.scenario.resolve import resolve
from sim.scenario.settings import read

PASS = """\
name: mine
cluster: {{hardware: h800, nodes: 8, faults: {faults}}}
model: deepseek-v3
layout: {{ep: 32}}
workload:
  kind: {kind}
  {sizes}
  kernel: {{kind: {kernel}}}
  skew: {{kernel_jitter: 0, gpu_spread: 0}}
"""
DECODE = {"kind": "decode", "sizes": "requests_per_gpu: 32\n  context_tokens: 4096", "kernel": "low_latency"}
EXCHANGE = """\
name: mine
cluster: {{hardware: h800, nodes: 2, faults: {faults}}}
model: deepseek-v3
workload: {{kind: all_to_all, tokens_per_rank: 128, gate: {{kind: uniform, sampling: expected}}, kernel: {{kind: two_hop}}}}
"""


def problems(text: str | documents.Document) -> str:
    with pytest.raises(InputError) as caught:
        resolve(documents.loads(text, "mine.yaml") if isinstance(text, str) else text)
    return "\n".join(map(str, caught.value.problems))


@pytest.mark.parametrize(
    ("faults", "words"),
    [
        (
            "[{node: 0, nic: 1, bandwidth: 10 TB/s}]",
            ["cluster.faults.0.bandwidth", "10 TB/s", "a healthy NIC's"],
        ),
        ("[{rail: 1, bandwidth: 120 %}]", ["120 %", "at most 50 GB/s"]),
        (
            "[{rail: 1, bandwidth: 0 %}, {rail: 1, bandwidth: 50 %}]",
            ["cluster.faults.1", "a second fault of the same part"],
        ),
        ("[{node: 0, nic: 9, bandwidth: 0 %}]", ["got 9", "0 to 7"]),
        ("[{node: 5, nic: 0, bandwidth: 0 %}]", ["got 5", "the cluster has 2 nodes"]),
        ("[{rail: 0, clock: 50 %}]", ["a fault", "'clock', 'hbm' or 'scale_up' of a 'node'"]),
        ("[{gpu: 0, hbm: 50 %}]", ["a fault", "of 'node' and 'gpu'"]),
        ("[{node: 0, nic: 0, bandwidth: 50 %, hbm: 50 %}]", ["a fault", "'bandwidth' of a 'node'"]),
        ("[{leaf: rail9/leaf0, bandwidth: 0 %}]", ["'rail9/leaf0'", "rail0/leaf0"]),
        ("[{link: node0/nic0/txx, bandwidth: 0 %}]", ["'node0/nic0/txx'", "did you mean", "node0/nic0/tx"]),
        ("[{node: 0, gpu: 1, hbm: 4 TB/s}]", ["4 TB/s", "at most 3.35 TB/s, a healthy GPU's"]),
        ("[{node: 0, scale_up: 101 %}]", ["101 %", "at most 200 GB/s, a healthy GPU's"]),
        (
            "[{rail: 0, bandwidth: 0 %, from: 2 ms, until: 1 ms}]",
            ["cluster.faults.0.until", "later than from, 2 ms"],
        ),
        ("[{rail: 0, bandwidth: 0 %, form: 2 ms}]", ["unknown key 'form'", "did you mean from"]),
        (
            "[{rail: 1, bandwidth: 0 %, from: 1 ms, until: 3 ms}, {node: 1, bandwidth: 50 %, from: 2 ms}]",
            ["cluster.faults.1", "a second fault of the same part", "the first is number 0"],
        ),
        (
            "[{node: 1, nic: 2, bandwidth: 0 %}, {link: node1/nic2/rx, bandwidth: 50 %}]",
            ["cluster.faults.1", "a second fault of the same part"],
        ),
        ("[{node: 0, nic: 0, bandwidth: -1 Gb/s}]", ["a rate of 0 or more"]),
        ("[{node: 0, gpu: 0, hbm: 150 %}]", ["150 %", "at most 3.35 TB/s"]),
        (
            "[{node: 0, gpu: 0, clock: 50 %}]",
            ["a fault of clock", "all_to_all has nothing that 'clock' makes slower"],
        ),
        ("[{node: 0, nic: 0, bandwidth: 5}]", ["got 5"]),
    ],
)
def test_a_fault_that_cannot_be_is_refused(faults: str, words: list[str]) -> None:
    told = problems(EXCHANGE.format(faults=faults))
    for word in words:
        assert word in told


def test_an_equation_knows_no_faults_of_links_that_come_and_go() -> None:
    text = EXCHANGE.format(faults="[{rail: 1, bandwidth: 50 %, until: 1 ms}]") + "fidelity: closed_form\n"
    reported = problems(text)
    assert "a fault of links that comes and goes" in reported
    assert "'fidelity: flow'" in reported
    resolve(documents.loads(text.replace(", until: 1 ms", ""), "mine.yaml"))


def test_a_part_of_the_healthy_rate_is_that_rate() -> None:
    times = [
        run_document(
            documents.loads(EXCHANGE.format(faults=f"[{{rail: 2, bandwidth: {rate}}}]"), "mine.yaml")
        )["metrics"]
        for rate in ("25 %", "100 Gb/s")
    ]
    assert times[0] == times[1]


def step_s(faults: str) -> float:
    """Of two groups of 32 GPUs."""
    return float(passed(faults)["metrics"]["step_time_s"])


def passed(faults: str) -> dict[str, Any]:
    """A decode step of these groups."""
    return run_document(documents.loads(PASS.format(faults=faults, **DECODE), "mine.yaml"))


def test_the_group_that_ends_last_is_shown_whichever_has_the_fault() -> None:
    healthy = step_s("[]")
    for what in ("gpu: 2, clock: 50 %", "nic: 3, bandwidth: 25 %"):
        first, second = (step_s(f"[{{node: {node}, {what}}}]") for node in (1, 5))
        assert first > healthy
        assert first == pytest.approx(second, rel=1e-9)
        assert step_s(f"[{{node: 1, {what}}}, {{node: 5, {what}}}]") == pytest.approx(first, rel=1e-9)


def test_slow_memory_and_a_slow_scale_up_link_act_where_a_pass_needs_them() -> None:
    """Decode reads its weights and caches; its sums over TP go over scale-up."""
    healthy = step_s("[]")
    memory = step_s("[{node: 1, gpu: 2, hbm: 50 %}]")
    assert healthy < step_s("[{node: 1, gpu: 2, hbm: 75 %}]") < memory < 2 * healthy
    ends = [
        passed(fault)["where"]["ends"]
        for fault in ("[]", "[{node: 1, gpu: 2, clock: 50 %}]", "[{node: 1, gpu: 2, hbm: 50 %}]")
    ]
    assert ends[1] == pytest.approx(2 * ends[0], rel=1e-9)
    assert ends[0] < ends[2] < ends[1]
    sizes = {**DECODE, "sizes": "requests_per_gpu: 2\n  context_tokens: 4096"}
    text = PASS.format(faults="[{fault}]", **sizes)
    text = text.replace("{ep: 32}", "{ep: 64, tp: 8}")

    def tp_s(fault: str) -> float:
        metrics: dict[str, Any] = run_document(documents.loads(text.replace("{fault}", fault), "mine.yaml"))[
            "metrics"
        ]
        return float(metrics["step_time_s"])

    half, quarter = (tp_s(f"{{node: 0, gpu: 3, scale_up: {part} %}}") for part in (50, 25))
    assert tp_s("") < half < quarter


def test_serving_refuses_faults_of_leaves_and_links() -> None:
    """Its instances are costed as one that stands for them, on other leaves."""
    for part in ("leaf: rail0/leaf0", "link: node0/nic0/tx"):
        reported = problems(read("serving-example", [f"cluster.faults=[{{{part}, bandwidth: 50 %}}]"]))
        assert "a fault of a leaf or link" in reported
        assert "faults of NICs, rails and GPUs: serving knows no others" in reported


def test_a_flow_that_waits_for_another_and_for_its_start_is_released_at_the_later(tmp_path: Any) -> None:
    (tmp_path / "flows.csv").write_text(
        "flow_id,src,dst,bytes,start_us,after_flow_id\n1,1,0,1000,0,0\n2,2,3,1000,500000,1\n"
    )
    document = documents.loads(
        """\
name: mine
cluster: {fabric: {kind: leaf_spine, hosts: 16, hosts_per_leaf: 4, spines: 4, link: 400 Gb/s}}
workload: {kind: flows, file: flows.csv}
""",
        "mine.yaml",
    )
    document.folder = tmp_path
    first, second = run_document(document)["flow_completion"]
    assert second[1] == pytest.approx(500_000)
    assert second[2] == pytest.approx(500_000 + first[2] - first[1])
