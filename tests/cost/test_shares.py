"""Launches of a rank under tensor and context parallelism: all of the group's FLOPs and bytes, in the shapes of one rank."""

import math

import pytest

from sim.cluster.hardware import load_hardware
from sim.cost import serving_kernels
from sim.cost.attention_launches import attention
from sim.cost.compute import gemm_s, processor
from sim.cost.launches import Launch, RankBatch
from sim.cost.layers import PHASES, dense_mlp, layer_phases
from sim.cost.shares import shared
from sim.workload.attention import GQA, Recurrent
from sim.workload.model import load_model, shipped_models

V3 = load_model("deepseek-v3")
TOKENS = 4096
H200 = processor(load_hardware("h200"))


def named(launches: list[Launch], name: str) -> Launch:
    return next(op for op in launches if op.name == name)


@pytest.mark.parametrize(("tp", "cp"), [(2, 1), (8, 1), (1, 4), (2, 2)])
def test_the_ranks_of_a_group_do_all_flops_and_move_all_bytes_between_them(tp: int, cp: int) -> None:
    batch = RankBatch(1, TOKENS)
    for phase in PHASES:
        whole = [*attention(V3, batch, phase), *dense_mlp(V3, batch, phase)]
        own = shared(whole, tp, cp)
        assert sum(op.flops for op in own) * tp * cp == pytest.approx(sum(op.flops for op in whole))
        assert [op.count for op in own] == [op.count for op in whole]
        for mine, all_ in zip(own, whole, strict=True):
            ways = tp if mine.name == "transpose weight" else tp * cp  # weights are not split by CP
            assert mine.moved_bytes * ways == pytest.approx(all_.moved_bytes)
            if mine.kind in ("gemm", "weight_gemm"):
                products = (sum(op.rows) * op.n * op.k for op in (mine, all_))
                assert next(products) * tp * cp == next(products)


def test_heads_split_outputs_then_inputs_and_latents_split_tokens() -> None:
    own = shared(attention(V3, RankBatch(1, TOKENS), "F"), 2, 1)
    assert (named(own, "q up").n, named(own, "q up").k) == (128 // 2 * 192, 1536)
    assert (named(own, "o").n, named(own, "o").k) == (7168, 128 // 2 * 128)
    assert named(own, "q down").rows == (2048,)  # whole on every rank, for its own tokens
    assert named(own, "q up").rows == (4096,)  # for those of its group
    assert named(own, "attention forward").heads == 64
    back = shared(attention(V3, RankBatch(1, TOKENS), "B"), 2, 1)
    assert (named(back, "o input gradient").n, named(back, "o input gradient").k) == (8192, 7168)
    assert (named(back, "q up input gradient").n, named(back, "q up input gradient").k) == (1536, 12288)
    weights = shared(attention(V3, RankBatch(1, TOKENS), "W"), 2, 1)
    assert (named(weights, "o").n, named(weights, "o").k) == (7168, 8192)


def test_experts_of_a_rank_are_its_own_and_its_shared_expert_is_a_part() -> None:
    one, two = (
        layer_phases(V3, RankBatch(1, TOKENS, (4096,) * 4, 30000.0, tp=tp))["mlp(F)"] for tp in (1, 2)
    )
    assert named(two, "expert up") == named(one, "expert up")
    assert named(two, "expand") == named(one, "expand")
    assert named(two, "up").n * 2 == named(one, "up").n


def test_a_share_takes_more_than_its_part_of_the_time() -> None:
    # A down-projection of 1,024 of 2,048 inputs stores as many outputs: the part of its tiles that is not hidden is paid in full.
    p = processor(load_hardware("h100"), sustained=True)
    assert gemm_s(p, TOKENS, 7168, 1024) > 0.55 * gemm_s(p, TOKENS, 7168, 2048)


SPLIT = {"q up", "absorb keys", "absorb values", "attention core", "o", "qkv"}
"""Products of decode that TP shares out by heads; all else of a layer's attention every rank has whole, or partly so."""


@pytest.mark.parametrize("name", shipped_models())
def test_the_ranks_of_a_group_do_the_products_of_heads_once_between_them_in_decode(name: str) -> None:
    model = load_model(name)
    for layer in model.layers():
        i = next(i for i in range(model.num_layers) if model.layer(i) == layer)
        a = layer.attention
        if a is None or isinstance(a, Recurrent):
            continue
        tp = 4 if not isinstance(a, GQA) else math.gcd(4, a.num_kv_heads)
        whole, group = (serving_kernels.DecodeBatch(8 / ranks, 1, 4096, tp=ranks) for ranks in (1, tp))
        for part in (serving_kernels.decode_attention_0, serving_kernels.decode_attention_1):
            alone, shared = part(H200, model, whole, i), part(H200, model, group, i)
            assert alone.keys() == shared.keys()
            for launch in alone:
                done = tp * shared[launch].flops / (alone[launch].flops or 1.0)
                moved = tp * shared[launch].moved_bytes / alone[launch].moved_bytes
                assert 0.99 <= moved <= 1.01 * tp, launch
                if launch in SPLIT and not (launch == "qkv" and a.q_lora_rank):
                    assert done == pytest.approx(1.0), launch
                else:
                    assert done <= 1.01 * tp, launch
