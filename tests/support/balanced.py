"""A balanced step of Mixtral on 32 H800 as a scenario, for tests of what a fabric and faults do to it."""

from __future__ import annotations

SCENARIO = """\
name: mine
cluster: {{hardware: h800, nodes: 4, fabric: {fabric}, faults: {faults}}}
model: mixtral-8x7b
layout: {{pp: 4, ep: 8}}
workload:
  kind: training
  sequence_tokens: 4096
  microbatches: 1
  schedule: 1f1b
  precision: bf16
  dispatch_dtype: bf16
  recompute: full
  kernel: {{kind: two_hop, comm_sms: 20}}
  skew: {{routed_load: 0, kernel_jitter: 0, gpu_spread: 0}}
"""
"""To be formatted with `fabric` and `faults`."""
