"""Every key of every kind of workload, of a cluster and of a layout: another value is another result, so none is read and ignored.

A case is two ways to write a scenario that differ in one key; the one without the key where it needs no company.
"""

from __future__ import annotations

import json
import typing
from collections.abc import Iterator
from functools import cache
from pathlib import Path
from typing import Any

import pytest
import yaml
from pydantic import BaseModel

from sim import documents
from sim.cluster.kernels import list_kernels, load_kernel
from sim.cluster.software import load_software
from sim.errors import Mark
from sim.runs.run import run_document
from sim.scenario.cluster import ClusterSpec
from sim.scenario.draft import LayoutSpec
from sim.scenario.kinds import resolver
from sim.trees import flatten

Change = dict[str, Any]

BASES = {
    "all_to_all": """
name: k
cluster: {hardware: h800, nodes: 4}
model: olmoe-1b-7b
layout: {ep: 32}
workload: {kind: all_to_all, tokens_per_rank: 64, gate: {kind: uniform}, kernel: {kind: two_hop}}
""",
    "flows": """
name: k
cluster: {fabric: {kind: leaf_spine, hosts: 8, hosts_per_leaf: 2, spines: 1, link: 100 Gb/s, oversubscription: 2, link_latency: 500 ns,
  switch_latency: 300 ns, routing: ecmp, payload_per_packet: 4096 B, wire_per_packet: 4160 B}}
workload: {kind: flows, file: FOLDER/flows.csv}
""",
    "collective": """
name: k
cluster: {hardware: h100, nodes: 2}
layout: {tp: 8}
workload: {kind: collective, op: all_reduce, bytes_per_rank: 16 MiB, group: world}
""",
    "launch": """
name: k
cluster: {hardware: h800, nodes: 1}
workload: {kind: launch, op: gemm, m: 4096, n: 4096, k: 4096}
""",
    "training": """
name: k
cluster: {hardware: h800, nodes: 4}
model: olmoe-1b-7b
layout: {pp: 2, ep: 16}
workload:
  kind: training
  sequence_tokens: 1024
  microbatches: 4
  schedule: 1f1b
  gate: {kind: uniform}
  kernel: {kind: two_hop}
  skew: {routed_load: 0, kernel_jitter: 0, gpu_spread: 0}
""",
    "prefill": """
name: k
cluster: {hardware: h800, nodes: 2}
model: olmoe-1b-7b
layout: {ep: 16}
workload: {kind: prefill, prompt_tokens: 1024, prompts_per_gpu: 2, gate: {kind: uniform}, kernel: {kind: two_hop}, overlap: false}
""",
    "decode": """
name: k
cluster: {hardware: h800, nodes: 2}
model: olmoe-1b-7b
layout: {ep: 16}
workload: {kind: decode, context_tokens: 1024, requests_per_gpu: 8, gate: {kind: uniform}, kernel: {kind: low_latency}, overlap: false}
""",
    "serving": """
name: k
cluster: {hardware: h800, nodes: 4}
model: olmoe-1b-7b
workload:
  kind: serving
  arrivals: {kind: poisson, requests: 40, requests_per_s: 400, prompt: {kind: lognormal, mean: 2000}, output: {kind: exponential, mean: 40}}
  prefill: {ep: 8, plan: {gate: {kind: uniform}, kernel: {kind: two_hop}, overlap: false}}
  decode: {ep: 8, plan: {gate: {kind: uniform}, kernel: {kind: low_latency}, overlap: false}}
  slo: {ttft: 1 s, tpot: 50 ms}
""",
    "rl_step": """
name: k
cluster: {hardware: h800, nodes: 2}
model: olmoe-1b-7b
workload:
  kind: rl_step
  prompts: 16
  samples: 4
  lengths: {kind: lognormal, mean: 300, most: 2000}
  rollout: {layout: {ep: 8}, gate: {kind: uniform}, kernel: {kind: low_latency}, overlap: false}
  update: {layout: {ep: 8}, schedule: 1f1b, gate: {kind: uniform}, kernel: {kind: two_hop}}
""",
}

GATES: dict[str, Change | tuple[Change, Change]] = {
    "gate.kind": {"gate": {"kind": "balanced"}},
    "gate.sampling": {"gate": {"kind": "uniform", "sampling": "expected"}},
    "gate.exponent": ({"gate": {"kind": "zipf", "exponent": 0.4}}, {"gate": {"kind": "zipf", "exponent": 1.2}}),
    "gate.alpha": ({"gate": {"kind": "dirichlet", "alpha": 0.5}}, {"gate": {"kind": "dirichlet", "alpha": 50}}),
    "gate.spread": ({"gate": {"kind": "lognormal", "spread": 0.3}}, {"gate": {"kind": "lognormal", "spread": 1.5}}),
    "gate.top_groups": (
        {"gate": {"kind": "group_limited", "num_groups": 4, "top_groups": 4}},
        {"gate": {"kind": "group_limited", "num_groups": 4, "top_groups": 2}},
    ),
    "gate.num_groups": (
        {"gate": {"kind": "group_limited", "num_groups": 4, "top_groups": 2}},
        {"gate": {"kind": "group_limited", "num_groups": 8, "top_groups": 2}},
    ),
    "gate.group_score": (
        {"gate": {"kind": "group_limited", "num_groups": 4, "top_groups": 2, "group_score": "max"}},
        {"gate": {"kind": "group_limited", "num_groups": 4, "top_groups": 2, "group_score": "top2_sum"}},
    ),
    "gate.capacity_factor": (
        {"gate": {"kind": "zipf", "exponent": 1, "capacity_factor": 1.0}},
        {"gate": {"kind": "zipf", "exponent": 1, "capacity_factor": 1.5}},
    ),
    "gate.drop": (  # with a capacity alone
        {"gate": {"kind": "zipf", "exponent": 1}},
        {"gate": {"kind": "zipf", "exponent": 1, "capacity_factor": 1.0, "drop": True}},
    ),
    "gate.file": (
        {"gate": {"kind": "loads", "file": "FOLDER/flat.csv"}},
        {"gate": {"kind": "loads", "file": "FOLDER/steep.csv"}},
    ),
    "gate.layer": (
        {"gate": {"kind": "loads", "file": "FOLDER/layers.csv", "layer": 0}},
        {"gate": {"kind": "loads", "file": "FOLDER/layers.csv", "layer": 1}},
    ),
}  # fmt: skip
DRIFT: dict[str, Change | tuple[Change, Change]] = {  # where replicas follow earlier loads
    "gate.drift": tuple(
        {
            "gate": {"kind": "lognormal", "spread": 1, "drift": drift},
            "placement": {"kind": "eplb", "redundant_experts": 64},
        }
        for drift in (0, 1)
    ),
    "placement.kind": {"placement": {"kind": "eplb"}, "gate": {"kind": "zipf", "exponent": 1}},
    "placement.redundant_experts": (
        {"gate": {"kind": "zipf", "exponent": 1}, "placement": {"kind": "eplb", "redundant_experts": 32}},
        {"gate": {"kind": "zipf", "exponent": 1}, "placement": {"kind": "eplb", "redundant_experts": 64}},
    ),
}  # fmt: skip
KERNELS: dict[str, Change | tuple[Change, Change]] = {
    "kernel.kind": {"kernel": {"kind": "nccl"}},
    "kernel.comm_sms": ({"kernel": {"kind": "two_hop", "comm_sms": 8}}, {"kernel": {"kind": "two_hop", "comm_sms": 20}}),
    "kernel.generation": (
        {"kernel": {"kind": "two_hop", "generation": "deepep_v1_2025_04"}},
        {"kernel": {"kind": "two_hop", "generation": "deepep_v2"}},
    ),
    "kernel.override": {"kernel": {"kind": "two_hop", "override": {"nic_efficiency_fraction": 0.4}}},
    "kernel.nvlink": ({"kernel": {"kind": "low_latency", "nvlink": True}}, {"kernel": {"kind": "low_latency", "nvlink": False}}),
    "kernel.copies": (
        {"kernel": {"kind": "flat", "copies": "per_rank"}},
        {"kernel": {"kind": "flat", "copies": "per_expert"}},
    ),
    "kernel.pxn": ({"kernel": {"kind": "nccl", "pxn": True}}, {"kernel": {"kind": "nccl", "pxn": False}}),
}  # fmt: skip
RECORDS: dict[str, Change | tuple[Change, Change]] = {
    "dispatch_dtype": {"dispatch_dtype": "bf16"},
    "combine_dtype": {"combine_dtype": "fp8"},
}


