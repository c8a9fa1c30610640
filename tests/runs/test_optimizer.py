"""The optimizer of a recipe: its states, products, traffic and what compute hides of it, counted by hand."""

from __future__ import annotations

from functools import lru_cache
from typing import Any

import pytest

from sim import documents
from sim.cluster.hardware import load_hardware
from sim.cost import optimizer
from sim.cost.compute import processor
from sim.cost.optimizer import HOST_BYTES_PER_S, Optimizer, newton_schulz_flops, newton_schulz_s, offload_s
from sim.errors import InfeasibleError
from sim.runs.run import run_document
from sim.runs.training import Step
from sim.scenario.resolve import resolve
from sim.scenario.settings import read
from sim.schedule.reductions import scatter_s
from sim.workload.layout import Layout
from sim.workload.model import load_model, parameters
from sim.workload.stages import stages

SCENARIO = """
name: mine
cluster: {{hardware: h100, nodes: 2, override: {{gpu.hbm.capacity: 1 TB}}}}
model: mixtral-8x7b
layout: {{pp: 1, ep: 8}}
workload:
  kind: training
  microbatches: {microbatches}
  schedule: 1f1b
  precision: bf16
  dispatch_dtype: bf16
  kernel: {{kind: two_hop}}
  skew: {{routed_load: 0, kernel_jitter: 0, gpu_spread: 0}}
  optimizer: {{{optimizer}}}
"""
MODEL = load_model("mixtral-8x7b")
COUNT = parameters(MODEL)
EXPERTS = 32 * 8 * COUNT.expert / 8  # of a GPU: one expert of eight a layer, shared by two ranks
TABLES = 2.0 * MODEL.vocab * MODEL.hidden
LAYERS = COUNT.total - 32 * 8 * COUNT.expert - TABLES  # shared by sixteen


@lru_cache(maxsize=32)
def ran(optimizer: str = "", microbatches: int = 2) -> dict[str, Any]:
    text = SCENARIO.format(optimizer=optimizer, microbatches=microbatches)
    return run_document(documents.loads(text, "mine.yaml"))


def memory(optimizer: str = "") -> dict[str, float]:
    (found,) = ran(optimizer)["memory"]
    return found


def test_states_have_the_bytes_of_their_formats_and_muon_one_moment_of_matrices() -> None:
    part, tables = EXPERTS / 2 + LAYERS / 16, TABLES / 16
    assert memory()["optimizer"] == pytest.approx((4 + 2 + 2) * (part + tables), rel=1e-6)
    assert memory("moments: fp32")["optimizer"] == pytest.approx((4 + 4 + 4) * (part + tables), rel=1e-6)
    muon = memory("kind: muon, moments: fp32")["optimizer"]
    assert muon == pytest.approx((4 + 4) * part + (4 + 4 + 4) * tables, rel=1e-6)
    assert memory("offload: cpu")["optimizer"] == 0
    assert memory("gradients: bf16")["gradients"] == pytest.approx(memory()["gradients"] / 2)


def test_zero_2_keeps_a_part_of_the_gradients_and_zero_3_of_the_weights_too() -> None:
    part, whole = EXPERTS / 2 + LAYERS / 16, EXPERTS + LAYERS
    assert memory()["gradients"] == pytest.approx(4 * (whole + TABLES), rel=1e-6)
    assert memory("shard: zero2")["gradients"] == pytest.approx(4 * (part + TABLES), rel=1e-6)
    assert memory("shard: zero2")["weights"] == pytest.approx(2 * (whole + TABLES), rel=1e-6)
    layer = COUNT.expert + (LAYERS - MODEL.hidden) / 32  # the last norm is the head's
    assert memory("shard: zero3")["weights"] == pytest.approx(2 * (part + TABLES) + 2 * 2 * layer, rel=1e-6)


def test_zero_3_gathers_each_layer_twice_and_scatters_it_once_in_every_microbatch() -> None:
    """Without overlap all of it waits: 32 layers, each expert over two nodes, the rest over sixteen GPUs."""
    settings = ["layout={pp: 1, ep: 8}", "cluster.nodes=2", "cluster.override={gpu.hbm.capacity: 1 TB}"]
    links = Step.from_scenario(resolve(read("mixtral-training", [*settings, "cluster.hardware=h100"]))).links
    dense = (LAYERS - MODEL.hidden) / 32

    def moved_s(size: float) -> float:
        return scatter_s(links, size * dense, 16, 8) + scatter_s(links, size * COUNT.expert, 2, 1)

    times = [
        ran(f"shard: {shard}", n)["metrics"]["step_time_s"] for shard in ("zero1", "zero3") for n in (2, 4)
    ]
    more = (times[3] - times[2]) - (times[1] - times[0])  # of two microbatches
    assert more == pytest.approx(2 * 32 * (2 * moved_s(2.0) + moved_s(4.0)), rel=1e-3)
    hidden = ran("shard: zero3, overlap: true", 4)["metrics"]
    assert hidden["step_time_s"] < times[3] - 0.5 * 4 * 32 * (2 * moved_s(2.0) + moved_s(4.0))
    assert hidden["lower_bound_s"] < hidden["step_time_s"]


