"""A small iteration of reinforcement learning of Mixtral, for tests of its stages and pools."""

from __future__ import annotations

import functools
from typing import Any

from sim import documents
from sim.documents import Document
from sim.runs.run import run_document

TOGETHER = "{hardware: h800, nodes: 4}"
APART = "{pools: {rollout: {hardware: h20, nodes: 2}, update: {hardware: h800, nodes: 4}}}"
POOLS = "{rollout: rollout, update: update}"
JUDGE_POOLS = "{rollout: rollout, update: update, reward: reward}"
PARTIAL = "tail: {kind: partial_rollouts, done: 75 %}"
JUDGED = "reward: {model: qwen3-30b-a3b, prefill: {layout: {ep: 8}, overlap: false, kernel: {kind: two_hop}}}"
JUDGES = APART[:-2] + ", reward: {hardware: h20, nodes: 1}}}"
TEXT = """\
name: small
cluster: CLUSTER
model: mixtral-8x7b
workload:
  kind: rl_step
  prompts: 32
  samples: 4
  prompt_tokens: 128
  lengths: {kind: lognormal, mean: 500, spread: 1, most: 2000}
  rollout: {layout: {ep: 8}, overlap: false, kernel: {kind: low_latency}, gate: {kind: uniform, sampling: expected}}
  update: {layout: {pp: 4, ep: 8}, schedule: 1f1b, precision: bf16, dispatch_dtype: bf16, kernel: {kind: two_hop},
    skew: {routed_load: 0, kernel_jitter: 0, gpu_spread: 0}}
  pools: POOLS
  MORE
"""


def document(cluster: str = TOGETHER, pools: str = "colocated", more: str = "") -> Document:
    text = TEXT.replace("CLUSTER", cluster).replace("POOLS", pools).replace("MORE", more)
    return documents.loads(text, "mine.yaml")


@functools.cache
def ran(cluster: str = TOGETHER, pools: str = "colocated", more: str = "") -> dict[str, Any]:
    return run_document(document(cluster, pools, more))
