"""CP in deployments: ranks that split a prompt gather its keys and values; ranks that split caches exchange queries and results."""

from __future__ import annotations

from typing import Any

import pytest
import yaml

from sim.cluster.hardware import load_hardware
from sim.cluster.kernels import load_kernel
from sim.documents import Document
from sim.errors import DoesNotFitError, InputError
from sim.runs.run import run_document
from sim.schedule.reductions import Links, scatter_s

LINKS = Links.achieved(load_hardware("h100"), load_kernel("nccl"))
LONG, CONTEXT = 32768, 131072
ROOMY = {"gpu.hbm.capacity": "400 GB"}


def run(model: str, layout: dict[str, int], override: dict[str, str] = ROOMY, **work: Any) -> dict[str, Any]:
    """A pass on one node."""
    kind = "prefill" if "prompt_tokens" in work else "decode"
    tree = {
        "name": "mine", "cluster": {"hardware": "h100", "nodes": 1, "override": override}, "model": model,
        "layout": {"ep": 8, **layout},
        "workload": {
            "kind": kind, "overlap": False, "gate": {"kind": "uniform", "sampling": "expected"},
            "kernel": {"kind": "two_hop" if kind == "prefill" else "low_latency"},
            "skew": {"kernel_jitter": 0, "gpu_spread": 0}, **work,
        },
    }  # fmt: skip
    return run_document(Document(yaml.safe_load(yaml.safe_dump(tree)), "test"))


def launch(result: dict[str, Any], name: str) -> dict[str, Any]:
    """A launch of a layer with experts."""
    return next(row for row in result["kernels"] if row["name"] == name)


def test_a_lone_long_prompt_takes_half_of_its_attention_on_two_ranks_and_a_gather_of_keys_and_values() -> (
    None
):
    """Qwen3-235B: 94 layers of 4 KV heads of 128, keys and values in BF16; half of them come from the other rank."""
    one, two, eight = (run("qwen3-235b-a22b", {"cp": cp}, prompts=1, prompt_tokens=LONG) for cp in (1, 2, 8))
    assert two["where"]["attention"] == pytest.approx(one["where"]["attention"] / 2, rel=0.01)
    layer = LINKS.latency_s + LONG * 2 * 4 * 128 * 2 / 2 / LINKS.scale_up_bytes_per_s
    assert one["where"]["reductions"] == 0.0
    assert two["where"]["reductions"] == pytest.approx(94 * layer)
    assert two["metrics"]["exposed_comm_s"] - one["metrics"]["exposed_comm_s"] == pytest.approx(94 * layer)
    times = [result["metrics"]["ttft_s"] for result in (one, two, eight)]
    # Experts and all-to-alls of its tokens are shared by all eight GPUs either way.
    shared = one["where"]["experts"] + one["where"]["waits"]
    assert times[1] - shared == pytest.approx((times[0] - shared) / 2, rel=0.02)
    assert times[2] - shared == pytest.approx((times[0] - shared) / 8, rel=0.08)
    for result in (one, two, eight):
        assert 0.3 < result["metrics"]["lower_bound_s"] / result["metrics"]["ttft_s"] < 1.0


def test_a_ring_hides_keys_and_values_behind_the_core_and_shows_the_rest_of_slow_links() -> None:
    """Qwen3-235B at CP8: seven steps of an eighth of 4 KV heads of 128, each next to an eighth of the core."""
    work = {"prompts": 1, "prompt_tokens": LONG, "cp_comm": "p2p"}
    hidden = run("qwen3-235b-a22b", {"cp": 8}, **work)
    shown = run("qwen3-235b-a22b", {"cp": 8}, ROOMY | {"gpu.scale_up.bandwidth": "4 GB/s"}, **work)
    core_s, part = launch(shown, "attention core")["time_s"], LINKS.scale_up_bytes_per_s / 450e9
    step_s = LINKS.latency_s + LONG / 8 * 2 * 4 * 128 * 2 / (part * 4e9)
    assert hidden["where"]["reductions"] == 0.0
    assert step_s > core_s / 8
    assert shown["where"]["reductions"] == pytest.approx(94 * 7 * (step_s - core_s / 8), rel=1e-6)


