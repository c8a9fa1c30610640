"""Memory of a training run against counts by hand, and the stages and layouts that it follows from."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from functools import partial
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sim.cost.activations import layer_activation_bytes_per_token
from sim.cost.memory import (
    RankMemory,
    fits,
    memory,
    require_fit,
    uniform_ranks_per_token,
)
from sim.cost.recipe import Recipe
from sim.errors import InfeasibleError, InputError
from sim.schedule.pipelines import plan
from sim.schedule.replay import peaks
from sim.validation.published import Row
from sim.validation.schedules import load, rows
from sim.workload.layout import Layout, check, derive
from sim.workload.model import GQA, Model, load_model, parameters, shipped_models, training_flops_per_token
from sim.workload.stages import LayerCosts, Stage, flops_per_token, held_parameters, stage_parameters, stages

V3 = load_model("deepseek-v3")
H800_BYTES = 80e9
FP8_WEIGHT = 1.0 + 4.0 / 128**2  # a byte, and an FP32 scale for each block of 128 x 128


def run(
    model: Model = V3, kind: str = "dualpipe", gpus: int = 2048, microbatches: int = 120, **given_: Any
) -> tuple[RankMemory, ...]:
    """Memory of V3's published layout, with changes."""
    sizes = {key: given_.pop(key) for key in ("pp", "ep", "tp", "dp", "cp") if key in given_}
    layout = derive(gpus, num_experts=model.num_experts, **({"pp": 16, "ep": 64} | sizes))
    pipeline = plan(kind, layout.pp, microbatches)
    cut = stages(model, pipeline.num_stages)
    return memory(
        model, layout, cut, pipeline.stages, partial(peaks, pipeline), **({"ranks_per_token": 7.49} | given_)
    )


@pytest.mark.parametrize("row", list(rows(load("memory")[0])), ids=lambda row: str(row.id))
def test_v3_takes_what_was_counted_by_hand(row: Row) -> None:
    assert row.simulated == pytest.approx(row.published, rel=0.1)


# --- parts --------------------------------------------------------------------------------------------------


def test_states_of_a_middle_rank_are_bytes_per_parameter() -> None:
    row = run()[7]
    count = parameters(V3)
    experts = 8 * 256 / 64 * count.expert  # two stages of four layers, four experts each
    others = 8 * (count.moe_layer - 256 * count.expert)
    assert experts + others == pytest.approx(3.27e9, rel=0.002)
    assert row.weights_bytes == 2 * (experts + others)
    assert row.fp8_copies_bytes == FP8_WEIGHT * (experts + others)
    assert row.gradients_bytes == 4 * (experts + others)
    assert row.optimizer_bytes == 8 * (others / 128 + experts / 2)
    whole = row.states_bytes + row.activations_bytes + row.buffers_bytes
    assert row.total_bytes == pytest.approx(whole, rel=1e-12)


def test_buffers_hold_both_halves_of_a_pair_both_boundaries_of_a_rank_and_the_rings() -> None:
    """Results of experts of a forward and a backward; a boundary tensor in and out, of activations and of gradients."""
    token = 2 * 7168.0  # BF16
    rings = 10 * (8 * 288 + 2 * 8 * 128) * token
    assert run()[7].buffers_bytes == pytest.approx(4096 * token * (2 * 7.49 + 2 * 2) + rings)
    assert run(kind="1f1b", pp=1, gpus=64)[0].buffers_bytes == pytest.approx(4096 * token * 2 * 7.49 + rings)


def test_context_parallel_ranks_share_the_states_of_all_but_experts() -> None:
    row = run(cp=2)[7]
    count = parameters(V3)
    others = 8 * (count.moe_layer - 256 * count.expert)
    assert row.optimizer_bytes == pytest.approx(8 * (others / 128 + 8 * 4 * count.expert / 2))


def test_a_token_keeps_about_150_kilobytes_in_an_expert_layer() -> None:
    kept = layer_activation_bytes_per_token(V3, V3.layer(60), 7.49, Recipe())
    by_hand = 2 * 14336 + 2 * (1536 + 512 + 64) + 1.5 * 16384 + 512 + 7.49 * 7392 + 9 * 4096 * 1.03125
    assert kept == pytest.approx(by_hand)
    assert kept == pytest.approx(150e3, rel=0.02)


def test_what_a_token_keeps_without_recomputation_counted_by_hand() -> None:
    """Grouped heads keep queries, keys and values; the norms' outputs and SwiGLU's output are kept where nothing is computed again."""
    model = load_model(
        "mixtral-8x7b"
    )  # 4096 wide, 32 heads and 8 of keys and of values of 128, two experts of 14336
    attention = 2 * (32 + 2 * 8) * 128 + 2 * 32 * 128 + 4 * 32
    selective = 2 * 2 * 4096 + attention + 2 * 2 * 14336 * 2 + 1.75 * 4096 * 2
    kept = [
        layer_activation_bytes_per_token(
            model, model.layer(0), 1.75, Recipe(compute="bf16", recompute=recompute)
        )
        for recompute in ("selective", "none")
    ]
    assert kept == pytest.approx([selective, selective + 2 * 2 * 4096 + 2 * 14336 * 2])