def weights(of: str) -> tuple[Change, Change]:
    """Two precisions that differ in the weights of one part."""
    alike = {"model": "deepseek-v2-lite", "precision": {"gemm": "bf16", "weights": {of: "bf16"}}}
    return alike, alike | {"precision": {"gemm": "bf16", "weights": {of: "int4"}}}


PASSES: dict[str, Change | tuple[Change, Change]] = {
    **GATES, **DRIFT, **RECORDS,
    "overlap": {"overlap": True},
    "skew.kernel_jitter": {"skew": {"kernel_jitter": "5 %"}},
    "skew.gpu_spread": {"skew": {"gpu_spread": "5 %"}},
    "drawn_layers": ({"drawn_layers": 1}, {"drawn_layers": 5}),
    "precision.gemm": ({"precision": {"gemm": "bf16"}}, {"precision": {"gemm": "fp8"}}),
    "precision.attention": ({"precision": {"gemm": "fp8"}}, {"precision": {"gemm": "fp8", "attention": "fp8"}}),
    "precision.kv": ({"precision": {"gemm": "fp8"}}, {"precision": {"gemm": "fp8", "kv": "fp8"}}),
    **{f"precision.weights.{part}": weights(part) for part in ("attention", "shared", "dense", "experts")},
    "kv_dtype": {"kv_dtype": "fp8"},
    "fused_gate": {"fused_gate": False},
    "shared_experts": tuple(
        {"model": "deepseek-v2-lite", "layout": {"ep": 16, "tp": 2}, "shared_experts": held} for held in ("split", "whole")
    ),
    "gemm_generation": {"gemm_generation": "february_2025"},
    "reserve": {"reserve": "40 %"},
    "graphs": {"graphs": "20 GB"},
}  # fmt: skip
POOLS = {
    "cluster": {
        "pools": {"a": {"hardware": "h800", "nodes": 2}, "b": {"hardware": "h20", "nodes": 2}},
        "fabric": {"kind": "three_tier"},
    }
}


def arrivals(**changes: Any) -> Change:
    """The arrivals of the service with some keys changed; those of a trace have no others."""
    drawn = {
        "kind": "poisson", "requests": 40, "requests_per_s": 400, "prompt": {"kind": "lognormal", "mean": 2000},
        "output": {"kind": "exponential", "mean": 40},
    }  # fmt: skip
    return {"arrivals": changes if changes.get("kind") == "trace" else drawn | changes}


def pool(side: str, **changes: Any) -> Change:
    """A side of the service with some keys changed."""
    kernel = {"prefill": "two_hop", "decode": "low_latency"}[side]
    plan = {"gate": {"kind": "uniform"}, "kernel": {"kind": kernel}, "overlap": False}
    return {side: {"ep": 8, "plan": plan} | changes}


ONE_POOL: Change = {"decode": pool("decode")["decode"] | {"instances": 0}}
CROWDED: Change = arrivals(requests=600, requests_per_s=20000, output={"kind": "fixed", "mean": 2000})
SHARED: Change = arrivals(kind="trace", file="FOLDER/mooncake.jsonl")
THREE_POOLS: Change = {
    "cluster": {
        "pools": {
            name: {"hardware": chip, "nodes": 1}
            for name, chip in (("a", "h800"), ("b", "h20"), ("c", "h800"), ("d", "h20"))
        },
        "fabric": {"kind": "three_tier"},
    }
}
TWO_POOLS: Change = {
    "cluster": {
        "pools": {"a": {"hardware": "h20", "nodes": 1}, "b": {"hardware": "h800", "nodes": 2}},
        "fabric": {"kind": "three_tier"},
    },
    "pools": {"rollout": "a", "update": "b"},
}


def tail(kind: str, **changes: Any) -> Change:
    return {"tail": {"kind": kind, **changes}, "iterations": 3}


def runs(**changes: Any) -> Change:
    return {
        "run": {
            "tokens": "1 T",
            "failures": {"mtbf": {"gpu": "50000 h"}, "checkpoint": {"write": "60 s"}, "restart": "5 min"},
        }
        | changes
    }


def failing(**changes: Any) -> Change:
    return runs(failures=runs()["run"]["failures"] | changes)


