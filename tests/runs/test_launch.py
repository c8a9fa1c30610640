"""One launch as a workload: counts by hand, laws of its bound, published kernels, and bad shapes."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

import sim
from sim.cluster.hardware import list_hardware
from sim.errors import InputError

HEADER = "name: one\ncluster: {hardware: h800, nodes: 1}\n"


def launch(folder: Path, workload: str, *settings: str) -> dict[str, Any]:
    file = folder / "one.yaml"
    file.write_text(HEADER + f"workload: {{kind: launch, {workload}}}\n")
    metrics: dict[str, Any] = sim.run(file, settings=settings)["metrics"]
    return metrics


def refused(folder: Path, workload: str, *settings: str) -> str:
    with pytest.raises(InputError) as caught:
        launch(folder, workload, *settings)
    return "\n".join(map(str, caught.value.problems))


def test_flops_and_bytes_are_those_counted_by_hand(tmp_path: Path) -> None:
    gemm = launch(tmp_path, "op: gemm, m: 512, n: 1024, k: 2048")
    assert gemm["flops"] == 2 * 512 * 1024 * 2048
    assert gemm["bytes"] == 2 * (512 * 2048 + 1024 * 2048 + 512 * 1024)
    grouped = launch(tmp_path, "op: grouped_gemm, experts: 4, m: 512, n: 1024, k: 2048")
    assert (grouped["flops"], grouped["bytes"]) == (4 * gemm["flops"], 4 * gemm["bytes"])
    copy = launch(tmp_path, "op: copy, bytes: 1 MB")
    assert (copy["flops"], copy["bytes"]) == (0, 2e6)
    # Two products of width 128 over the causal half of 1,000 x 1,000 scores, eight heads, two sequences.
    attention = launch(tmp_path, "op: attention, m: 1000, n: 128, k: 128, heads: 8, sequences: 2")
    assert attention["flops"] == 2 * 8 * (2 * 2 * 128) * 1000 * 1000 / 2
    assert attention["bytes"] == 2 * (2 * 1000) * 4 * 8 * 128
    # After 3,000 tokens in the cache each of the last 1,000 queries scores those, and half of its own.
    later = launch(
        tmp_path, "op: attention, m: 1000, n: 128, k: 128, heads: 8, sequences: 2, context_tokens: 4000"
    )
    assert later["flops"] / attention["flops"] == pytest.approx((3000 + 500) / 500)
    # A query of each of 64 heads against 4,096 keys and values of eight, of 64 sequences, in BF16.
    decode = launch(
        tmp_path,
        "op: attention, m: 1, n: 128, k: 128, heads: 64, kv_heads: 8, sequences: 64, context_tokens: 4096, direction: decode",
    )
    assert decode["flops"] == 64 * 64 * (2 * 2 * 128) * 4096
    assert decode["bytes"] == pytest.approx(64 * 8 * 4096 * 2 * 128 * 2, rel=0.01)


@pytest.mark.parametrize("hardware", list_hardware())
@pytest.mark.parametrize(
    "workload",
    [
        "op: gemm, m: 4096, n: 4096, k: 7168",
        "op: gemm, m: 1, n: 4096, k: 7168",
        "op: gemm, m: 4096, n: 4096, k: 7168, direction: weight",
        "op: grouped_gemm, experts: 8, m: 64, n: 4096, k: 7168, rows: masked",
        "op: attention, m: 4096, n: 128, k: 192, heads: 128",
        "op: attention, m: 4096, n: 128, k: 128, heads: 32, kv_heads: 8, direction: backward",
        "op: attention, m: 1, n: 128, k: 128, heads: 64, kv_heads: 8, sequences: 64, context_tokens: 4096, direction: decode",
        "op: attention, m: 2, n: 512, k: 576, heads: 128, kv_heads: 1, sequences: 64, context_tokens: 4096, direction: decode",
        "op: copy, bytes: 1 GB",
    ],
)
def test_no_launch_is_faster_than_its_bound(hardware: str, workload: str, tmp_path: Path) -> None:
    metrics = launch(tmp_path, workload, f"cluster.hardware={hardware}")
    assert metrics["time_s"] >= metrics["lower_bound_s"] > 0


def test_what_binds_is_what_the_bound_is_made_of(tmp_path: Path) -> None:
    assert launch(tmp_path, "op: gemm, m: 4096, n: 4096, k: 7168")["binding"] == "compute"
    assert launch(tmp_path, "op: gemm, m: 16, n: 7168, k: 16384")["binding"] == "hbm"
    assert launch(tmp_path, "op: copy, bytes: 4 KB")["binding"] == "latency"
    copy = launch(tmp_path, "op: copy, bytes: 1 GB")
    assert copy["lower_bound_s"] == pytest.approx(2e9 / 3350e9)  # the H800's HBM3


def test_the_link_that_export_rules_cut_changes_no_launch(tmp_path: Path) -> None:
    for workload in ("op: gemm, m: 4096, n: 4096, k: 7168, dtype: fp8", "op: copy, bytes: 1 GB"):
        assert launch(tmp_path, workload) == launch(tmp_path, workload, "cluster.hardware=h100")


def test_fewer_sms_take_longer_and_a_long_load_slows_the_clock(tmp_path: Path) -> None:
    gemm = "op: gemm, m: 4096, n: 4096, k: 7168"
    whole = launch(tmp_path, gemm)["time_s"]
    assert launch(tmp_path, f"{gemm}, sms: 66")["time_s"] == pytest.approx(2 * whole, rel=0.1)
    assert launch(tmp_path, f"{gemm}, clock: sustained")["time_s"] > 1.05 * whole


def test_deepgemms_table_is_met_to_8_percent(tmp_path: Path) -> None:
    # deepseek-ai/DeepGEMM, README: M 4096, N 7168, K 16384 at 1,358 to 1,426 TFLOPS; 4 x 8,192 rows at 1,346.
    dense = launch(tmp_path, "op: gemm, m: 4096, n: 7168, k: 16384, dtype: fp8")
    assert dense["flops"] / dense["time_s"] == pytest.approx(1426e12, rel=0.08)
    grouped = launch(tmp_path, "op: grouped_gemm, experts: 4, m: 8192, n: 4096, k: 7168, dtype: fp8")
    assert grouped["flops"] / grouped["time_s"] == pytest.approx(1346e12, rel=0.08)


def test_the_shipped_launches_are_bound_as_expected() -> None:
    runs = {name: run["metrics"] for name, run in sim.run("kernel-launches")["variants"].items()}
    assert runs["gemm-4096"]["flops"] / runs["gemm-4096"]["time_s"] > 1.3e15
    bound = {name: metrics["binding"] for name, metrics in runs.items()}
    assert {name for name, by in bound.items() if by == "hbm"} == {
        "gemm-64",
        "experts-decode",
        "mla-decode",
        "copy",
    }
    assert bound["small-copy"] == "latency"


def test_a_bad_launch_is_refused_with_what_is_wanted(tmp_path: Path) -> None:
    assert "got no 'k'; wanted the keys of gemm: m, n, k" in refused(tmp_path, "op: gemm, m: 1, n: 2")
    assert "workload.heads" in refused(tmp_path, "op: gemm, m: 1, n: 2, k: 3, heads: 4")
    assert "one of: forward, weight" in refused(tmp_path, "op: gemm, m: 1, n: 2, k: 3, direction: decode")
    assert "A100" in refused(tmp_path, "op: gemm, m: 1, n: 2, k: 3, dtype: fp8", "cluster.hardware=a100")
    assert "did you mean gemm?" in refused(tmp_path, "op: gem, m: 1, n: 2, k: 3")
    assert "at most the 132 SMs" in refused(tmp_path, "op: gemm, m: 1, n: 2, k: 3, sms: 133")
    backward = "op: attention, m: 8, n: 8, k: 8, heads: 8, direction: backward, context_tokens: 4"
    assert "8 or more: the queries are among the keys" in refused(tmp_path, backward)
    assert "bf16 or fp8_tensorwise" in refused(
        tmp_path, "op: attention, m: 8, n: 8, k: 8, heads: 8, dtype: fp8"
    )
    bare = "cluster={fabric: {kind: leaf_spine, hosts: 8, hosts_per_leaf: 4, spines: 4, link: 400 Gb/s, link_latency: 0 s, switch_latency: 0 s}}"
    assert "a GPU for launch" in refused(tmp_path, "op: copy, bytes: 1 GB", bare)
