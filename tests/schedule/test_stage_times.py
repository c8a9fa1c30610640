"""Compute times of stages: what stands where, what grows with the load, what TP and fewer SMs do to it."""

from __future__ import annotations

import dataclasses
import math
from typing import Any

import pytest

from sim.cluster.hardware import load_hardware
from sim.cluster.kernels import load_kernel
from sim.cost.compute import processor
from sim.cost.launches import RankBatch
from sim.cost.layers import layer_times
from sim.cost.measured import load_profile
from sim.schedule.programs import LayerTimes, backward, compute_s, forward
from sim.schedule.stage_times import ChunkWork, stage_times
from sim.schedule.training import StageTimes
from sim.workload.formats import Precision, ProductName
from sim.workload.layout import Layout
from sim.workload.model import load_model
from sim.workload.stages import stages

PHASES = ("attn_f", "mlp_f", "attn_b", "mlp_b", "attn_w", "mlp_w")


def times(
    model: str = "deepseek-v3",
    *,
    num_stages: int = 16,
    hardware: str = "h800",
    tp: int = 1,
    cp: int = 1,
    ep: int = 64,
    tokens: int = 4096,
    precision: ProductName = "fp8",
    ranks_per_token: float = 7.5,
    **options: Any,
) -> tuple[StageTimes, ...]:
    known = load_model(model)
    layout = Layout(pp=num_stages, ep=ep, tp=tp, dp=128, cp=cp)
    options = {"comm_sms": 20, "generation": "march_2025"} | options
    work = ChunkWork(known, layout, 1, tokens, ranks_per_token, Precision.alike(precision))
    return stage_times(
        work, stages(known, num_stages), load_hardware(hardware), load_kernel("two_hop"), **options
    )


def whole(layers: tuple[LayerTimes, ...]) -> float:
    return compute_s(forward(layers)) + compute_s(backward(layers))


def test_blocks_stand_where_the_stages_say() -> None:
    model = load_model("deepseek-v3")
    cut = stages(model, 16)
    for stage, found in zip(cut, times(), strict=True):
        layers = [x.layer for x in found.alone]
        own = [*([-1] if stage.embedding else []), *stage.layers, *([-1] if stage.head else [])]
        own += [-1, model.num_layers, -1] * stage.num_mtp  # projection, a layer with experts, the head again
        assert layers == own
        exchanging = [x.layer for x in found.alone if x.communicates]
        assert len(exchanging) == stage.num_expert_layers
        assert not any(model.is_dense(layer) for layer in exchanging if layer < model.num_layers)


def test_layers_of_a_kind_are_alike() -> None:
    found = times()
    moe = [x for stage in found for x in stage.alone if x.communicates]
    assert {tuple(getattr(x, phase) for phase in PHASES) for x in moe} == {
        tuple(getattr(moe[0], phase) for phase in PHASES)
    }


def test_fewer_sms_beside_communication_make_every_layer_slower() -> None:
    for stage in times():
        for alone, beside in zip(stage.alone, stage.beside, strict=True):
            if alone.communicates:
                assert all(getattr(beside, phase).mean_s >= getattr(alone, phase).mean_s for phase in PHASES)
    middle = times()[5]
    assert 1.05 < whole(middle.beside) / whole(middle.alone) < 132 / 112 * 1.1


def test_without_communication_sms_both_speeds_are_nearly_one() -> None:
    middle = times(comm_sms=0)[5]
    assert 1.0 <= whole(middle.beside) / whole(middle.alone) < 1.1


def test_only_the_experts_grow_with_the_routed_load() -> None:
    found = times()
    for stage in found:
        for x in stage.alone:
            routed = {phase: getattr(x, phase).routed_s for phase in PHASES}
            if not x.communicates:
                assert set(routed.values()) == {0.0}
            else:
                assert routed["attn_f"] == routed["attn_b"] == routed["attn_w"] == 0
                for phase in ("mlp_f", "mlp_b", "mlp_w"):
                    share = routed[phase] / getattr(x, phase).mean_s
                    assert 0.5 < share <= 1  # the shared expert is one of nine