def phases(**changes: Any) -> Change:
    """A run of two phases, the second with some keys changed."""
    second = (
        {"name": "second"} | ({} if {"steps", "gpu_hours"} & {*changes} else {"tokens": "100 G"}) | changes
    )
    return {"run": {"phases": [{"name": "first", "tokens": "100 G"}, second]}}


def laid(side: str, **layout: Any) -> Change:
    """A side of the service with a layout in place of its EP."""
    return {side: {key: value for key, value in pool(side)[side].items() if key != "ep"} | {"layout": layout}}


def packing(*, lengths: Change | None = None, **changes: Any) -> Change:
    """A step on documents, of drawn lengths unless told."""
    drawn = {"kind": "lognormal", "mean": 400, "spread": 1.0, "most": 1024}
    return {"packing": {"lengths": lengths or drawn, "fit": "first_fit"} | changes}


def drawn_lengths(**changes: Any) -> Change:
    return packing(lengths={"kind": "lognormal", "mean": 400, "spread": 1.0, "most": 1024} | changes)


PACKED: dict[str, Change | tuple[Change, Change]] = {
    "packing.fit": (packing(), packing(fit="cut")),
    "packing.mask": (packing(), packing(mask="none")),
    "packing.balance": (packing(), packing(balance="even")),
    "packing.context_parallel": tuple(
        {"layout": {"pp": 2, "ep": 8, "cp": 2}, **packing(context_parallel=parts)} for parts in ("document", "sequence")
    ),
    "packing.lengths.kind": (packing(), packing(lengths={"kind": "fixed", "mean": 400})),
    "packing.lengths.mean": (packing(), drawn_lengths(mean=200)),
    "packing.lengths.spread": (packing(), drawn_lengths(spread=0.2)),
    "packing.lengths.most": (packing(), drawn_lengths(most=500)),
    "packing.lengths.file": tuple(packing(lengths={"kind": "recorded", "file": f"FOLDER/{name}.csv"}) for name in ("short", "long")),
    "packing.lengths.tokens": tuple(
        packing(lengths={"kind": "listed", "tokens": [tokens] * 64}) for tokens in (500, 1000)
    ),
}  # fmt: skip


def classes(slo: Change | None = None, **changes: Any) -> Change:
    """A service of two classes, the first with some keys changed."""
    lengths = {"prompt": {"kind": "lognormal", "mean": 300}, "output": {"kind": "lognormal", "mean": 30}}
    first = {"share": "50 %", **lengths, "slo": slo or {}} | changes
    second = {"share": f"{100 - int(first['share'].split()[0])} %"}
    return {"classes": {"one": first, "two": second}}


def classes_by(most: int) -> Change:
    """A service of two classes by the length of prompts."""
    return {"classes": {"short": {"most_prompt_tokens": most}, "long": {}}}


