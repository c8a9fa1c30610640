"""Recomputation by module: bytes that each lets go of, counted by hand, and launches that its backward runs again."""

from __future__ import annotations

from collections import Counter

import pytest

from sim.cluster.hardware import load_hardware
from sim.cluster.kernels import load_kernel
from sim.cost.activations import layer_activation_bytes_per_token
from sim.cost.compute import processor
from sim.cost.launches import RankBatch, launches_s
from sim.cost.layers import layer_phases, layer_times
from sim.cost.memory import buffer_bytes
from sim.cost.recipe import Recipe
from sim.cost.recompute import MODULES, SELECTIVE, recomputed
from sim.errors import InputError
from sim.schedule.programs import backward
from sim.schedule.stage_times import ChunkWork, stage_times
from sim.workload.formats import Precision
from sim.workload.layout import Layout
from sim.workload.model import load_model
from sim.workload.stages import stages

V3, QWEN = load_model("deepseek-v3"), load_model("qwen3-235b-a22b")
FP8 = 1.03125  # bytes of an element with its part of a scale

# V3: 7168 wide, 128 heads of 192 and 128, eight experts and a shared one of 2048, dense layers of 18432, 7.49 rows received.
SAVED = {
    "core_attn": 4 * 128,
    "mla_up_proj": 2 * 128 * (192 + 192 + 128),
    "layernorm": 2 * 2 * 7168,
    "moe_act": 8 * 2048 * FP8,
    "mlp": 0,
    "moe": (7.49 * 7168 + 3 * 9 * 2048) * FP8,
    "shared_experts": 3 * 2048 * FP8,
}
SAVED_DENSE = {**SAVED, "moe_act": 0, "mlp": 3 * 18432 * FP8, "moe": 0, "shared_experts": 0}


def kept(layer: int, *modules: str) -> float:
    return layer_activation_bytes_per_token(V3, V3.layer(layer), 7.49, Recipe(recompute=modules or "none"))


@pytest.mark.parametrize("module", MODULES)
def test_a_module_saves_the_bytes_counted_by_hand(module: str) -> None:
    assert kept(60) - kept(60, module) == pytest.approx(SAVED[module])
    assert kept(0) - kept(0, module) == pytest.approx(SAVED_DENSE[module])


def test_modules_together_save_what_each_saves_and_nothing_twice() -> None:
    together = ("layernorm", "moe_act", "shared_experts", "mla_up_proj")
    assert kept(60) - kept(60, *together) == pytest.approx(sum(SAVED[name] for name in together))
    assert kept(60, "moe", "moe_act", "shared_experts") == kept(60, "moe")
    assert kept(60, *MODULES) > layer_activation_bytes_per_token(
        V3, V3.layer(60), 7.49, Recipe(recompute="full")
    )


def test_selective_is_norms_latents_and_every_swiglu() -> None:
    selective = layer_activation_bytes_per_token(V3, V3.layer(60), 7.49, Recipe())
    shared = 2048 * FP8  # its SwiGLU has no name of its own
    assert selective == pytest.approx(kept(60, "layernorm", "mla_up_proj", "moe_act") - shared)


def test_a_block_that_is_computed_again_stands_in_a_buffer_meanwhile() -> None:
    layout = Layout(pp=1, ep=1, dp=8)
    sizes = {
        name: buffer_bytes(V3, layout, 4096, 7.49, Recipe(recompute=(name,))) for name in ("layernorm", "moe")
    }
    assert sizes == {"layernorm": 0.0, "moe": pytest.approx(4096 * SAVED["moe"])}


def again(model: object, dense: bool, *modules: str) -> Counter[str]:
    """Launches of a backward that are there with modules and not without."""
    names = []
    for chosen in (frozenset(modules), frozenset[str]()):
        batch = RankBatch(1, 4096, (1024,) * 4, 4096.0, "bf16", chosen)
        phases = layer_phases(model, batch, dense=dense, layer_idx=0)  # type: ignore[arg-type]
        names.append(Counter(op.name for x in ("attn(B)", "mlp(B)") for op in phases[x]))
    return names[0] - names[1]


