"""Figures of a hardware profile: each moves a metric of some kind the right way, or is declared to be read by none."""

from __future__ import annotations

import itertools
from functools import lru_cache

import pytest

from sim import documents
from sim.cluster.hardware import UNREAD, load_hardware
from sim.errors import InputError
from sim.runs.run import run_document
from sim.trees import flatten

CLUSTER = "name: mine\ncluster: {{hardware: {hardware}, nodes: 4, fabric: {{{fabric}}}, override: {{{override}}}}}\n"
EXCHANGE = """\
model: deepseek-v3
workload: {kind: all_to_all, tokens_per_rank: 128, gate: {kind: uniform, sampling: expected}, kernel: {kind: two_hop}}
"""
DECODE = """\
model: deepseek-v3
layout: {ep: 32}
workload: {kind: decode, requests_per_gpu: 32, context_tokens: 4096, kernel: {kind: low_latency}}
"""
TRAINING = """\
model: mixtral-8x7b
layout: {pp: 4, ep: 8}
workload:
  kind: training
  sequence_tokens: 4096
  microbatches: 1
  schedule: 1f1b
  precision: bf16
  recompute: full
  kernel: {kind: two_hop}
  skew: {routed_load: 0, kernel_jitter: 0, gpu_spread: 0}
  run: {tokens: 1 T}
"""
COLLECTIVE = (
    "layout: {tp: 8}\nworkload: {kind: collective, op: all_reduce, bytes_per_rank: 1 GiB, group: tp}\n"
)
WORK = {
    "all_to_all": EXCHANGE,
    "decode": DECODE,
    "training": TRAINING,
    "fp8": TRAINING.replace("bf16", "fp8"),
    "collective": COLLECTIVE,
}
DISPATCH = "dispatch.completion_time_s"

# Figure -> a worse value, where it is read, and a metric which must then be larger (smaller with a minus).
WORSE = {
    "gpu.sms": ("66", "training", "step_time_s"),
    "gpu.tensor_clock": ("0.9 GHz", "training", "step_time_s"),
    "gpu.sustained_clock_fraction": ("0.5", "training", "step_time_s"),
    "gpu.dense_flops.bf16": ("400 TFLOP/s", "training", "step_time_s"),
    "gpu.dense_flops.fp8": ("400 TFLOP/s", "fp8", "step_time_s"),
    "gpu.power.tdp": ("900 W", "training", "run_energy_kwh"),
    "gpu.hbm.capacity": ("70 GB", "decode", "-max_batch_per_gpu"),
    "gpu.hbm.bandwidth": ("1 TB/s", "decode", "tpot_s"),
    "gpu.hbm.efficiency_fraction": ("0.4", "decode", "tpot_s"),
    "gpu.scale_up.bandwidth": ("20 GB/s", "all_to_all", DISPATCH),
    "gpu.scale_up.latency": ("9 us", "all_to_all", DISPATCH),
    "gpu.scale_up.reduces_in_switch": ("4", "collective", "time_s"),
    "gpu.scale_up.domain": ("4", "all_to_all", "-dispatch.wire_nvlink_bytes"),
    "gpu.pcie.bandwidth": ("20 GB/s", "all_to_all", DISPATCH),
    "nic.per_gpu": ("2", "all_to_all", "-" + DISPATCH),
    "nic.bandwidth": ("100 Gb/s", "all_to_all", DISPATCH),
    "fabric.nodes_per_leaf": ("1", "all_to_all", DISPATCH),
    "fabric.same_leaf_latency": ("3.5 us", "all_to_all", DISPATCH),
    "fabric.cross_leaf_latency": ("9 us", "decode", "tpot_s"),
    "cost.gpu_hour": ("9 $/GPU-hour", "training", "run_cost_usd"),
}


@lru_cache(maxsize=256)
def metrics(kind: str, override: str = "", hardware: str = "h800", fabric: str = "") -> dict[str, float]:
    text = CLUSTER.format(hardware=hardware, override=override, fabric=fabric) + WORK[kind]
    return dict(flatten(run_document(documents.loads(text, "mine.yaml"))["metrics"]))


@pytest.mark.parametrize("figure", WORSE)
def test_a_worse_figure_makes_a_metric_worse(figure: str) -> None:
    value, kind, metric = WORSE[figure]
    sign, name = (-1, metric[1:]) if metric.startswith("-") else (1, metric)
    assert sign * metrics(kind, f"{figure}: {value}")[name] > sign * metrics(kind)[name]


@pytest.mark.parametrize("hardware", ["h800", "gb200-nvl72"])
def test_every_figure_is_read_or_declared_to_be_read_by_none(hardware: str) -> None:
    profile = load_hardware(hardware)
    paths = {row.path for row in profile.parameters}
    assert paths <= WORSE.keys() | UNREAD.keys()
    assert {text.split(" ")[0] for text in profile.unread} == paths & UNREAD.keys()
    for row in profile.parameters:
        if row.path in UNREAD:
            number, unit = row.shown.split(" ", 1) if " " in row.shown else (row.shown, "")
            changed = f"{row.path}: {float(number) * (1 if row.path == 'fabric.switch_ports' else 0.5) + 1:g} {unit}"
            for kind in WORK:
                if hardware == "h800":
                    assert metrics(kind, changed) == metrics(kind), (row.path, kind)


@pytest.mark.parametrize("fabric", ["", "nodes_per_leaf: 1", "kind: three_tier, nodes_per_leaf: 1"])
def test_more_latency_is_never_faster(fabric: str) -> None:
    """Within a leaf or across, over scale-up or through a core: each step up is no faster anywhere."""
    for figure, values in (
        ("fabric.same_leaf_latency", ("0 us", "1 us", "2.8 us", "3.7 us")),
        ("fabric.cross_leaf_latency", ("2.8 us", "3.7 us", "5 us", "1 ms")),
        ("gpu.scale_up.latency", ("0 us", "0.6 us", "5 us", "1 ms")),
    ):
        times = [metrics("all_to_all", f"{figure}: {value}", fabric=fabric)[DISPATCH] for value in values]
        assert all(b >= a * (1 - 1e-12) for a, b in itertools.pairwise(times)), (figure, times)


def test_a_path_within_a_leaf_is_no_longer_than_one_across() -> None:
    with pytest.raises(InputError, match=r"at most 3\.7 us") as caught:
        load_hardware("h800", {"fabric.same_leaf_latency": "1 s"})
    assert caught.value.problems[0].key == "fabric.same_leaf_latency"
