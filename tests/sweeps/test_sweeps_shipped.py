"""Every shipped sweep: it says what it asks and expects, runs to its end, and what it expects comes true."""

from __future__ import annotations

from itertools import takewhile
from typing import Any

import pytest

from shared import sweep as document
from sim import documents
from sim.documents import shipped
from sim.scenario import settings as scenario_settings
from sim.scenario.resolve import resolve
from sim.scenario.training import Training
from sim.show.views.sweep import sweep_view
from sim.sweeps import file as sweep_file

NAMES = list(shipped("scenarios/sweeps"))


@pytest.mark.parametrize("name", NAMES)
def test_a_sweep_says_what_it_asks_and_expects(name: str) -> None:
    lines = shipped("scenarios/sweeps")[name].read_text(encoding="utf-8").splitlines()
    expects = [line.removeprefix("# ") for line in takewhile(lambda line: line.startswith("#"), lines)]
    assert documents.load(shipped("scenarios/sweeps")[name]).tree["question"]["ask"].endswith("?")
    assert expects[0].startswith("Expects: ")
    assert expects[-1].endswith(".")


@pytest.mark.parametrize("name", NAMES)
def test_a_sweep_reads_under_its_own_name(name: str) -> None:
    sweep = sweep_file.read(name)
    assert sweep.name == name
    assert 8 <= sweep.space.size < 5_000


def best(name: str, **values: Any) -> float:
    """The best first objective of the points that ran with some values; keys are the last words of axes."""
    found = document(name)
    objective = sweep_view(found).objective
    keys = {axis.rpartition(".")[2]: axis for axis in found["axes"]}
    scores = [
        point.metric(objective.metric)
        for point in sweep_view(found).ranked
        if all(point.values[keys[key]] == value for key, value in values.items())
    ]
    return (min if objective.minimise else max)(score for score in scores if score is not None)


@pytest.mark.slow
def test_more_of_the_nodes_prefill_where_compute_is_scarce() -> None:
    def rates(machines: str) -> dict[str, float]:
        splits = ("2-6", "3-5", "4-4", "5-3", "6-2", "7-1")
        return {each: best("serving-prefill-decode", machines=machines, split=each) for each in splits}

    assert document("serving-prefill-decode")["counts"]["failed"] == 0
    h800, h20, both = (rates(machines) for machines in ("h800", "h20", "h800-h20"))
    assert max(h800, key=lambda split: h800[split]) == "5-3"
    assert max(h20, key=lambda split: h20[split]) in ("6-2", "7-1")
    assert max(both, key=lambda split: both[split]) in ("5-3", "6-2")
    assert min(both["5-3"], both["6-2"]) > 0.95 * max(both.values())
    assert all(own["2-6"] < 0.75 * max(own.values()) for own in (h800, h20, both))


PUBLISHED = {"schedule": "dualpipe", "tp": 1, "pp": 16, "ep": 64}
"""DeepSeek-V3 Technical Report, arXiv 2412.19437, section 3.1: PP16, EP64 over 8 nodes, ZeRO-1, no tensor parallelism."""


ON_H800, ON_H100 = (pytest.mark.xdist_group(f"layouts-{machine}") for machine in ("h800", "h100"))
"""The two sweeps that take longest, each to a process of its own; tests of both go with the second."""


@pytest.mark.slow
@pytest.mark.parametrize(
    "name", [pytest.param("v3-layouts", marks=ON_H800), pytest.param("v3-layouts-h100", marks=ON_H100)]
)
def test_the_published_layout_is_within_three_per_cent_of_the_best_of_all(name: str) -> None:
    assert len(document(name)["points"]) == 864
    assert document(name)["counts"]["failed"] == 0
    assert best(name, **PUBLISHED) <= 1.03 * best(name)


@pytest.mark.slow
def test_oversubscription_costs_a_step_what_its_sends_and_the_sums_of_copies_wait_for() -> None:
    """A hand-checked row: with cores 8:1 behind leaves 8:1 a send that leaves its pod has 1/64 of a NIC, which nothing hides."""
    free = best("v3-oversubscription", kind="rail_optimized", oversubscription=1)
    for kind, ratio, times in (
        ("rail_optimized", 8, 1.032),
        ("three_tier", 2, 1.011),
        ("three_tier", 4, 1.088),
    ):
        assert best("v3-oversubscription", kind=kind, oversubscription=ratio) == pytest.approx(
            times * free, rel=3e-3
        )
    # 64 GPUs of a node's eight rails share its pod's cores: 58.7 MB each at 50 GB/s / 64, headers included, both ways, and a
    # DualPipe rank sends 2 x 120 of them over a pod's border: what the pod's port is busy with bounds the step.
    port_s = 2 * 120 * 4096 * 7168 * 2 * (4160 / 4096) / (50e9 / 64)
    assert best("v3-oversubscription", kind="three_tier", oversubscription=8) > max(free, port_s)


