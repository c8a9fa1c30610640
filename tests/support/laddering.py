"""What tests of ladders share: a small ladder of dispatches, one of decoding in which a design does not fit, and how they run."""

from __future__ import annotations

import copy
from functools import cache
from typing import Any

from sim import documents
from sim.ladders import run as ladders
from sim.ladders.spec import ladder_of

SMALL = """\
name: small
title: "Small: two nodes"
base: &base
  cluster: {hardware: h800, nodes: 2}
  model: deepseek-v3
  workload:
    kind: all_to_all
    tokens_per_rank: 2048
    gate: {kind: group_limited, sampling: expected}
    kernel: {kind: two_hop}
set:
  workload.kernel: {kind: flat, copies: per_expert}
  workload.dispatch_dtype: bf16
hardware:
  h800: {}
  h100: {cluster.hardware: h100}
  h800-450: {cluster.override: {gpu.scale_up.bandwidth: 450 GB/s}}
metric: dispatch.time_s
rungs:
  per-rank:
    set: {workload.kernel: {kind: flat, copies: per_rank}}
    without: {workload.kernel: {kind: flat, copies: per_expert}}
    works_around: the NIC
  two-hop:
    title: Two hops
    set: {workload.kernel: {kind: two_hop}}
    without: {workload.kernel: {kind: flat, copies: per_rank}}
  fp8: {set: {workload.dispatch_dtype: fp8}}
enough:
  nvlink: {key: gpu.scale_up.bandwidth}
  naive: {key: nic.bandwidth, naive: true, hardware: h100, within: [10 %]}
curves:
  ep: {title: EP, base: *base, points: {8: {cluster.nodes: 1}, 16: {}, 32: {cluster.nodes: 4}}}
  tokens: {key: workload.tokens_per_rank, points: [64, 2048]}
"""
"""Two nodes, three choices; its exchanges take milliseconds."""

DECODE = """\
name: batch
base: v3-decode-ep128
set: {workload.requests_per_gpu: 20}
hardware:
  h800: {}
  dear: {cluster.hardware: h100, cluster.override: {cost.gpu_hour: {value: 4 $/GPU-hour, grade: assumed, why: a test}}}
metric: tokens_per_s_per_gpu
rungs:
  too-many: {set: {workload.requests_per_gpu: 400}}
  some: {set: {workload.requests_per_gpu: 120}}
"""
"""A rung that does not fit on either machine, and machines of two prices."""


def run(text: str) -> dict[str, Any]:
    """The document of a ladder from its text, which runs once."""
    return copy.deepcopy(_ran(text))


@cache
def _ran(text: str) -> dict[str, Any]:
    return ladders.run(ladder_of(documents.loads(text, "small.yaml")))


def rung(document: dict[str, Any], name: str) -> dict[str, Any]:
    """A rung of a document by its name."""
    return next(one for one in document["rungs"] if one["name"] == name)
