"""Programs: blocks on two streams, their dependencies, and the pairing that hides collectives best."""

from __future__ import annotations

import itertools
from collections.abc import Iterator

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sim.schedule import alignment, programs
from sim.schedule.programs import COMBINE, DISPATCH, LayerTimes, PhaseTime, Program, span_s

FREE = {DISPATCH: 0.0, COMBINE: 0.0}
# One MoE layer of DeepSeek-V3 as a profiler saw it beside communication [ms], and its collectives.
V3 = (4.60, 4.64, 9.54, 5.36, 2.40, 5.07)
V3_COLLECTIVES = {DISPATCH: 4.45, COMBINE: 5.99}


def layer(
    number: int = 0, times: tuple[float, ...] = V3, *, communicates: bool = True, again: bool = False
) -> LayerTimes:
    """A layer with the times of attn(F), mlp(F), attn(B), mlp(B), attn(W), mlp(W)."""
    phases = [PhaseTime(time / 2, time / 2) for time in times]
    return LayerTimes(number, communicates, *phases, again=again)


def dense(number: int = 0, time: float = 3.0) -> LayerTimes:
    return layer(number, (time,) * 6, communicates=False)


def names(program: Program, stream: str) -> list[str]:
    return [node.name for node in program if (node.collective is None) == (stream == "compute")]


def test_a_pair_has_the_order_of_figure_4() -> None:
    block = tuple(programs.pair(layer(), layer()).nodes)
    assert names(block, "compute") == ["attn(F)", "mlp(B)", "mlp(W)", "mlp(F)", "attn(B)", "attn(W)"]
    assert names(block, "communication") == ["combine(B)", "dispatch(F)", "dispatch(B)", "combine(F)"]


def test_a_gradient_goes_back_through_the_other_kernel() -> None:
    kernels = {
        node.name: node.collective for node in programs.pair(layer(), layer()).nodes if node.collective
    }
    assert kernels == {
        "dispatch(F)": DISPATCH,
        "combine(F)": COMBINE,
        "combine(B)": DISPATCH,
        "dispatch(B)": COMBINE,
    }


def edges(program: Program) -> Iterator[tuple[tuple[str, int], tuple[str, int]]]:
    for node in program:
        for i in node.waits:
            yield (program[i].name, program[i].layer), (node.name, node.layer)


def test_chains_of_two_layers_follow_the_data() -> None:
    forward = programs.forward([layer(0), layer(1)])
    expected = list(itertools.product((0, 1), ("attn(F)", "dispatch(F)", "mlp(F)", "combine(F)")))
    assert [(node.layer, node.name) for node in forward] == expected
    assert list(edges(forward)) == [((a, i), (b, j)) for (i, a), (j, b) in itertools.pairwise(expected)]
    found = set(edges(programs.backward([layer(0), layer(1)])))
    assert (("attn(B)", 1), ("combine(B)", 0)) in found
    assert (("combine(B)", 0), ("mlp(B)", 0)) in found
    assert (("mlp(B)", 0), ("dispatch(B)", 0)) in found
    assert (("dispatch(B)", 0), ("attn(B)", 0)) in found
    assert (("mlp(B)", 0), ("mlp(W)", 0)) in found
    assert (("attn(B)", 0), ("attn(W)", 0)) in found
    assert not any(start in ("mlp(W)", "attn(W)") for (start, _), _ in found)


def test_a_postponed_weight_part_leaves_the_backward_and_takes_its_compute_with_it() -> None:
    chunk = [layer(0), dense(1), layer(2)]
    whole, input_part, weights = (
        programs.backward(chunk),
        programs.backward(chunk, weights=False),
        programs.weight_gradients(chunk),
    )
    assert not any(node.name.endswith("(W)") for node in input_part)
    assert not any(node.collective for node in weights)
    assert programs.compute_s(input_part) + programs.compute_s(weights) == pytest.approx(
        programs.compute_s(whole)
    )


def test_a_layer_computed_again_costs_its_forward_and_one_dispatch_in_the_backward() -> None:
    once, again = programs.backward([layer()]), programs.backward([layer(again=True)])
    extra = span_s(again, V3_COLLECTIVES) - span_s(once, V3_COLLECTIVES)
    assert extra == pytest.approx(V3[0] + V3[1] + V3_COLLECTIVES[DISPATCH])


layers = st.builds(
    layer,
    number=st.integers(0, 60),
    times=st.tuples(*[st.floats(0.1, 9.0)] * 6),
    communicates=st.booleans(),
    again=st.booleans(),
)
chunks = st.lists(layers, min_size=0, max_size=4).map(tuple)


def all_programs(fs: tuple[LayerTimes, ...], bs: tuple[LayerTimes, ...]) -> list[Program]:
    return [
        programs.forward(fs),
        programs.backward(bs),
        programs.weight_gradients(bs),
        alignment.aligned(fs, bs, V3_COLLECTIVES.__getitem__),
        programs.one_after_another(programs.forward(fs), programs.backward(bs)),
    ]


@given(chunks, chunks)
def test_without_exchange_time_a_program_takes_its_compute(
    fs: tuple[LayerTimes, ...], bs: tuple[LayerTimes, ...]
) -> None:
    for program in all_programs(fs, bs):
        assert span_s(program, FREE) == pytest.approx(programs.compute_s(program))