@pytest.mark.slow
@ON_H800
def test_narrow_experts_and_wide_tensors_rank_behind_and_the_reason_is_visible() -> None:
    name = "v3-layouts"
    top = best(name)
    assert best(name, ep=8) > 1.2 * top
    assert best(name, tp=8) > 1.4 * top
    found = document(name)
    view = sweep_view(found)
    axes = {axis.name: axis for axis in view.axes}
    tp8, ep8 = (
        next(one.best for one in view.marginals(axis, view.ranked) if one.text == "8")
        for axis in (axes["layout.tp"], axes["layout.ep"])
    )
    leader = view.leaders[()]
    assert tp8 is not None
    assert ep8 is not None
    # TP8: reductions inside the layers, which nothing hides. EP8: no room for DualPipe's two copies, so a long bubble.
    assert (tp8.metric("exposed_comm_s") or 0) > 10 * (leader.metric("exposed_comm_s") or 1)
    assert (ep8.metric("bubble_s") or 0) > 3 * (leader.metric("bubble_s") or 1)
    crowded = {"schedule": "dualpipe", "tp": 1, "pp": 16, "ep": 8}
    point = next(p for p in found["points"] if list(p["values"].values()) == list(crowded.values()))
    assert point["status"] == "infeasible"
    assert "of the 80 GB of NVIDIA H800" in point["reason"]


@pytest.mark.slow
@ON_H100
def test_tensor_parallelism_costs_less_on_an_h100() -> None:
    """A pair of GPUs halves the stages and their bubble: worth its reductions over the full NVLink, and not over the cut one."""
    two = {name: best(name, tp=2) / best(name, tp=1) for name in ("v3-layouts", "v3-layouts-h100")}
    assert two["v3-layouts"] == pytest.approx(1.07, abs=0.01)
    assert two["v3-layouts-h100"] == pytest.approx(1.004, abs=0.004)
    losses = {name: best(name, tp=8) / best(name) for name in ("v3-layouts", "v3-layouts-h100")}
    assert losses["v3-layouts-h100"] < losses["v3-layouts"] - 0.1


@pytest.mark.slow
def test_nvlink_matters_within_a_node_and_not_from_ep32_on_with_four_groups() -> None:
    def gain(ep: int, groups: int) -> float:
        slow, fast = (
            best("nvlink-map", ep=ep, top_groups=groups, bandwidth=rate) for rate in ("200 GB/s", "900 GB/s")
        )
        return slow / fast

    assert gain(8, 4) > 1.8
    assert gain(32, 4) < 1.01
    assert gain(64, 4) < 1.01
    assert gain(64, 1) > 1.3


@pytest.mark.slow
def test_eight_to_ten_sms_are_enough_for_communication_and_four_with_kernels_of_2026() -> None:
    """DeepEP's second version is published with 4 to 6 SMs in training as of DeepSeek-V3, instead of 20 to 24."""
    times = {sms: best("comm-sms", generation="deepep_v1_2025_02", comm_sms=sms) for sms in range(4, 33, 2)}
    assert min(times, key=lambda sms: times[sms]) in (8, 10)
    assert times[20] / min(times.values()) == pytest.approx(1.04, abs=0.015)
    assert times[4] > 1.15 * min(times.values())
    assert times[32] > 1.08 * min(times.values())
    for generation in ("deepep_v2", "hybrid_ep"):
        newer = {sms: best("comm-sms", generation=generation, comm_sms=sms) for sms in range(2, 33, 2)}
        assert min(newer, key=lambda sms: newer[sms]) in (4, 6)
        assert min(newer.values()) < 0.98 * min(times.values())


@pytest.mark.slow
def test_wide_decode_serves_more_within_fifty_milliseconds_a_token() -> None:
    found = document("v3-decode-batch")
    assert all(point["metrics"]["tpot_s"] <= 0.05 for point in found["points"] if point["status"] == "ok")
    assert best("v3-decode-batch", unit="EP32") < 0.85 * best("v3-decode-batch")
    wide = [best("v3-decode-batch", unit=unit) for unit in ("EP72", "EP96", "EP144")]
    assert min(wide) > 0.95 * max(wide)
    assert best("v3-decode-batch", unit="EP320") > 0.9 * max(wide)


@pytest.mark.slow
@pytest.mark.parametrize(("hardware", "flips"), [("h800", 64), ("h100", 64), ("h20", 128)])
def test_few_requests_decode_faster_under_tensor_parallelism_and_many_under_ep(
    hardware: str, flips: int
) -> None:
    """MLA's latents are one head: TP holds and reads a request's on every GPU of a group, EP on one, but each has all weights."""
    for requests in (1, 2, 4, 8, 16, 32, 64, 128):
        of = {"hardware": hardware, "requests": requests}
        split, whole = (best("tp-or-ep", way=way, **of) for way in ("TP8-PP2", "EP16"))
        if requests * 4 < flips:
            assert best("tp-or-ep", way="TP16", **of) < 0.9 * whole
        assert (min(split, best("tp-or-ep", **of)) == whole) == (requests >= flips)
    assert best("tp-or-ep", way="EP16", hardware=hardware, requests=512) > 0