CLASSES: dict[str, Change | tuple[Change, Change]] = {
    "classes.share": (classes(), classes(share="70 %")),
    "classes.slo.ttft": (classes(), classes(slo={"ttft": "20 ms"})),
    "classes.slo.tpot": (classes(), classes(slo={"tpot": "1 ms"})),
    **{
        f"classes.{part}.{key}": (classes(), classes(**{part: {"kind": "lognormal", "mean": 300 if part == "prompt" else 30, key: value}}))
        for part in ("prompt", "output")
        for key, value in (("kind", "fixed"), ("mean", 200), ("spread", 0.2), ("most", 60))
    },
    "classes.file": tuple(
        {"arrivals": {"kind": "trace"}, "classes": {"one": {"file": f"FOLDER/{name}.csv"}, "two": {"file": "FOLDER/requests.csv"}}}
        for name in ("requests", "others")
    ),
    "classes.most_prompt_tokens": tuple(classes_by(most) for most in (1000, 2000)),
    "arrivals.class_column": tuple(
        {**arrivals(kind="trace", file=f"FOLDER/{column}.csv", class_column=column), "classes": {"a": {}, "b": {}}} for column in ("first", "second")
    ),
    "arrivals.concurrency": tuple(
        {"arrivals": {key: value for key, value in arrivals(kind="closed", concurrency=n)["arrivals"].items() if key != "requests_per_s"}}
        for n in (8, 16)
    ),
}  # fmt: skip
LAYOUTS: dict[str, tuple[Change, Change]] = {
    "ep": ({"ep": 8}, {"ep": 16}),
    "tp": ({"ep": 8}, {"ep": 8, "tp": 2}),
    "pp": ({"ep": 8}, {"ep": 8, "pp": 2}),
    "cp": ({"ep": 8}, {"ep": 8, "cp": 2}),
    "dp": ({"ep": 8}, {"ep": 8, "dp": 16}),
    "etp": ({"ep": 8, "tp": 2}, {"ep": 8, "tp": 2, "etp": 2}),
    "order": ({"ep": 16, "tp": 2}, {"ep": 16, "tp": 2, "order": "dp-tp-cp-ep-pp"}),
}
V3_STEP: Change = {
    "model": "deepseek-v3", "cluster": {"hardware": "h800", "nodes": 32}, "layout": {"pp": 4, "ep": 64},
    "recompute": "full", "optimizer": {"offload": "cpu"}, "precision": "fp8",
}  # fmt: skip
STRAGGLERS = {"mtbf": "5000 h", "speed": "80 %", "detect": "10 min", "swap": "5 min"}
RUNS: dict[str, Change | tuple[Change, Change]] = {
    "run.tokens": (runs(), runs(tokens="2 T")),
    "run.phases.tokens": (phases(), phases(tokens="200 G")),
    "run.phases.steps": (phases(steps=1000), phases(steps=2000)),
    "run.phases.gpu_hours": (phases(gpu_hours=1000), phases(gpu_hours=2000)),
    "run.phases.sequence_tokens": (phases(), phases(sequence_tokens=2048)),
    "run.phases.global_batch": (phases(), phases(global_batch=256)),
    "run.phases.recompute": (phases(), phases(recompute="full")),
    "run.phases.schedule": (phases(), phases(schedule="gpipe")),
    **{
        f"run.phases.layout.{key}": (phases(layout={"pp": 2, **one}), phases(layout={"pp": 2, **other}))
        for key, (one, other) in LAYOUTS.items() if key not in ("pp", "dp")
    },
    "run.phases.layout.pp": (phases(), phases(layout={"pp": 4, "ep": 8})),
    "run.phases.layout.dp": (phases(), phases(layout={"pp": 2, "ep": 8, "tp": 2, "dp": 8})),
    **{f"run.{key}": (runs(), runs(**{key: value})) for key, value in (("price", "9 $/GPU-hour"), ("gpu_load", "30 %"), ("host_power", "9 kW"), ("network_power", "9 kW"), ("pue", 2))},
    **{f"run.failures.mtbf.{part}": (failing(mtbf={"gpu": "50000 h"}), failing(mtbf={"gpu": "50000 h"} | {part: "9000 h"})) for part in ("gpu", "node", "nic")},
    "run.failures.checkpoint.write": (failing(), failing(checkpoint={"write": "600 s"})),
    "run.failures.checkpoint.every": (failing(), failing(checkpoint={"write": "60 s", "every": "9 h"})),
    "run.failures.restart": (failing(), failing(restart="50 min")),
    "run.failures.spares": tuple(failing(mtbf={"gpu": "500 h"}, spares=n) for n in (0, 2)),
    "run.failures.repair": tuple(failing(mtbf={"gpu": "500 h"}, spares=0, repair=time) for time in ("1 d", "2 d")),
    **{
        f"run.failures.stragglers.{key}": (failing(stragglers=STRAGGLERS), failing(stragglers=STRAGGLERS | {key: value}))
        for key, value in (("mtbf", "500 h"), ("speed", "50 %"), ("detect", "90 min"), ("swap", "90 min"))
    },
}  # fmt: skip
CASES: dict[str, dict[str, Change | tuple[Change, Change]]] = {
    "all_to_all": {
        **GATES, **DRIFT, **KERNELS, **RECORDS,
        "tokens_per_rank": {"tokens_per_rank": 65},
        "bytes_per_rank": tuple(
            {"tokens_per_rank": None, "gate": None, "kernel": {"kind": "nccl"}, "bytes_per_rank": size} for size in ("1 MiB", "2 MiB")
        ),
    },
    "flows": {"file": {"file": "FOLDER/more.csv"}},
    "collective": {
        "op": {"op": "all_gather"},
        "bytes_per_rank": {"bytes_per_rank": "17 MiB"},
        "group": {"group": "tp"},
        "algorithm": {"algorithm": "ring"},
    },
    "launch": {
        "op": {"op": "copy", "bytes": "1 GB"},
        "m": {"m": 4224}, "n": {"n": 4224}, "k": {"k": 4224},
        "dtype": {"dtype": "fp8"},
        "experts": tuple({"op": "grouped_gemm", "experts": n} for n in (4, 8)),
        "rows": tuple({"op": "grouped_gemm", "experts": 8, "m": 100, "rows": rows} for rows in ("contiguous", "masked")),
        "direction": {"direction": "weight"},
        **{
            key: tuple(
                {
                    "op": "attention", "m": 2048, "n": 128, "k": 128, "heads": 32, "kv_heads": 8, "sequences": 1,
                    "direction": "decode" if key == "context_tokens" else "forward",
                    **({"m": 8, "context_tokens": 4096} if key in ("context_tokens", "kv_heads") else {}), **more,
                }
                for more in ({}, {key: value})
            )
            for key, value in (("heads", 64), ("sequences", 2), ("context_tokens", 8192))
        },
        "kv_heads": tuple(
            {"op": "attention", "direction": "decode", "m": 1, "n": 128, "k": 128, "heads": 32, "kv_heads": kv, "sequences": 8,
             "context_tokens": 4096}
            for kv in (8, 4)
        ),
        "bytes": tuple({"op": "copy", "bytes": size} for size in ("1 GB", "2 GB")),
        "gemm_generation": {"gemm_generation": "cublas_13"},
        "clock": {"clock": "sustained"},
        "sms": {"sms": 66},
    },
    "prefill": {
        **PASSES, **KERNELS,
        "prompt_tokens": {"prompt_tokens": 1280},
        "prompts_per_gpu": {"prompts_per_gpu": 3},
        "prompts": ({"prompts_per_gpu": None, "prompts": 16}, {"prompts_per_gpu": None, "prompts": 8}),
        "chunk_tokens": {"chunk_tokens": 256},
        "cached_tokens": {"cached_tokens": 512},
        "cp_comm": tuple({"layout": {"ep": 8, "cp": 2}, "cp_comm": way} for way in ("all_gather", "p2p")),
    },
    "decode": {
        **PASSES,
        **{key: value for key, value in KERNELS.items() if key != "kernel.override"},
        "kernel.override": {"kernel": {"kind": "low_latency", "override": {"nic_efficiency_fraction": 0.4}}},
        "requests_per_gpu": {"requests_per_gpu": 9},
        "requests": ({"requests_per_gpu": None, "requests": 16}, {"requests_per_gpu": None, "requests": 8}),
        "context_tokens": {"context_tokens": 2048},
        "tokens_per_step": ({"model": "deepseek-v3"}, {"model": "deepseek-v3", "tokens_per_step": 2}),
        "acceptance": tuple({"model": "deepseek-v3", "tokens_per_step": 2, "acceptance": part} for part in ("80 %", "50 %")),
        "afd.attention": tuple(
            POOLS | {"layout": {}, "afd": {"attention": a, "experts": b}} for a, b in (("a", "b"), ("b", "a"))
        ),
        "afd.experts": tuple(
            POOLS | {"layout": {}, "afd": {"attention": a, "experts": b}} for a, b in (("a", "b"), ("b", "a"))
        ),
        "afd.microbatches": tuple(
            POOLS | {"layout": {}, "afd": {"attention": "a", "experts": "b", "microbatches": m}} for m in (1, 3)
        ),
    },
    "training": {
        **{key: case for key, case in GATES.items() if key != "gate.sampling"}, **KERNELS, **RECORDS,
        "gate.kind": {"gate": {"kind": "zipf", "exponent": 1}},
        "gate.drift": tuple({"gate": {"kind": "lognormal", "spread": 1, "drift": drift}} for drift in (0, 1)),
        "profile": {"compute": "measured", "profile": "h800-train-measured", **V3_STEP},
        "sequence_tokens": {"sequence_tokens": 1152},
        "cp_comm": tuple({"layout": {"pp": 2, "ep": 8, "cp": 2}, "cp_comm": way} for way in ("all_gather", "p2p")),
        "microbatch_sequences": {"microbatch_sequences": 2},
        "microbatches": {"microbatches": 5},
        "global_batch": tuple({"microbatches": None, "global_batch": n} for n in (64, 128)),
        "schedule": {"schedule": "gpipe"},
        "chunks": tuple({"schedule": "interleaved", "chunks": n} for n in (2, 4)),
        "stage_layers": {"stage_layers": [7, 9]},
        "stages": {"stages": "Ettttttt|tttttttttL"},
        "overlap": tuple({"schedule": "dualpipe", "overlap": on} for on in (True, False)),
        "precision.gemm": ({"precision": {"gemm": "bf16"}}, {"precision": {"gemm": "fp8"}}),
        "precision.attention": tuple({"precision": {"gemm": "fp8_tensorwise", "attention": kind}} for kind in ("bf16", "fp8")),
        "compute": (V3_STEP, {"compute": "measured", "profile": "h800-train-measured", **V3_STEP}),
        "gemm_generation": {"gemm_generation": "february_2025"},
        "recompute": {"recompute": "full"},
        "optimizer.kind": {"optimizer": {"kind": "muon"}},
        "optimizer.moments": {"optimizer": {"moments": "fp32"}},
        "optimizer.gradients": {"optimizer": {"gradients": "bf16"}},
        "optimizer.shard": {"optimizer": {"shard": "zero3"}},
        "optimizer.offload": {"optimizer": {"offload": "cpu"}},
        "optimizer.overlap": {"optimizer": {"overlap": True}},
        "skew.routed_load": {"skew": {"routed_load": "20 %", "kernel_jitter": 0, "gpu_spread": 0}},
        "skew.kernel_jitter": {"skew": {"routed_load": 0, "kernel_jitter": "5 %", "gpu_spread": 0}},
        "skew.gpu_spread": {"skew": {"routed_load": 0, "kernel_jitter": 0, "gpu_spread": "5 %"}},
        "skew.groups": tuple(
            {"layout": {"pp": 2, "ep": 8}, "skew": {"groups": groups}} for groups in ("one", "all")
        ),
        **RUNS, **PACKED,
    },
    "serving": {
        **CLASSES,
        "arrivals.kind": arrivals(kind="trace", file="FOLDER/requests.csv"),
        "arrivals.requests": arrivals(requests=41),
        "arrivals.requests_per_s": arrivals(requests_per_s=100),
        **{
            f"arrivals.{part}.{key}": (
                arrivals(**{part: {"kind": "lognormal", "mean": 300}}),
                arrivals(**{part: {"kind": "lognormal", "mean": 300, key: value}}),
            )
            for part in ("prompt", "output")
            for key, value in (("kind", "fixed"), ("mean", 400), ("spread", 0.2), ("most", 350))
        },
        "arrivals.file": tuple(arrivals(kind="trace", file=f"FOLDER/{name}.csv") for name in ("requests", "others")),
        **{
            f"{side}.{key}": pool(side, **{key: value})
            for side in ("prefill", "decode")
            for key, value in (("instances", 2), ("ep", 16))
        },
        **{
            f"{side}.layout.{key}": (laid(side, **one), laid(side, **other))
            for side in ("prefill", "decode") for key, (one, other) in LAYOUTS.items()
        },
        **{f"{side}.pool": tuple(POOLS | pool(side, pool=name) | pool({"prefill": "decode", "decode": "prefill"}[side], pool="a") for name in ("a", "b")) for side in ("prefill", "decode")},
        "prefill.batch_tokens": pool("prefill", batch_tokens=2048),
        "prefill.plan": pool("prefill", plan={"gate": {"kind": "uniform"}, "kernel": {"kind": "nccl"}, "overlap": False}),
        "decode.requests_per_gpu": (pool("decode", requests_per_gpu=1), pool("decode", requests_per_gpu=2)),
        "decode.plan": pool("decode", plan={"gate": {"kind": "uniform"}, "kernel": {"kind": "nccl"}, "overlap": False}),
        "policy": ({"policy": "fcfs", **pool("decode", requests_per_gpu=1)}, {"policy": "shortest_first", **pool("decode", requests_per_gpu=1)}),
        "cached": {"cached": "50 %"},
        "slo.ttft": {"slo": {"ttft": "30 ms", "tpot": "50 ms"}},
        "slo.tpot": {"slo": {"ttft": "1 s", "tpot": "1 ms"}},
        "until": {"until": "100 ms"},
        "engine.chunk_tokens": ({"engine": {"mixed": True}, **ONE_POOL}, {"engine": {"mixed": True, "chunk_tokens": 256}, **ONE_POOL}),
        "engine.block_tokens": tuple({"engine": {"block_tokens": n}, **pool("decode", requests_per_gpu=None)} for n in (64, 8192)),
        "engine.preemption": tuple({**CROWDED, "engine": {"preemption": kind, "memory_fraction": 0.2}} for kind in ("recompute", "swap")),
        "engine.max_requests_per_gpu": tuple({"engine": {"max_requests_per_gpu": n}} for n in (1, 2)),
        "engine.memory_fraction": tuple({**CROWDED, "engine": {"memory_fraction": part}} for part in (0.2, 0.9)),
        "engine.routing": tuple({"engine": {"routing": kind}, **pool("prefill", instances=2)} for kind in ("round_robin", "shortest_queue")),
        "engine.prefix_cache.capacity": tuple({**SHARED, "engine": {"prefix_cache": {"capacity": size}}} for size in ("1 MB", "20 GB")),
        **{
            f"decode.afd.{key}": tuple(
                THREE_POOLS | pool("prefill", pool="d")
                | {"decode": {"plan": pool("decode")["decode"]["plan"], "afd": {"attention": "a", "experts": "c", "microbatches": 2} | change}}
                for change in ({}, {key: value})
            )
            for key, value in (("attention", "b"), ("experts", "b"), ("microbatches", 3))
        },
        "engine.mixed": (ONE_POOL, {"engine": {"mixed": True}, **ONE_POOL}),
    },
    "rl_step": {
        "prompts": {"prompts": 24},
        "samples": {"samples": 8},
        "prompt_tokens": {"prompt_tokens": 1024},
        **{f"lengths.{key}": {"lengths": {"kind": "lognormal", "mean": 300, "most": 2000, key: value}} for key, value in (("kind", "fixed"), ("mean", 400), ("spread", 0.2), ("most", 500))},
        "prompt_correlation": {"prompt_correlation": "90 %"},
        "rollout": {"rollout": {"layout": {"ep": 8}, "gate": {"kind": "uniform"}, "kernel": {"kind": "nccl"}, "overlap": False}},
        "update": {"update": {"layout": {"ep": 8}, "schedule": "1f1b", "gate": {"kind": "uniform"}, "kernel": {"kind": "nccl"}}},
        "pack_tokens": {"pack_tokens": 4096},
        "updates": {"updates": 2},
        "logprobs": {"logprobs": 0},
        "reward.time": {"reward": {"time": "3 s"}},
        "reward.model": {"reward": {"model": "olmoe-1b-7b", "prefill": {"layout": {"ep": 8}, "kernel": {"kind": "two_hop"}}}},
        "reward.prefill": tuple({"reward": {"model": "olmoe-1b-7b", "prefill": {"layout": {"ep": 8}, "kernel": {"kind": kind}}}} for kind in ("two_hop", "nccl")),
        "sync.apply": {"sync": {"apply": "1 GB/s"}},
        "sync.bucket": {"sync": {"bucket": "16 MiB"}},
        "sync.mode": tuple({**TWO_POOLS, "sync": {"mode": mode}} for mode in ("broadcast", "p2p")),
        "tail.kind": (tail("partial_rollouts"), tail("tail_batching")),
        "tail.done": tuple(tail("partial_rollouts", done=done) for done in ("80 %", "50 %")),
        "tail.cache": tuple(TWO_POOLS | tail("partial_rollouts", cache=cache) for cache in ("recompute", "keep")),
        "tail.prefill": tuple(tail("partial_rollouts", prefill={"kernel": {"kind": kind}}) for kind in ("two_hop", "nccl")),
        "iterations": tuple(tail("partial_rollouts") | {"iterations": n} for n in (2, 3)),
        "pools.rollout": TWO_POOLS,
        "pools.update": TWO_POOLS,
        "pools.reward": tuple(
            THREE_POOLS
            | {"reward": {"model": "olmoe-1b-7b", "prefill": {"layout": {"ep": 8}, "kernel": {"kind": "two_hop"}}}}
            | {"pools": {"rollout": "a", "update": "c", "reward": name}}
            for name in ("b", "d")
        ),
        "staleness": tuple({**TWO_POOLS, "iterations": 3, "staleness": n} for n in (0, 1)),
    },
}  # fmt: skip
NO_CASE: dict[str, dict[str, str]] = {
    "training": {
        "gate.sampling": "a step counts means; anything else is refused",
        "optimizer.master": "fp32 alone",
        "run.phases.name": "of a row of a table",
        "precision.kv": "refused: a step keeps no cache",
        **{f"precision.weights.{part}": "refused: a step trains its weights" for part in ("attention", "shared", "dense", "experts")},
    },
    "serving": {"engine.prefix_cache.block_tokens": "of the hashes of a trace; anything else is refused"},
}  # fmt: skip
"""Keys of a kind that no case moves, and why."""