def test_a_layer_of_the_published_trace_comes_out_near_it() -> None:
    # 129.0 ms for four layers, 31.3-32.3 ms a layer (H800, 112 SMs, 4,096 tokens).
    layer = next(x for x in times(generation="february_2025")[5].beside if x.communicates)
    assert sum(getattr(layer, phase).mean_s for phase in PHASES) == pytest.approx(31.8e-3, rel=0.1)


def test_measured_phases_replace_modelled_ones_beside_communication() -> None:
    profile = load_profile("h800-train-measured")
    layer = next(x for x in times(measured=profile)[5].beside if x.communicates)
    for phase, name in zip(
        PHASES, ("attn(F)", "mlp(F)", "attn(B)", "mlp(B)", "attn(W)", "mlp(W)"), strict=True
    ):
        assert getattr(layer, phase).mean_s == pytest.approx(profile.phases[name].elapsed_s)  # type: ignore[index]


def test_a_backward_takes_about_twice_its_forward() -> None:
    for model, ep in (("deepseek-v3", 64), ("mixtral-8x7b", 8)):
        for precision in ("fp8", "bf16"):
            stage = times(model, num_stages=4, ep=ep, precision=precision)[1]
            assert 1.7 < compute_s(backward(stage.alone)) / compute_s(forward(stage.alone)) < 2.8


def test_twice_the_tensor_rate_halves_only_what_it_bounds() -> None:
    slow = whole(times("mixtral-8x7b", num_stages=4, ep=8, precision="bf16")[1].alone)
    fast = whole(times("mixtral-8x7b", num_stages=4, ep=8, precision="fp8")[1].alone)
    assert 1.3 < slow / fast < 2.0


def test_tensor_parallel_ranks_share_a_layer_less_than_evenly() -> None:
    # Two ranks do all work between them; products of half the width waste more of their tiles, launches cost as much as before.
    one, two = (whole(times("mixtral-8x7b", num_stages=4, ep=8, tp=tp)[1].alone) for tp in (1, 2))
    assert 0.5 < two / one < 0.6


