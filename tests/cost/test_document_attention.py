"""Attention of packed documents: as many blocks as those of each, and of equal ones that of shorter sequences."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from sim.cluster.hardware import load_hardware
from sim.cost.attention import attention_forward_s
from sim.cost.compute import processor
from sim.cost.document_attention import documents_attention_s
from sim.cost.launches import RankBatch
from sim.cost.layers import layer_phases, layer_times
from sim.cost.work import launch_work
from sim.workload.model import load_model
from sim.workload.packing import Documents, packed
from sim.workload.shape import firsts

P = processor(load_hardware("h100"), sustained=True)


def documents(lengths: list[int], sequence_tokens: int, sequences: int = 1) -> Documents:
    return packed(
        np.array(lengths),
        ranks=1,
        microbatches=1,
        sequences=sequences,
        sequence_tokens=sequence_tokens,
        fit="cut",
        balance="none",
        rng=np.random.default_rng(0),
    ).documents()


def test_a_core_of_two_documents_visits_the_blocks_of_both() -> None:
    """Of 1,024 and 3,072 tokens: 8 x 9 / 2 + 24 x 25 / 2 = 336 blocks a head, of 528 in one sequence; half of the longest row of 24 is exposed."""
    one, two = 1024, 3072
    known = documents_attention_s(
        P, documents([one, two], 4096), 32, 128, 128, backward=False, context_tokens=4096.0
    )
    alone = [attention_forward_s(P, 1, tokens, 32, 128, 128) for tokens in (one, two)]
    launch_s = P.curves.streaming.launch_s
    block_s = (alone[1] - launch_s) / (300 * 32 / P.sms + 12)
    assert known.ravel() == pytest.approx([launch_s + (336 * 32 / P.sms + 12) * block_s])
    assert known.ravel() == pytest.approx([sum(alone) - launch_s - 4 * block_s])


KINDS = ["llama-3.1-8b", "deepseek-v3", "deepseek-v3.2", "gpt-oss-20b", "llama4-scout", "qwen3-next-80b-a3b"]


@pytest.mark.parametrize("name", KINDS)
def test_equal_documents_cost_what_shorter_sequences_cost(name: str) -> None:
    """In every phase of every layer: latents, windows, chunks, an indexer, states."""
    model = load_model(name)
    long = RankBatch(2, 16384, (4096,) * 4, 16384.0, precision="bf16", documents=documents([4096], 16384, 2))
    short = replace(long, sequences=8, sequence_tokens=4096, documents=None)
    for layer in sorted(set(firsts(model))):
        found, wanted = (layer_times(P, model, batch, layer_idx=layer) for batch in (long, short))
        for phase, time in wanted.items():
            assert np.mean(found[phase].total_s) == pytest.approx(time.total_s, rel=1e-12), (layer, phase)
        work = [
            [launch_work(P, op) for op in layer_phases(model, batch, layer_idx=layer)["attn(F)"]]
            for batch in (long, short)
        ]
        for own, other in zip(*work, strict=True):
            assert (own.flops, own.time_s) == pytest.approx((other.flops, other.time_s), rel=1e-12)


@pytest.mark.parametrize("name", KINDS)
def test_attention_within_documents_costs_no_more_than_across_them(name: str) -> None:
    model = load_model(name)
    whole = RankBatch(1, 16384, (4096,) * 4, 16384.0, precision="bf16")
    parts = replace(whole, documents=documents([384, 6912, 9088], 16384))
    for layer in sorted(set(firsts(model))):
        found, most = (layer_times(P, model, batch, layer_idx=layer) for batch in (parts, whole))
        for phase, time in most.items():
            assert np.mean(found[phase].total_s) <= time.total_s * (1 + 1e-12)