def keys(spec: type[BaseModel], path: tuple[str, ...] = ()) -> Iterator[str]:
    """Dotted keys of a specification and of those within it."""
    for name, field in spec.model_fields.items():
        inner = list(dict.fromkeys(_specs(field.annotation)))
        if not inner:
            yield ".".join((*path, field.alias or name))
        for each in inner:
            yield from keys(each, (*path, field.alias or name))


def _specs(annotation: Any) -> Iterator[type[BaseModel]]:
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        yield annotation
    for part in typing.get_args(annotation):
        if not isinstance(part, str):
            yield from _specs(part)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> str:
    made = tmp_path_factory.mktemp("keys")
    (made / "flat.csv").write_text("expert,load\n" + "".join(f"{i},{100 + i % 3}\n" for i in range(64)))
    (made / "steep.csv").write_text(
        "expert,load\n" + "".join(f"{i},{1 + 40 * (i % 16 == 0)}\n" for i in range(64))
    )
    rows = [
        f"{layer},{i},{100 + 400 * (i % 8 == layer and layer > 0)}" for layer in range(16) for i in range(64)
    ]
    (made / "layers.csv").write_text("layer_id,expert_id,count\n" + "\n".join(rows) + "\n")
    head = "flow_id,src,dst,bytes,start_us\n"
    for name, tokens in (("short", 300), ("long", 900)):
        (made / f"{name}.csv").write_text("tokens\n" + f"{tokens}\n" * 50)
    for column, of in (("first", "ab" * 15), ("second", "a" * 10 + "b" * 20)):
        rows = [f"{i * 0.002},{500 + 100 * i},20,{name}" for i, name in enumerate(of)]
        (made / f"{column}.csv").write_text(
            f"arrival_s,prompt_tokens,output_tokens,{column}\n" + "\n".join(rows) + "\n"
        )
    for name, tokens in (("requests", 1000), ("others", 3000)):
        lines = [f"{i * 0.002},{tokens},{20 + i}" for i in range(30)]
        (made / f"{name}.csv").write_text("arrival_s,prompt_tokens,output_tokens\n" + "\n".join(lines) + "\n")
    block = [
        {
            "timestamp": 100 * i,
            "input_length": 2048,
            "output_length": 20,
            "hash_ids": [*range(3 - i % 3), i + 9],
        }
        for i in range(9)
    ]
    (made / "mooncake.jsonl").write_text("\n".join(map(json.dumps, block)) + "\n")
    (made / "flows.csv").write_text(head + "1,0,4,1000000,0\n2,1,5,1000000,0\n3,2,3,1000000,0\n")
    (made / "more.csv").write_text(head + "1,0,4,1000000,0\n2,1,5,2000000,0\n3,2,3,1000000,0\n")
    return str(made)