def test_activations_of_a_middle_rank_are_17_chunks_of_four_layers() -> None:
    kept = layer_activation_bytes_per_token(V3, V3.layer(60), 7.49, Recipe())
    assert run()[7].activations_bytes == pytest.approx(17 * 4 * 4096 * kept)


def test_dualpipe_holds_every_parameter_twice() -> None:
    twice, once = run(), run(kind="1f1b")
    layers = [sum(row.fp8_copies_bytes for row in rows_) for rows_ in (twice, once)]
    assert layers[0] == pytest.approx(2 * layers[1])


def test_the_head_and_the_embedding_of_v3_stand_on_the_outer_ranks() -> None:
    row, middle = run()[0], run()[7]
    tables = 2 * V3.vocab * V3.hidden
    assert row.weights_bytes - row.fp8_copies_bytes * 2 / FP8_WEIGHT == pytest.approx(2 * tables)
    assert middle.weights_bytes == 2 * middle.fp8_copies_bytes / FP8_WEIGHT
    # In 1F1B the last rank has no first stage, and keeps the table that the MTP module reads.
    last = run(kind="1f1b")[15]
    assert last.weights_bytes - 2 * last.fp8_copies_bytes / FP8_WEIGHT == pytest.approx(2 * tables)


def test_zero_1_cuts_the_optimizer_only() -> None:
    few, many = run(gpus=1024)[7], run(gpus=4096)[7]
    assert many.optimizer_bytes < few.optimizer_bytes
    assert many.weights_bytes == few.weights_bytes
    assert many.gradients_bytes == few.gradients_bytes


def test_tensor_parallelism_cuts_all_but_the_experts() -> None:
    one, two = run(ep=64)[7], run(ep=64, tp=2)[7]
    experts = 2 * 8 * 4 * parameters(V3).expert
    assert two.weights_bytes - experts == pytest.approx((one.weights_bytes - experts) / 2)
    assert two.activations_bytes == pytest.approx(one.activations_bytes / 2)


def test_recomputing_more_keeps_less() -> None:
    total = [run(recipe=Recipe(recompute=kind))[7] for kind in ("none", "selective", "full")]
    assert total[0].activations_bytes > total[1].activations_bytes > total[2].activations_bytes
    assert total[2].activations_bytes == pytest.approx(17 * 4 * 4096 * 2 * 7168)


def test_bf16_has_no_copies_and_larger_activations() -> None:
    fp8, bf16 = run()[7], run(recipe=Recipe(compute="bf16"))[7]
    assert bf16.fp8_copies_bytes == 0
    assert bf16.activations_bytes > 1.3 * fp8.activations_bytes


@given(tokens=st.sampled_from((1024, 2048, 8192)))
def test_activations_follow_the_tokens(tokens: int) -> None:
    assert run(tokens_per_microbatch=tokens)[3].activations_bytes == pytest.approx(
        run()[3].activations_bytes * tokens / 4096
    )


@given(ep=st.sampled_from((1, 2, 8, 64, 256)))
def test_uniform_reach_is_that_of_independent_draws_without_repetition(ep: int) -> None:
    reach = uniform_ranks_per_token(V3, ep)
    assert min(1.0, ep) <= reach <= min(8, ep)
    if ep == 256:
        assert reach == pytest.approx(8)


def test_an_overflow_names_the_rank_and_its_biggest_parts() -> None:
    assert fits(run(), H800_BYTES)
    whole = run(recipe=Recipe(recompute="none"))
    with pytest.raises(
        InfeasibleError, match=r"pipeline rank \d+ needs 1\d\d GB of the 80 GB of h800: activations \d+"
    ):
        require_fit(whole, H800_BYTES, "h800")
    require_fit(run(), H800_BYTES, "h800")


def test_an_unknown_recipe_is_refused() -> None:
    with pytest.raises(InputError, match="did you mean selective"):
        run(recipe=Recipe(recompute="selectiv"))


# --- stages -------------------------------------------------------------------------------------------------


def test_v3_on_16_stages_is_cut_by_its_cost() -> None:
    first, *middle, last = stages(V3, 16)
    assert str(first) == "embedding + 3 dense + 1 MoE"
    assert {str(stage) for stage in middle} == {"4 MoE"}
    assert str(last) == "1 MoE + head + 1 MTP"
    assert last.num_head_passes == 2
    assert last.num_expert_layers == 2


