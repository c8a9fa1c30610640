"""Serving on one pool of eight ranks, each an H100, that prefill and decode in turn, as a scenario that lacks its arrivals."""

from __future__ import annotations

ONE_POOL = """
name: one-pool
cluster: {hardware: h100, nodes: 1}
model: qwen3-30b-a3b
workload:
  kind: serving
  prefill:
    ep: 8
    batch_tokens: 4096
    plan: {gate: {kind: uniform, sampling: expected}, overlap: false, kernel: {kind: two_hop}}
  decode:
    instances: 0
    ep: 8
    plan: {gate: {kind: uniform, sampling: expected}, overlap: false, kernel: {kind: low_latency}}
"""