def metrics(kind: str, change: Change, folder: str) -> dict[str, Any]:
    return _metrics(kind, json.dumps(change), folder)


@cache
def _metrics(kind: str, change: str, folder: str) -> dict[str, Any]:
    document = documents.loads(BASES[kind].replace("FOLDER", folder), "keys.yaml")
    for key, value in json.loads(change.replace("FOLDER", folder)).items():
        path = (key,) if key in ("cluster", "layout", "model", "software") else ("workload", key)
        document.put(path, value, Mark("change"))
    if document.get(("workload", "op")) == "copy":
        document.tree["workload"] = {
            key: value for key, value in document.tree["workload"].items() if key not in "mnk"
        }
    result = run_document(document)
    return dict(flatten(result["metrics"]))


@pytest.mark.parametrize(
    ("kind", "key"),
    [
        pytest.param(kind, key, marks=pytest.mark.slow if kind == "serving" else ())
        for kind, cases in CASES.items()
        for key in cases
    ],
)
def test_another_value_of_a_key_is_another_result(kind: str, key: str, folder: str) -> None:
    case = CASES[kind][key]
    one, other = case if isinstance(case, tuple) else ({}, case)
    assert metrics(kind, one, folder) != metrics(kind, other, folder)


@pytest.mark.parametrize("kind", CASES)
def test_every_key_of_a_kind_is_moved_or_says_why_it_moves_nothing(kind: str) -> None:
    known = {key for key in keys(resolver(kind).specs[kind]) if key != "kind"}
    assert known - {*NO_CASE.get(kind, ())} == {*CASES[kind]}


