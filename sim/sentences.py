"""Sentences of keys that mean the same wherever they stand in a file, for JSON Schema.

A key whose meaning is its own has its sentence beside its field; these would be said again in every class that has the key.
"""

from __future__ import annotations

from typing import Any

KEYS = {
    # --- every file
    "name": "Name of the file; results go to results/NAME.",
    "title": "Name for a reader.",
    "kind": "Its kind, which says what other keys it has.",
    "file": "A file, relative to the one that names it.",
    "source": "Where a value comes from.",
    "value": "The value that is expected.",
    "seed": "Seed of everything that is drawn.",
    # --- scenario
    "fidelity": "flow: every flow shares the network; closed_form: an equation for even loads.",
    "cluster": "The machines and their fabric.",
    "layout": "Sizes of the groups that ranks stand in.",
    "workload": "What runs on them.",
    "question": "What the file asks; its report opens with it.",
    "expect": "Metric -> a value to meet; missed, the run exits with 1.",
    "nodes": "Nodes of the cluster, scale-up domains each.",
    "fabric": "The network between nodes.",
    "faults": "Parts that are worse than they should be.",
    "routing": "adaptive: packets over all paths; ecmp: each flow hashed to one; static: paths given in the flows.",
    "oversubscription": "A leaf's rate down over its rate up.",
    "node": "A node, counted from 0.",
    "hosts": "Hosts of the fabric.",
    "hosts_per_leaf": "Hosts that one leaf joins.",
    "spines": "Switches that join the leaves.",
    "ep": "Expert parallelism: GPUs that share the experts of a layer.",
    "pp": "Pipeline parallelism: stages.",
    "tp": "Tensor parallelism: GPUs that share each matrix.",
    "dp": "Data parallelism: replicas of everything but experts.",
    "cp": "Context parallelism: GPUs that share a sequence.",
    # --- all-to-alls
    "tokens_per_rank": "Tokens that each rank sends.",
    "bytes_per_rank": "Bytes that each rank holds before it.",
    "gate": "What chooses the experts of a token.",
    "kernel": "The all-to-all kernel.",
    "dispatch_dtype": "Format of tokens on their way to experts.",
    "combine_dtype": "Format of results on their way back.",
    "placement": "Which rank holds which expert.",
    "top_groups": "Groups of experts that a token may reach; the model's when left out.",
    "num_groups": "Groups of experts; the model's when left out.",
    "group_score": "What ranks a group: its best expert, or the sum of its two best.",
    "alpha": "Concentration of the loads; the smaller, the less even.",
    "exponent": "Of the popularity of experts by rank; 0 is even.",
    "copies": "A copy of a token for each rank, or for each expert.",
    "comm_sms": "SMs that move bytes.",
    "dispatch": "Of tokens on their way to experts.",
    "combine": "Of results on their way back.",
    # --- training, prefill and decode
    "reward": "What judges the samples.",
    "sync": "How new weights come to what rolls out.",
    "launches": "Launches of each operation of a layer.",
    "shared_experts": "Of the shared experts.",
    "engine": "Policies of the engine: chunks, paging, caches, routing.",
    "optimizer": "Kind, formats, sharding and place of the optimizer.",
    "kv_dtype": "Format of the cache.",
    "gemm_generation": "Generation of the matrix kernels.",
    "prompt_tokens": "Tokens of a prompt.",
    "sequence_tokens": "Tokens of a sequence.",
    "microbatch_sequences": "Sequences of a microbatch.",
    "schedule": "Order of the pipeline's forwards and backwards.",
    "compute": "modelled: times from shapes; measured: those of a profile.",
    "cp_comm": "How ranks of CP come by keys and values: all_gather, before the core; p2p, round a ring next to it.",
    "recompute": "What is computed again in the backward pass instead of being kept.",
    "skew": "How unlike ranks are: routed loads, kernels, GPUs.",
    "run": "The whole run that such steps are of.",
    # --- serving
    "ttft": "Time to the first token that counts as good.",
    "tpot": "Time per output token that counts as good.",
    "requests": "Requests that arrive.",
    "requests_per_s": "Requests that arrive a second.",
    "prompt": "Lengths of prompts.",
    "output": "Lengths of answers.",
    "instances": "Deployments of this pool.",
    "arrivals": "When requests come, and how long they are.",
    "prefill": "The pool that computes prompts.",
    "decode": "The pool that generates.",
    "slo": "What counts as good.",
    # --- sweeps and ladders
    "sample": "A random part of the space instead of all of it.",
    "points": "How many points.",
    "from": "First value.",
    "to": "Last value.",
    "step": "Difference of two values.",
    "times": "Ratio of two values.",
    "base": "A scenario of its own: a shipped name, a path, or the scenario itself.",
    "set": "Dotted keys laid over it.",
    "metric": "The metric that is compared; the ladder's when left out.",
    "naive": "On the naive design instead of the full one.",
    "enough": "Searches for how much of a figure of the machine is enough.",
    "curves": "Machines along an axis.",
    "exchange": "All-to-alls of many designs, by the NVLink bytes that they ask for each NIC byte.",
    "search": "The best design of each machine over a space of designs, free and with one choice held.",
    "designs": "Published designs by name, told among the others.",
    "headroom": "The most of something that each machine affords.",
    # --- machines, models and kernels
    "year": "Year in which it was sold first.",
    "gpu": "The accelerator.",
    "cost": "Prices.",
    "fp64": "Dense rate of FP64 products on tensor cores.",
    "fp8": "Dense rate of FP8 products on tensor cores.",
    "int8": "Dense rate of INT8 products on tensor cores.",
    "fp4": "Dense rate of FP4 products on tensor cores.",
    "dense_flops": "Dense rates of the tensor cores by format.",
    "die_area": "Area of its dies together.",
    "power": "Power that it may draw.",
    "hbm": "Its memory.",
    "l2": "Its cache.",
    "scale_up": "The link to the GPUs of its domain.",
    "num_layers": "Layers, dense ones included.",
    "attention": "The attention of its layers.",
    "vocab": "Tokens of the vocabulary.",
    "num_heads": "Heads of queries.",
    "num_kv_heads": "Heads of keys and values.",
    "head_dim": "Width of a head.",
    "v_head_dim": "Width of a value.",
    "latency": "Fixed time of one exchange.",
    "single_node": "Within one node.",
    "over_nic": "Between nodes.",
}  # fmt: skip
"""Key -> its sentence."""


def add_sentences(schema: dict[str, Any]) -> dict[str, Any]:
    """Give each key of a JSON Schema that has no description its sentence from `KEYS`; returns the schema."""
    for node in (schema, *schema.get("$defs", {}).values()):
        for key, entry in node.get("properties", {}).items():
            if key in KEYS:
                entry.setdefault("description", KEYS[key])
    return schema