@pytest.mark.parametrize("name", shipped_models())
@pytest.mark.parametrize("num_stages", [1, 2, 5, 16])
def test_stages_hold_every_layer_and_parameter_once(name: str, num_stages: int) -> None:
    model = load_model(name)
    cut = stages(model, num_stages)
    assert [layer for stage in cut for layer in stage.layers] == list(range(model.num_layers))
    count = parameters(model)
    each = [dataclasses.astuple(stage_parameters(model, stage)) for stage in cut]
    assert sum(map(sum, each)) == count.total + count.mtp
    assert [stage.embedding for stage in cut] == [True] + [False] * (num_stages - 1)
    assert [stage.head for stage in cut] == [False] * (num_stages - 1) + [True]


def heaviest(model: Model, cut: Sequence[Stage], costs: LayerCosts) -> float:
    tail = costs.head + model.num_mtp_layers * costs.mtp
    return max(sum(costs.layers[i] for i in s.layers) + (tail if s.head else 0) for s in cut)


@given(
    num_layers=st.integers(3, 9), num_stages=st.integers(2, 3), head=st.floats(0, 5), dense=st.integers(0, 2)
)
def test_no_other_cut_has_a_cheaper_costliest_stage(
    num_layers: int, num_stages: int, head: float, dense: int
) -> None:
    model = dataclasses.replace(V3, num_layers=num_layers, num_dense_layers=dense, num_mtp_layers=0)
    costs = LayerCosts((0.5,) * dense + (1.0,) * (num_layers - dense), head=head, mtp=0.0)
    ours = heaviest(model, stages(model, num_stages, costs=costs), costs)
    for a in range(1, num_layers):
        for b in range(1, num_layers - a + 1) if num_stages == 3 else (num_layers - a,):
            numbers = [a, b, num_layers - a - b][:num_stages]
            assert ours <= heaviest(model, stages(model, num_stages, num_layers=numbers), costs) * (1 + 1e-9)


def test_layers_of_each_stage_may_be_given() -> None:
    cut = stages(V3, 16, num_layers=[3] + [4] * 14 + [2])
    assert str(cut[0]) == "embedding + 3 dense"
    with pytest.raises(InputError, match="add up to the 61 layers"):
        stages(V3, 16, num_layers=[4] * 16)


def test_more_stages_than_layers_are_impossible() -> None:
    with pytest.raises(
        InfeasibleError, match="62 pipeline stages are more than the 61 layers of deepseek-v3"
    ):
        stages(V3, 62)
    assert len(stages(V3, 61)) == 61


def test_flops_of_the_layers_add_up_to_those_of_the_model() -> None:
    cost = flops_per_token(V3)
    forward = sum(cost.layers) + cost.head
    assert 3 * forward == pytest.approx(training_flops_per_token(V3, 4096, causal=True), rel=1e-3)


def test_a_rank_with_first_and_last_stage_keeps_one_table_of_embeddings() -> None:
    tied = dataclasses.replace(V3, tied_embeddings=True, num_mtp_layers=0)
    cut = stages(tied, 4)
    assert held_parameters(tied, [cut[0], cut[3]]).embedding == V3.vocab * V3.hidden
    assert held_parameters(tied, [cut[3]]).embedding == V3.vocab * V3.hidden
    assert held_parameters(tied, [cut[1], cut[2]]).embedding == 0


# --- layouts ------------------------------------------------------------------------------------------------


def test_v3s_layout_is_derived_from_two_sizes() -> None:
    layout = derive(2048, pp=16, ep=64)
    assert layout == Layout(pp=16, ep=64, tp=1, dp=128, cp=1)
    assert layout.expert_dp == 2
    assert layout.num_ranks == 2048
    assert str(layout) == "PP16 EP64 TP1 DP128 CP1"
    assert derive(2048, dp=128, ep=64) == layout
    assert derive(2048, pp=16, num_experts=256).ep == 128
    assert derive(96, num_experts=256).ep == 32
    check(layout, V3, sequence_tokens=4096)


sizes = st.sampled_from((1, 2, 4))
GROUPS = ("pp", "dp", "cp", "tp", "ep", "expert_dp")


@pytest.mark.slow
@given(pp=sizes, tp=sizes, dp=sizes, cp=sizes, ep=sizes)
def test_coordinates_and_groups_agree(pp: int, tp: int, dp: int, cp: int, ep: int) -> None:
    ep = min(ep, tp * dp * cp)
    layout = Layout(pp, ep, tp, dp, cp)
    for rank in range(layout.num_ranks):
        at = layout.coordinates(rank)
        assert layout.rank(at.pp, at.dp, at.cp, at.tp) == rank
        groups = {name: next(g for g in layout.groups(name) if rank in g) for name in GROUPS}
        assert (
            groups["tp"][at.tp] == groups["cp"][at.cp] == groups["dp"][at.dp] == groups["pp"][at.pp] == rank
        )
        assert groups["ep"][at.ep] == groups["expert_dp"][at.expert_dp] == rank
        for name, group in groups.items():  # they differ in that coordinate alone
            attention = {"pp", "dp", "cp", "tp"} if name in ("dp", "cp", "tp") else {"pp", "ep", "expert_dp"}
            for other in (attention | {"pp"}) - {name}:
                assert len({getattr(layout.coordinates(int(r)), other) for r in group}) == 1