@pytest.mark.slow
def test_prefill_is_best_on_two_or_four_nodes() -> None:
    narrow = [best("v3-prefill-layouts", unit=unit) for unit in ("EP16", "EP32")]
    assert min(narrow) > 0.95 * max(narrow)
    assert best("v3-prefill-layouts", unit="EP72") < 0.8 * max(narrow)


@pytest.mark.slow
@pytest.mark.parametrize(("hardware", "costs"), [("h800", 0.014), ("h100", -0.005)])
def test_mixtral_wants_its_experts_within_a_node_and_a_full_nvlink_bears_two_fold_tensor_parallelism(
    hardware: str, costs: float
) -> None:
    """Whole experts reduce nothing over TP, so that two GPUs share attention for two all-reduces a layer alone."""
    whole = best("mixtral-64", hardware=hardware, tp=1)
    assert best("mixtral-64", hardware=hardware, ep=8, tp=1) == whole
    assert best("mixtral-64", hardware=hardware, tp=2) / whole - 1 == pytest.approx(costs, abs=0.003)
    assert 1.05 * whole < best("mixtral-64", hardware=hardware, tp=4)
    assert best("mixtral-64", hardware=hardware, tp=4) < best("mixtral-64", hardware=hardware, tp=8)


@pytest.mark.slow
def test_the_h100_gains_on_mixtral_and_most_with_wide_tensor_parallelism() -> None:
    gains = {
        tp: best("mixtral-64", hardware="h800", tp=tp) / best("mixtral-64", hardware="h100", tp=tp)
        for tp in (1, 8)
    }
    assert 1.01 < gains[1] < 1.06
    assert gains[8] > 1.1


@pytest.mark.slow
@pytest.mark.parametrize(("name", "given"), [("v3-phase-layouts", "machine"), ("v3-dense-layouts", "twin")])
def test_each_phase_of_the_whole_cost_is_laid_out_as_the_sweep_finds_best(name: str, given: str) -> None:
    """The scenario's phases next to the best points: layout, schedule and recompute are equal."""
    found, pinned = document(name), scenario_settings.variants(scenario_settings.read("v3-whole-cost"))
    best = [found["points"][index]["values"] for index in found["best"]]
    assert len(best) == 3 * len(found["axes"][given])
    for values in best:
        work = resolve(pinned[values[given]]).workload
        assert isinstance(work, Training)
        phase = next(phase for phase in work.phases if phase.name == values["phase"])
        step = phase.work or work
        for axis, value in values.items():
            branch, _, key = axis.rpartition(".")
            if branch == "layout":
                assert getattr(step.layout, key) == value, (values, key)
            elif branch == "workload":
                assert getattr(step.spec, key) == value, (values, key)


def test_a_ring_over_nodes_is_held_by_the_cut_link_on_one_machine_and_by_the_nic_on_the_other() -> None:
    """At 4 GiB, beside 1 % of steps: 8/7 of 0.762 x 200 GB/s of NVLink on the H800, eight NICs at 0.888 of 50 GB/s on the H100."""
    for hardware, bus in (("h800", 8 / 7 * 0.762 * 200e9), ("h100", 8 * 0.888 * 50e9)):
        got = best("nccl-all-reduce", hardware=hardware, bytes_per_rank="4 GiB", algorithm="ring")
        assert 0.98 * bus < got < bus
    for hardware in ("h800", "h100"):
        small = {"hardware": hardware, "bytes_per_rank": "1 MiB"}
        assert best("nccl-all-reduce", **small, algorithm="tree") == best("nccl-all-reduce", **small)
    large = {"hardware": "h800", "bytes_per_rank": "4 GiB"}
    assert best("nccl-all-reduce", **large, algorithm="nvls") == best("nccl-all-reduce", **large)


@pytest.mark.slow
def test_of_a_machine_of_ones_own_nvlink_moves_nothing_with_four_groups_and_much_with_one() -> None:
    points = document("explore-exchange")["points"]

    def time_s(ep: int, groups: int, nvlink: int) -> float:
        values = {
            "cluster.override.gpu.scale_up.bandwidth": f"{nvlink} GB/s",
            "cluster.override.nic.bandwidth": "50 GB/s",
            "EP": str(ep),
            "workload.gate.top_groups": groups,
            "machine": "yours",
        }
        (found,) = (point for point in points if point["values"] == values)
        return float(found["metrics"]["dispatch"]["time_s"])

    for ep in (32, 64):
        assert time_s(ep, 4, 200) == pytest.approx(time_s(ep, 4, 450), rel=0.005)
        assert time_s(ep, 1, 200) > 1.2 * time_s(ep, 1, 450)
    assert time_s(8, 4, 200) > 1.8 * time_s(8, 4, 450)