def fabric(**changes: Any) -> Change:
    return {
        "cluster": {
            "hardware": "h800",
            "nodes": 4,
            "fabric": {"kind": "three_tier", "nodes_per_leaf": 1} | changes,
        }
    }


def fault(**changes: Any) -> Change:
    return {"cluster": {"hardware": "h800", "nodes": 2, "faults": [changes]}}


def bare(**changes: Any) -> Change:
    """A bare fabric of the same hosts with some keys changed."""
    spec = {
        "kind": "leaf_spine", "hosts": 8, "hosts_per_leaf": 2, "spines": 1, "link": "100 Gb/s", "oversubscription": 2,
        "link_latency": "500 ns", "switch_latency": "300 ns", "routing": "ecmp", "payload_per_packet": "4096 B",
        "wire_per_packet": "4160 B",
    }  # fmt: skip
    return {"cluster": {"fabric": spec | changes}}


def pooled(pool: str = "a", **changes: Any) -> Change:
    own = {"hardware": "h800", "nodes": 2} | changes
    pools = {"a": own, "b": {"hardware": "h20", "nodes": 2}}
    return {"cluster": {"pools": pools, "pool": pool, "fabric": {"kind": "three_tier"}}}


def cluster(**changes: Any) -> Change:
    return {"cluster": {"hardware": "h800", "nodes": 2} | changes}


CLUSTERS: dict[str, tuple[str, Change, Change]] = {
    "hardware": ("decode", cluster(), cluster(hardware="h20")),
    "hardware.chip": ("decode", *(cluster(hardware={"chip": chip, "node": "hgx-8nic"}) for chip in ("h800", "h20"))),
    "hardware.node": ("decode", *(cluster(hardware={"chip": "h800", "node": node}) for node in ("hgx-8x800", "dgx-4nic"))),
    "nodes": ("training", cluster(nodes=4), cluster(nodes=8)),
    "gpus": ("training", cluster(nodes=8, gpus=32), cluster(nodes=8, gpus="all")),
    "use_nodes": (
        "decode",
        *(cluster(nodes=4, gpus=16, use_nodes=nodes, faults=[{"node": 3, "bandwidth": "50 %"}]) for nodes in ([0, 1], [2, 3])),
    ),
    "override": ("decode", cluster(), cluster(override={"gpu.hbm.bandwidth": "1 TB/s"})),
    "pool": ("decode", pooled("a"), pooled("b")),
    "pools.nodes": ("training", pooled(nodes=4), pooled(nodes=8)),
    "pools.hardware": ("decode", pooled(), pooled(hardware="h100")),
    "pools.hardware.chip": ("decode", *(pooled(hardware={"chip": chip, "node": "hgx-8nic"}) for chip in ("h800", "h20"))),
    "pools.hardware.node": ("decode", *(pooled(hardware={"chip": "h800", "node": node}) for node in ("hgx-8x800", "dgx-4nic"))),
    "pools.override": ("decode", pooled(), pooled(override={"gpu.hbm.bandwidth": "1 TB/s"})),
    "fabric.kind": ("all_to_all", fabric(), fabric(kind="multi_plane")),
    "fabric.oversubscription": ("all_to_all", fabric(), fabric(oversubscription=4)),
    "fabric.nodes_per_leaf": ("all_to_all", fabric(), fabric(nodes_per_leaf=4)),
    "fabric.routing": ("flows", *(bare(spines=2, oversubscription=1, routing=routing) for routing in ("adaptive", "ecmp"))),
    "fabric.queue_pairs": ("all_to_all", *(fabric(routing="ecmp", queue_pairs=n, nodes_per_leaf=2) for n in (1, 8))),
    "fabric.hosts": ("flows", bare(), bare(hosts=12, link="100 Gb/s")),
    "fabric.hosts_per_leaf": ("flows", bare(), bare(hosts_per_leaf=4, oversubscription=4)),
    "fabric.spines": ("flows", bare(), bare(spines=2, oversubscription=1)),
    "fabric.link": ("flows", bare(), bare(link="200 Gb/s")),
    "fabric.link_latency": ("flows", bare(), bare(link_latency="900 ns")),
    "fabric.switch_latency": ("flows", bare(), bare(switch_latency="900 ns")),
    "fabric.payload_per_packet": ("flows", bare(), bare(payload_per_packet="2048 B")),
    "fabric.wire_per_packet": ("flows", bare(), bare(wire_per_packet="5000 B")),
    "faults.node": ("decode", *(fault(node=1, bandwidth=part) for part in ("99 %", "50 %"))),
    "faults.nic": ("decode", cluster(), fault(node=1, nic=2, bandwidth="20 %")),
    "faults.gpu": ("decode", cluster(), fault(node=1, gpu=2, hbm="50 %")),
    "faults.rail": ("decode", cluster(), fault(rail=2, bandwidth="20 %")),
    "faults.leaf": ("flows", bare(), {"cluster": bare()["cluster"] | {"faults": [{"leaf": "leaf0", "bandwidth": "50 %"}]}}),
    "faults.link": ("flows", bare(), {"cluster": bare()["cluster"] | {"faults": [{"link": "leaf0->spine0", "bandwidth": "50 %"}]}}),
    "faults.bandwidth": ("decode", *(fault(node=1, bandwidth=part) for part in ("40 %", "20 %"))),
    "faults.clock": ("decode", *(fault(node=1, clock=part) for part in ("60 %", "40 %"))),
    "faults.hbm": ("decode", *(fault(node=1, hbm=part) for part in ("60 %", "40 %"))),
    "faults.scale_up": ("decode", *(fault(node=1, scale_up=part) for part in ("20 %", "10 %"))),
    "faults.from": ("decode", *(fault(node=1, hbm="40 %", **{"from": time, "until": "1 s"}) for time in ("0 s", "1 ms"))),
    "faults.until": ("decode", *(fault(node=1, hbm="40 %", **{"from": "0 s", "until": time}) for time in ("1 ms", "2 ms"))),
}  # fmt: skip
"""Keys of a cluster, each with a kind of workload that it moves."""