def test_a_rank_is_in_one_group_of_each_dimension() -> None:
    layout = Layout(pp=2, ep=4, tp=2, dp=2, cp=2)
    for name in (*GROUPS, "world"):
        assert sorted(layout.groups(name).ravel().tolist()) == list(range(16))
    assert layout.groups("world").tolist() == [list(range(16))]
    assert Layout(ep=2, etp=2, dp=8).groups("ep").tolist() == [[0, 2], [1, 3], [4, 6], [5, 7]]
    assert Layout(tp=4, etp=4, dp=2).groups("etp").tolist() == [[0, 1, 2, 3], [4, 5, 6, 7]]
    with pytest.raises(InputError, match="did you mean expert_dp"):
        layout.groups("expertdp")


def test_tensor_parallel_ranks_and_ep_groups_share_nodes() -> None:
    layout = derive(2048, pp=16, ep=64, tp=4)
    nodes = {name: layout.groups(name) // 8 for name in ("tp", "ep", "pp")}
    assert {len(set(group)) for group in nodes["tp"].tolist()} == {1}
    assert {len(set(group)) for group in nodes["ep"].tolist()} == {8}
    assert {len(set(group)) for group in (layout.groups("pp") % 8).tolist()} == {1}  # one rail


def test_experts_are_split_by_tp_where_ep_is_given_as_1() -> None:
    assert derive(16, ep=1, tp=8).etp == 8
    assert derive(16, ep=1, tp=8).expert_dp == 2
    assert derive(16, ep=1, tp=8, etp=1).expert_dp == 16
    assert derive(16, ep=8, tp=8).etp == derive(16, tp=8).etp == 1
    assert [derive(16, ep=ep, tp=8, etp=etp).expert_dp for ep, etp in ((1, 2), (4, 2), (8, 2))] == [8, 2, 1]
    with pytest.raises(InfeasibleError, match="EP8 x ETP4 does not divide the 16 ranks"):
        derive(16, ep=8, tp=8, etp=4)
    with pytest.raises(InfeasibleError, match="ETP3 does not divide the inner width 14336 of the experts"):
        check(Layout(etp=3), load_model("mixtral-8x7b"))


@pytest.mark.parametrize(
    ("given_", "reason"),
    [
        ({"pp": 16, "dp": 100}, "PP16 x TP1 x CP1 x DP100 takes 1600 GPUs; there are 2048"),
        ({"pp": 15}, "PP15 x TP1 x CP1 = 15 does not divide the 2048 GPUs"),
        ({"dp": 3}, "DP3 x TP1 x CP1 = 3 does not divide the 2048 GPUs"),
        (
            {"pp": 16, "ep": 96},
            r"EP96 does not divide the 128 ranks of a pipeline stage \(TP1 x CP1 x DP128\)",
        ),
    ],
)
def test_a_layout_that_does_not_multiply_says_why(given_: dict[str, int], reason: str) -> None:
    with pytest.raises(InfeasibleError, match=reason):
        derive(2048, **given_)


def test_sizes_below_one_are_bad_input_all_at_once() -> None:
    with pytest.raises(InputError) as caught:
        derive(2048, pp=0, ep=-1, tp=True)
    assert {problem.key for problem in caught.value.problems} == {"layout.pp", "layout.ep", "layout.tp"}


def test_a_model_that_a_layout_cannot_hold_gets_every_reason() -> None:
    with pytest.raises(InfeasibleError) as caught:
        check(Layout(pp=64, ep=3, tp=3, dp=1, cp=5), V3, sequence_tokens=4096)
    for reason in (
        "EP3 does not divide the 256 experts",
        "64 pipeline stages",
        "128 attention heads",
        "CP5",
        "width 2048",
    ):
        assert reason in str(caught.value)


def test_key_value_heads_are_divided_or_repeated() -> None:
    mixtral = load_model("mixtral-8x7b")
    check(Layout(tp=16), mixtral)
    odd = dataclasses.replace(mixtral, attention=GQA(num_heads=48, num_kv_heads=12, head_dim=128))
    with pytest.raises(InfeasibleError, match="TP16 neither divides nor repeats the 12 key-value heads"):
        check(Layout(tp=16), odd)