def test_launches_that_run_again_are_those_of_the_module() -> None:
    assert again(QWEN, False, "layernorm") == {"norm": 2}
    assert again(QWEN, False, "core_attn") == {"attention forward again": 1}
    assert again(QWEN, False, "moe_act") == {
        "swiglu again and backward": 1
    }  # in one launch with its backward
    assert again(QWEN, False, "mla_up_proj", "mlp", "shared_experts") == {}  # it has none of them
    assert again(V3, True, "mlp") == {"up again": 1, "swiglu again": 1, "down again": 1}
    assert again(V3, False, "shared_experts") == {"up again": 1, "swiglu again": 1, "down again": 1}
    latents = again(V3, False, "mla_up_proj")
    assert latents["q up"] == latents["kv up"] == 1
    assert latents["norm"] == 2


def test_none_is_quicker_than_selective_by_two_norms_and_the_swiglu_that_is_written_again() -> None:
    p = processor(load_hardware("h100"), sustained=True)
    seconds = {}
    for name, chosen in (("none", frozenset[str]()), ("selective", SELECTIVE)):
        batch = RankBatch(1, 4096, (1024,) * 32, 4096.0, "bf16", chosen)
        found = layer_times(p, QWEN, batch)
        seconds[name] = found["attn(B)"].total_s + found["mlp(B)"].total_s
    rate = p.hbm_bytes_per_s
    norms = 2 * 2 * 4096 * 4096 * 2 / rate
    swiglu = 32 * 1024 * 1536 * 2 / rate
    longer = seconds["selective"] - seconds["none"]
    assert norms + swiglu <= longer <= norms + swiglu + 2 * 15e-6


def test_nobody_is_credited_for_what_is_computed_again() -> None:
    def flops(chosen: frozenset[str]) -> float:
        phases = layer_phases(V3, RankBatch(1, 4096, (1024,) * 4, 4096.0, "bf16", chosen), layer_idx=60)
        return sum(op.flops for launches in phases.values() for op in launches)

    assert flops(frozenset(MODULES)) == flops(frozenset())


def test_experts_that_are_computed_again_are_dispatched_again_after_their_gate_alone() -> None:
    work = ChunkWork(
        QWEN, Layout(pp=94, ep=32, dp=32), 1, 4096, 7.0, Precision.alike("bf16"), ("moe", "layernorm")
    )
    hardware, kernel = load_hardware("h100"), load_kernel("two_hop")
    asked = {"comm_sms": 20, "generation": "march_2025"}
    cut = stages(QWEN, 94)[1:2]
    (layer,) = stage_times(work, cut, hardware, kernel, **asked)[0].alone  # type: ignore[arg-type]
    names = [node.name for node in backward([layer])]
    assert names[:5] == ["gate(F)", "dispatch(F)", "mlp(F)", "combine(F)", "combine(B)"]
    assert layer.gate_f is not None
    assert 0 < layer.gate_f.mean_s < 0.2 * layer.attn_f.mean_s
    (whole,) = stage_times(work, cut, hardware, kernel, recompute="full", **asked)[0].alone  # type: ignore[arg-type]
    assert backward([whole])[0].name == "attn(F)"


def test_an_unknown_module_is_named_with_the_nearest_one() -> None:
    with pytest.raises(InputError, match=r"'moe_akt'.*moe_act"):
        recomputed(["moe_akt"])
    with pytest.raises(InputError, match="did you mean full"):
        recomputed("ful")


def test_the_core_runs_again_for_as_long_as_it_ran() -> None:
    p = processor(load_hardware("h100"), sustained=True)
    batches = [RankBatch(1, 4096, (1024,) * 4, 4096.0, "bf16", frozenset(x)) for x in ((), ("core_attn",))]
    without, with_ = (layer_times(p, QWEN, batch)["attn(B)"].total_s for batch in batches)
    core = next(op for op in layer_phases(QWEN, batches[0])["attn(F)"] if op.kind == "attention_forward")
    assert with_ - without == pytest.approx(launches_s(p, core))