def test_what_overlaps_is_hidden_but_for_one_layer_of_each_reduction_and_the_update() -> None:
    shown, hidden = ran()["metrics"], ran("overlap: true")["metrics"]
    update = (
        (EXPERTS / 2 + (LAYERS + TABLES) / 16)
        * 22
        / (
            load_hardware("h100").gpu.hbm.bandwidth_bytes_per_s
            * load_hardware("h100").gpu.hbm.efficiency_fraction
        )
    )
    expected = update + (shown["optimizer_s"] - update) / 32
    assert hidden["optimizer_s"] == pytest.approx(expected, rel=1e-6)
    assert shown["step_time_s"] - hidden["step_time_s"] == pytest.approx(shown["optimizer_s"] - expected)


def test_newton_schulz_is_five_times_three_products() -> None:
    m, n = 2048, 7168
    assert newton_schulz_flops(n, m) == 5 * (2 * m * m * n + 2 * m**3 + 2 * m * m * n)


def test_muon_takes_the_products_of_a_ranks_matrices_and_never_less_than_the_costliest() -> None:
    p = processor(load_hardware("h100"), sustained=True)
    cut = stages(MODEL, 1)
    few, many = (newton_schulz_s(p, MODEL, cut, Layout(ep=8, dp=dp)) for dp in (8, 64))
    # One expert of three matrices a layer; q, k, v as one, and the output projection.
    flops = 32 * 3 * newton_schulz_flops(14336, 4096)
    dense = 32 * (newton_schulz_flops(6144, 4096) + newton_schulz_flops(4096, 4096))
    peak = 989.4e12
    assert (flops + dense / 8) / peak < few < 2.5 * (flops + dense / 8) / peak
    assert (flops / 8 + max(dense / 64, newton_schulz_flops(6144, 4096))) / peak < many < few / 5
    slower = ran("kind: muon")["metrics"]["optimizer_s"] - ran()["metrics"]["optimizer_s"]
    assert slower > (flops / 2 + dense / 16) / peak


@pytest.mark.parametrize("name", ["mixtral-8x7b", "deepseek-v3", "qwen3-30b-a3b"])
@pytest.mark.parametrize(("tp", "etp"), [(1, 1), (2, 1), (4, 2)])
def test_the_matrices_of_all_ranks_are_those_of_the_model(name: str, tp: int, etp: int) -> None:
    """All that is no table of words; gates, norms and what few ranks hold twice are below a hundredth."""
    model, layout = load_model(name), Layout(ep=8, dp=8, tp=tp, etp=etp)
    ranks = {"dense": tp, "experts": 8 * etp}
    elements = sum(
        number * ranks[what] * rows * columns * count
        for layer, number in model.layers().items()
        for what, rows, columns, count in optimizer._matrices(model, layer, layout)
    )
    tables = (1 if model.tied_embeddings else 2) * model.vocab * model.hidden
    assert elements == pytest.approx(parameters(model).total - tables, rel=0.01)


def test_a_host_updates_at_the_rate_of_its_memory_and_pcie_carries_gradients_and_weights() -> None:
    h100 = load_hardware("h100")
    parts = [4 * 1e9 / 64e9, 22 * 1e9 / HOST_BYTES_PER_S, 2 * 1e9 / 64e9]
    assert offload_s(h100, Optimizer(offload="cpu"), 1e9, 0.0) == pytest.approx(sum(parts))
    assert offload_s(h100, Optimizer(offload="cpu", overlap=True), 1e9, 0.0) == pytest.approx(max(parts))
    with pytest.raises(InfeasibleError, match="PCIe"):
        offload_s(load_hardware("gb200-nvl72"), Optimizer(offload="cpu"), 1e9, 0.0)
    assert ran("offload: cpu")["metrics"]["optimizer_s"] > ran()["metrics"]["optimizer_s"]