@pytest.mark.parametrize("key", CLUSTERS)
def test_another_cluster_is_another_result(key: str, folder: str) -> None:
    kind, one, other = CLUSTERS[key]
    assert metrics(kind, one, folder) != metrics(kind, other, folder)


@pytest.mark.parametrize("key", LAYOUTS)
@pytest.mark.parametrize("kind", ["training", "prefill", "decode"])
def test_another_layout_is_another_result(kind: str, key: str, folder: str) -> None:
    one, other = ({"cluster": {"hardware": "h800", "nodes": 4}, "layout": layout} for layout in LAYOUTS[key])
    if key == "dp":
        one, other = (
            {"cluster": {"hardware": "h800", "nodes": n}, "layout": {"ep": 8, "dp": 8 * n}} for n in (2, 4)
        )
    assert metrics(kind, one, folder) != metrics(kind, other, folder)


def test_every_key_of_a_cluster_and_of_a_layout_is_moved() -> None:
    assert {*keys(ClusterSpec)} | {"hardware", "pools.hardware"} == {*CLUSTERS}
    assert {*keys(LayoutSpec)} == {*LAYOUTS}


@pytest.mark.parametrize("kind", ["prefill", "decode"])
def test_what_slows_a_kernel_next_to_compute_slows_a_pass_of_two_microbatches_alone(
    kind: str, folder: str
) -> None:
    """Collectives of one microbatch run next to the compute of the other; those of a single one have the GPU to themselves."""
    slow = {f"beside_compute_slowdown.{way}": 5 for way in ("dispatch", "combine")}
    for overlap in (False, True):
        times_s = [
            metrics(kind, {"overlap": overlap, "kernel": {"kind": "two_hop"} | more}, folder)["step_time_s"]
            for more in ({}, {"override": slow})
        ]
        assert (times_s[1] > times_s[0]) == overlap


# --- figures of files ----------------------------------------------------------------------------------------------

WITH_KERNEL = (
    ("all_to_all", {"cluster": {"hardware": "h100", "nodes": 1}, "layout": {"ep": 8}}),
    ("all_to_all", {"cluster": {"hardware": "h100", "nodes": 1}, "layout": {"ep": 8}, "tokens_per_rank": 4096}),
    ("all_to_all", {"tokens_per_rank": 2}),
    ("all_to_all", {"tokens_per_rank": 4096}),
    ("all_to_all", {"tokens_per_rank": 4096, "cluster": {"hardware": "b200", "nodes": 4, "override": {"nic.bandwidth": "4000 Gb/s"}}}),
    ("training", {"schedule": "dualpipe", "microbatches": 8, "sequence_tokens": 4096}),
)  # fmt: skip
"""Runs between which everything that a kernel reaches of a machine binds somewhere."""
FIGURES = [(name, row.path, row.shown) for name in list_kernels() for row in load_kernel(name).parameters]
LAUNCHED = [
    (name, row.path, row.shown)
    for name in documents.shipped("hardware/software")
    if name != "none"
    for row in load_software(name).parameters
    if (name, row.path) != ("rtp_llm", "sync")  # no launch of its list waits for the device
]


def moved(path: str, shown: str) -> str:
    """A value so much worse that it binds: rates a fiftieth, times and counts twenty times as long or as many."""
    number, _, unit = shown.partition(" ")
    value = float(number)
    if "fraction" in path:
        return f"{value / 2 or 0.3:g}"
    if path == "comm_sms":
        return f"{value + 4:g}"
    if "slowdown" in path or "touches" in path:
        return f"{2 * value:g}"
    return f"{value / 50 if unit == 'GB/s' else (500 if not unit else 20) * (value or {'ns': 200}.get(unit, 5)):g} {unit}".strip()


@pytest.mark.slow
@pytest.mark.parametrize(("name", "path", "shown"), FIGURES)
def test_every_figure_of_a_kernel_moves_a_run(name: str, path: str, shown: str, folder: str) -> None:
    own = {"kind": load_kernel(name).kind, "generation": name}
    other = own | {"override": {path: moved(path, shown)}}
    assert any(
        metrics(kind, change | {"kernel": own}, folder) != metrics(kind, change | {"kernel": other}, folder)
        for kind, change in WITH_KERNEL
    )


SOFT = (
    ("training", {"microbatches": 2}),
    ("training", {"microbatches": 2, "layout": {"pp": 2, "ep": 8, "tp": 2}, "kernel": {"kind": "nccl"}, "model": "deepseek-v2-lite", "recompute": "full"}),
    ("decode", {"requests_per_gpu": 1}),
    ("decode", {"requests_per_gpu": 1, "layout": {"ep": 16, "tp": 2}, "model": "deepseek-v2-lite"}),
)  # fmt: skip
"""Runs whose launches a host issues: with dense layers and shared experts, under TP, with and without graphs."""


@pytest.mark.slow
@pytest.mark.parametrize(("name", "path", "shown"), LAUNCHED)
def test_every_figure_of_a_software_moves_a_run(name: str, path: str, shown: str, folder: str) -> None:
    tree = documents.load(documents.shipped("hardware/software")[name]).copy()
    other = Path(folder) / f"{name}-{path}.yaml"
    at = documents.split(path)
    value = 1 if path == "run_ahead" else moved(path, shown)
    tree.put((*at, "value"), int(value) if str(value).isdecimal() else value, Mark("change"))
    tree.put(("name",), other.stem, Mark("change"))
    other.write_text(yaml.safe_dump(tree.tree))
    assert any(
        metrics(kind, change | {"software": name}, folder)
        != metrics(kind, change | {"software": str(other)}, folder)
        for kind, change in SOFT
    )