@given(chunks, chunks)
def test_nodes_wait_for_earlier_ones_of_their_own_half_only(
    fs: tuple[LayerTimes, ...], bs: tuple[LayerTimes, ...]
) -> None:
    for program in all_programs(fs, bs)[:4]:
        for number, node in enumerate(program):
            assert all(i < number and program[i].half == node.half for i in node.waits)


@given(chunks, chunks)
def test_alignment_is_never_worse_than_naive_or_one_after_another_and_leaves_nothing_out(
    fs: tuple[LayerTimes, ...], bs: tuple[LayerTimes, ...]
) -> None:
    best = alignment.aligned(fs, bs, V3_COLLECTIVES.__getitem__)
    together = min(len(fs), len(bs))
    naive = ((True, True),) * together
    naive += ((True, False),) * (len(fs) - together) + ((False, True),) * (len(bs) - together)
    assert span_s(best, V3_COLLECTIVES) <= span_s(programs.paired(fs, bs, naive), V3_COLLECTIVES) + 1e-9
    apart = ((True, False),) * len(fs) + ((False, True),) * len(bs)
    assert span_s(best, V3_COLLECTIVES) <= span_s(programs.paired(fs, bs, apart), V3_COLLECTIVES) + 1e-9
    said = sorted((node.name, node.layer, node.half) for node in best)
    alone = programs.forward(fs) + programs.backward(bs)
    assert said == sorted((node.name, node.layer, node.half) for node in alone)


@pytest.mark.parametrize("of", [layer(), dense()])
def test_a_block_of_one_half_leaves_the_other_half_where_it_was(of: LayerTimes) -> None:
    began = (0.0, 0.0, 3.0, 7.0)  # compute, communication, the ends of both halves
    for pair, mine, other in (((of, None), 2, 3), ((None, of), 3, 2)):
        ended = alignment._Block.from_layers(*pair, V3_COLLECTIVES).after(began)
        assert ended[other] == began[other]
        assert began[mine] < ended[mine] <= max(ended[:2])


def walks(num_f: int, num_b: int) -> Iterator[tuple[tuple[bool, bool], ...]]:
    """Every way through two lists, the plain way."""
    if not num_f and not num_b:
        yield ()
    for f, b in ((1, 1), (1, 0), (0, 1)):
        if f <= num_f and b <= num_b:
            for rest in walks(num_f - f, num_b - b):
                yield ((bool(f), bool(b)), *rest)


@given(
    st.lists(layers, min_size=1, max_size=3).map(tuple), st.lists(layers, min_size=1, max_size=3).map(tuple)
)
def test_alignment_is_the_best_of_all_walks(fs: tuple[LayerTimes, ...], bs: tuple[LayerTimes, ...]) -> None:
    best = span_s(alignment.aligned(fs, bs, V3_COLLECTIVES.__getitem__), V3_COLLECTIVES)
    brute = min(span_s(programs.paired(fs, bs, steps), V3_COLLECTIVES) for steps in walks(len(fs), len(bs)))
    assert best == pytest.approx(brute, abs=1e-12)


def test_a_pair_of_moe_layers_hides_its_exchanges_but_those_at_the_ends() -> None:
    chunk = tuple(layer(i) for i in range(4))
    pair_ms = span_s(alignment.aligned(chunk, chunk, V3_COLLECTIVES.__getitem__), V3_COLLECTIVES)
    compute_ms = 4 * sum(V3)
    # 31.6 ms a layer of compute against 20.9 ms of collectives; the trace showed 129.0 ms for four layers.
    assert compute_ms < pair_ms < compute_ms + V3_COLLECTIVES[DISPATCH] + V3_COLLECTIVES[COMBINE]
    apart = programs.one_after_another(programs.forward(chunk), programs.backward(chunk))
    assert span_s(apart, V3_COLLECTIVES) > 1.3 * pair_ms


def test_long_lists_are_aligned_in_time() -> None:
    fs, bs = tuple(dense(i) for i in range(24)), tuple(layer(i) for i in range(15))
    program = alignment.aligned(fs, bs, V3_COLLECTIVES.__getitem__)
    assert len(program) == len(programs.forward(fs)) + len(programs.backward(bs))


def test_reductions_inside_layers_follow_their_phase_and_are_waited_for() -> None:
    """Time on the compute stream becomes kernels in a chain; what waited for the phase waits for the last of them."""
    phase = programs.PhaseTime(1.0, exposed_s=0.5)
    plain = programs.PhaseTime(1.0)
    block = programs.LayerTimes(0, True, phase, phase, phase, phase, plain, plain)
    whole = programs.backward([block])
    there = programs.reducing(whole, {"attn(B)": ["tp", "cp"], "mlp(B)": ["tp"]})
    order = [node.name for node in there]
    assert order == [
        "combine(B)", "mlp(B)", "tp(B)", "dispatch(B)", "mlp(W)", "attn(B)", "tp(B)", "cp(B)", "attn(W)"
    ]  # fmt: skip
    assert [[order[i] for i in node.waits] for node in there] == [
        [], ["combine(B)"], ["mlp(B)"], ["tp(B)"], ["tp(B)"], ["dispatch(B)"], ["attn(B)"], ["tp(B)"], ["cp(B)"]
    ]  # fmt: skip
    kernels = {"dispatch": 0.25, "combine": 0.25}
    assert programs.span_s(there, kernels | {"tp": 0.5, "cp": 0.0}) == programs.span_s(whole, kernels)
    assert programs.reducing(whole, {}) == whole