def test_a_ring_adds_up_the_results_of_its_blocks() -> None:
    """Seven times, of 64 heads of 128: read twice and written, three quarters of the rows on average."""
    gathered, passed = (
        run("qwen3-235b-a22b", {"cp": 8}, prompts=1, prompt_tokens=LONG, cp_comm=way)
        for way in ("all_gather", "p2p")
    )
    added = launch(passed, "add up blocks")
    assert added["bytes"] == pytest.approx(7 * 0.75 * 3 * LONG / 8 * 64 * 128 * 2)
    more = passed["metrics"]["ttft_s"] - gathered["metrics"]["ttft_s"]
    assert more == pytest.approx(94 * added["time_s"] - gathered["where"]["reductions"], rel=1e-6)


def test_cores_that_do_not_see_all_keys_have_no_ring() -> None:
    with pytest.raises(
        InputError, match="wanted all_gather: gpt-oss-120b has layers whose cores do not see all keys"
    ):
        run("gpt-oss-120b", {"cp": 8}, prompts=1, prompt_tokens=LONG, cp_comm="p2p")


def test_a_prompt_with_every_gpu_leaves_cp_nothing_to_win() -> None:
    """Each of two ranks has half of two prompts instead of one: as many queries and keys, and the gather on top."""
    one, two = (run("qwen3-235b-a22b", {"cp": cp}, prompts_per_gpu=1, prompt_tokens=4096) for cp in (1, 2))
    assert two["where"]["attention"] == pytest.approx(one["where"]["attention"])
    layer = LINKS.latency_s + 2 * 4096 * 2 * 4 * 128 * 2 / 2 / LINKS.scale_up_bytes_per_s
    assert two["metrics"]["ttft_s"] - one["metrics"]["ttft_s"] == pytest.approx(94 * layer, rel=1e-6)
    assert two["memory"][0]["cache"] == one["memory"][0]["cache"]


def test_every_rank_projects_the_latents_that_it_gathered() -> None:
    """MLA gathers 576 elements a token, not 128 heads of keys and values; three of four parts of a prompt are of others."""
    found = run("deepseek-v3", {"cp": 4}, prompts=2, prompt_tokens=LONG)
    projected = launch(found, "kv up, cached")
    assert projected["flops"] == pytest.approx(2 * LONG * 3 / 4 * 512 * 128 * (128 + 128))
    layer = LINKS.latency_s + LONG * 576 * 2 * 3 / 4 / LINKS.scale_up_bytes_per_s
    assert found["where"]["reductions"] == pytest.approx(61 * layer)
    with pytest.raises(StopIteration):
        launch(run("deepseek-v3", {}, prompts=8, prompt_tokens=LONG), "kv up, cached")