@pytest.mark.parametrize("split", [{"tp": 4}, {"cp": 4}, {"tp": 2, "cp": 2}])
def test_ranks_share_a_layer_but_for_their_own_experts(split: dict[str, int]) -> None:
    model, tokens = load_model("deepseek-v3"), 4096
    bare = dataclasses.replace(model, num_shared_experts=0)
    batch = RankBatch(1, tokens, (tokens // 4 * 8 * 64 // 256,) * 4, tokens / 4 * 7.5, "fp8")
    p = processor(load_hardware("h800"), sustained=True)
    whole, own = (layer_times(p, one, batch) for one in (model, bare))
    layer = next(x for x in times(tokens=tokens, comm_sms=0, **split)[5].alone if x.communicates)
    for field, phase in zip(("mlp_f", "mlp_b", "mlp_w"), ("mlp(F)", "mlp(B)", "mlp(W)"), strict=True):
        experts, both = own[phase].total_s, whole[phase].total_s
        assert (
            experts + (both - experts) / 4
            <= getattr(layer, field).mean_s
            < 1.1 * experts + (both - experts) / 2
        )
        assert 0 <= getattr(layer, field).routed_s <= experts * 1.001
    for field, phase in zip(("attn_f", "attn_b", "attn_w"), ("attn(F)", "attn(B)", "attn(W)"), strict=True):
        # A weight gradient under CP sums a quarter of the tokens and stores as large a weight as ever.
        most = 0.55 if "cp" in split and phase == "attn(W)" else 0.4
        assert 0.25 <= getattr(layer, field).mean_s / whole[phase].total_s < most


def test_all_to_alls_of_a_pair_take_their_share_of_hbm_from_a_rank_and_not_from_its_group() -> None:
    # TP2 halves bytes and, but for experts' padding and launches, the compute that they are moved in: HBM has as little left.
    layers = (next(x for x in times(tp=tp)[5].beside if x.communicates) for tp in (1, 2))
    one, two = (layer.mlp_b.memory_s for layer in layers)
    assert 0.5 * one < two < 0.56 * one


def test_a_library_that_is_not_told_of_lent_sms_loses_more_the_longer_they_are_lent() -> None:
    """All-to-alls of a part f of the pair halve the rate of resident blocks for f: products take 1 / (1 - f / 2) as long."""
    asked = {"precision": "bf16", "generation": "cublas_13"}
    spans = [
        next(x for x in times(all_to_alls_s=s, **asked)[5].beside if x.communicates)  # type: ignore[arg-type]
        for s in (1e-9, 20e-3, math.inf)
    ]
    products = [x.attn_w.mean_s for x in spans]  # weight gradients of attention: nothing but products
    assert products == sorted(products)
    assert products[2] == pytest.approx(2 * products[0], rel=0.05)
    pair_s = sum(getattr(spans[1], phase).mean_s for phase in PHASES)
    assert products[1] == pytest.approx(products[0] / (1 - 20e-3 / pair_s / 2), rel=0.05)


def test_reductions_of_a_pair_ask_for_the_time_of_its_compute_and_those_alone_for_none() -> None:
    asked: list[float] = []

    def inside_s(pair_s: float) -> dict[str, float]:
        asked.append(pair_s)
        return {"head(F)": 1e-3 if pair_s == math.inf else 2e-3, "head(B)": 1e-3}

    found, bare = times(inside_s=inside_s), times()
    assert asked[0] == math.inf
    assert 25e-3 < asked[1] < 35e-3  # a layer of the published trace: 31.8 ms
    ends = [(x, y) for x, y in zip(found[-1].beside, bare[-1].beside, strict=True) if x.layer < 0 and x != y]
    assert ends
    assert all(x.mlp_f.exposed_s == 2e-3 and x.mlp_b.exposed_s == 1e-3 for x, _ in ends)
    assert all(x.mlp_f.fixed_s == y.mlp_f.fixed_s for x, y in ends)


def test_reductions_inside_layers_are_added_and_kept_apart() -> None:
    inside = {"attn(F)": 1e-3, "experts(F)": 2e-3, "attn(B)": 3e-3, "experts(B)": 4e-3}
    bare, reduced = times()[5].beside, times(inside_s=lambda _: inside)[5].beside
    assert whole(reduced) - whole(bare) == pytest.approx(len(bare) * 10e-3)
    assert reduced[0].attn_b.exposed_s == 3e-3
    assert reduced[0].attn_b.fixed_s == bare[0].attn_b.fixed_s
    assert reduced[0].attn_w.exposed_s == 0


def test_full_recomputation_runs_layers_again_but_not_heads() -> None:
    first, last = times(recompute="full")[0], times(recompute="full")[-1]
    assert [x.again for x in first.alone] == [x.layer >= 0 for x in first.alone]
    assert not all(x.again for x in last.alone)
    stage = times(recompute="full")[5].alone
    assert compute_s(backward(stage)) - compute_s(forward(stage)) == pytest.approx(
        compute_s(backward(times()[5].alone))
    )


@pytest.mark.parametrize("hardware", ["a100", "h100", "h20", "h200", "b200", "gb200-nvl72"])
@pytest.mark.parametrize(
    "model", ["mixtral-8x7b", "qwen3-235b-a22b", "gpt-oss-120b", "llama4-maverick", "glm-4.5"]
)
def test_every_part_computes_every_model(hardware: str, model: str) -> None:
    precision: ProductName = "bf16" if hardware == "a100" else "fp8"
    found = times(model, num_stages=4, hardware=hardware, ep=8, ranks_per_token=1.5, precision=precision)
    assert len(found) == 4
    assert all(whole(stage.alone) > 0 for stage in found)
    assert all(
        x.fixed_s >= 0 and x.routed_s >= 0
        for s in found
        for y in s.beside
        for x in (y.attn_f, y.mlp_b, y.mlp_w)
    )


def test_windowed_layers_are_quicker_than_full_ones() -> None:
    # gpt-oss alternates windows of 128 tokens with full attention.
    layers = [x for x in times("gpt-oss-120b", num_stages=4, ep=8, tokens=32768)[1].alone if x.layer >= 0]
    kinds = {x.attn_f.mean_s for x in layers}
    assert len(kinds) == 2
    assert max(kinds) > 1.5 * min(kinds)