def test_a_later_chunk_gathers_what_the_chunks_before_it_left_on_other_ranks() -> None:
    whole, halves = (
        run("qwen3-235b-a22b", {"cp": 8}, prompts=1, prompt_tokens=LONG, **chunks)["where"]["reductions"]
        for chunks in ({}, {"chunk_tokens": LONG // 2})
    )
    of_all = LONG * 2 * 4 * 128 * 2 * 7 / 8 / LINKS.scale_up_bytes_per_s
    assert whole == pytest.approx(94 * (LINKS.latency_s + of_all))
    assert halves == pytest.approx(94 * (2 * LINKS.latency_s + of_all * 1.5))


def test_a_lone_request_reads_its_cache_in_parts_and_sends_queries_and_results() -> None:
    """128 heads of a token to 8 ranks and back: 576 elements a query, 512 and an FP32 sum a result; 61 layers."""
    one, eight = (run("deepseek-v3", {"cp": cp}, requests=1, context_tokens=CONTEXT) for cp in (1, 8))
    assert launch(one, "attention core")["bytes"] == pytest.approx(CONTEXT * 576 * 2, rel=0.01)
    assert launch(eight, "attention core")["bytes"] == pytest.approx(CONTEXT / 8 * 576 * 2, rel=0.15)
    rows = 8 * 128
    layer = scatter_s(LINKS, rows * 576 * 2, 8) + scatter_s(LINKS, rows * (512 * 2 + 4), 8)
    assert eight["where"]["reductions"] == pytest.approx(61 * layer)
    assert eight["metrics"]["tpot_s"] < one["metrics"]["tpot_s"]
    assert eight["metrics"]["lower_bound_s"] < eight["metrics"]["tpot_s"]


def test_a_batch_reads_as_much_cache_on_each_rank_however_it_is_cut() -> None:
    one, eight = (run("deepseek-v3", {"cp": cp}, requests_per_gpu=8, context_tokens=8192) for cp in (1, 8))
    cores = [launch(result, "attention core") for result in (one, eight)]
    assert cores[0]["flops"] == pytest.approx(cores[1]["flops"])
    assert cores[1]["bytes"] > cores[0]["bytes"]  # the same caches, and eight times the queries
    assert [result["memory"][0]["cache"] for result in (one, eight)] == [8 * 8192 * 576 * 2 * 61] * 2


def test_a_request_that_fits_on_no_gpu_fits_on_the_ranks_that_share_it() -> None:
    """A million tokens of Qwen3-235B take 192.5 kB each: 202 GB, of which a rank of eight has 25."""
    with pytest.raises(DoesNotFitError):
        run("qwen3-235b-a22b", {}, {}, requests=1, context_tokens=2**20)
    held = run("qwen3-235b-a22b", {"cp": 8}, {}, requests=1, context_tokens=2**20)["memory"][0]
    assert held["cache"] == pytest.approx(2**20 * 192512 / 8)


@pytest.mark.parametrize(
    "work", [{"prompts_per_gpu": 2, "prompt_tokens": 2048}, {"requests": 8, "context_tokens": 2048}]
)
def test_cp_of_1_is_the_layout_without_it(work: dict[str, int]) -> None:
    named, left_out = (run("deepseek-v3", {"tp": 2, **cp}, **work) for cp in ({"cp": 1}, {}))
    assert named["metrics"] == left_out["metrics"]


def test_as_many_prompts_in_all_as_with_every_gpu_take_as_long() -> None:
    each, together = (
        run("deepseek-v3", {}, prompt_tokens=2048, **asked)["metrics"]
        for asked in ({"prompts_per_gpu": 2}, {"prompts": 16})
    )
    assert together == each


@pytest.mark.parametrize("chunk", [LONG, LONG // 8])
def test_a_served_prompt_waits_for_all_ranks_that_split_it_as_a_prefill_does(chunk: int) -> None:
    """A chunk of serving is one of all ranks; what earlier ones left on others is gathered again."""
    lengths = {"prompt": {"kind": "fixed", "mean": LONG}, "output": {"kind": "fixed", "mean": 2}}
    plan = {
        "overlap": False, "gate": {"kind": "uniform", "sampling": "expected"},
        "skew": {"kernel_jitter": 0, "gpu_spread": 0},
    }  # fmt: skip
    tree = {
        "name": "mine", "cluster": {"hardware": "h100", "nodes": 2, "override": ROOMY}, "model": "qwen3-235b-a22b",
        "workload": {
            "kind": "serving", "arrivals": {"kind": "poisson", "requests": 1, "requests_per_s": 0.01, **lengths},
            "prefill": {"layout": {"ep": 8, "cp": 8}, "plan": {**plan, "kernel": {"kind": "two_hop"}}},
            "decode": {"layout": {"ep": 8}, "requests_per_gpu": 1, "plan": {**plan, "kernel": {"kind": "low_latency"}}},
            "engine": {"chunk_tokens": chunk // 8},
        },
    }  # fmt: skip
    served = run_document(Document(yaml.safe_load(yaml.safe_dump(tree)), "test"))["metrics"]["ttft"]["p50_s"]
    alone = run("qwen3-235b-a22b", {"cp": 8}, prompts=1, prompt_tokens=LONG, chunk_tokens=chunk)["metrics"][
        "ttft_s"
    ]
    assert served == pytest.approx(alone, rel=0.05)
