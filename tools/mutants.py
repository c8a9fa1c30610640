"""Mutants chosen by hand, the tests that cover each module, and generated mutants that change nothing."""

from __future__ import annotations

_COLLECTIVES, _REDUCTIONS = "sim/schedule/collectives", "sim/schedule/reductions"

CHOSEN: tuple[tuple[str, str, str, str, str], ...] = (
    # module, function, expression, what it becomes, what it stands for
    (_REDUCTIONS, "scatter_s", "(near > 1) + (far > 1)", "(near > 1) or (far > 1)", "one latency for two stages"),
    (_REDUCTIONS, "scatter_s", "total_bytes / near * (far - 1)", "total_bytes * (far - 1)", "whole buffer over the NIC"),
    (_REDUCTIONS, "optimizer_s", "2 * scatter_s(links, 2.0 * parameters.experts, layout.expert_dp, layout.ep)",
     "2 * scatter_s(links, 2.0 * parameters.experts, layout.dp, layout.ep)", "experts reduced over DP"),
    (_REDUCTIONS, "tensor_parallel_s", "2 * scatter_s(links, activation_bytes, tp)",
     "scatter_s(links, activation_bytes, tp)", "half an all-reduce"),
    (_REDUCTIONS, "", "4 + 2 * (4 + 4) + 2", "4 + 2 * (4 + 4)", "weights not written back"),
    (_REDUCTIONS, "HeldParameters.shard", "layout.dp * layout.cp", "layout.dp", "states not cut over CP"),
    (_REDUCTIONS, "Phase.fraction", "(far - 1) / far / self.near", "(far - 1) / far", "whole buffer between nodes"),
    ("sim/cost/memory", "buffer_bytes", "4 * tokens * record", "2 * tokens * record", "pipeline buffers of one direction"),
    ("sim/cost/memory", "buffer_bytes", "2 * ranks_per_token * tokens * record", "ranks_per_token * tokens * record",
     "results of one half"),
    ("sim/cost/memory", "memory", "layout.dp * layout.cp", "layout.dp", "optimizer not cut over CP"),
    ("sim/scenario/training", "_run_costs", "tdp * run.gpu_load + run.host_power + run.network_power",
     "tdp * run.gpu_load + run.host_power", "network power dropped"),
    ("sim/cost/attention", "_core_s", "max(0.0, longest - math.ceil(before_tokens / block)) / 2.0", "0.0",
     "attention's exposed half"),
    ("sim/cost/attention", "_core_s", "max(0.0, longest - math.ceil(before_tokens / block)) / 2.0",
     "max(0.0, longest - math.ceil(before_tokens / block))", "all of the longest row exposed"),
    (_COLLECTIVES, "Collective.scale_out", "max(1, self.comm_sms // 2)", "max(1, self.comm_sms)", "queue pairs = comm_sms"),
    (_COLLECTIVES, "", "4160 / 4096", "1.0", "headers = 1"),
    (_COLLECTIVES, "_node_flows", "others if x.mirrored else everyone - others", "everyone - others",
     "HBM of combine not mirrored"),
    (_COLLECTIVES, "_node_flows", "not x.mirrored", "True", "combine reads HBM at every receiver too"),
    (_COLLECTIVES, "Collective.mirrored", "self.direction == 'combine' and self.kind.mirrored", "False",
     "combine loads the side of dispatch"),
    (_COLLECTIVES, "Collective.memory", "records * self.kernel.hbm_touches[self.direction]", "records", "HBM touched once"),
    (_COLLECTIVES, "Collective.copy", "per_sm * self.comm_sms", "per_sm", "one SM copies"),
    ("sim/runs/training_metrics", "_rates", "work.step_tokens / step_s / work.layout.num_ranks",
     "work.step_tokens / step_s / work.layout.num_ranks * work.layout.cp", "throughput times CP"),
    ("sim/runs/training_metrics", "_run", "seconds / 3600 * work.layout.num_ranks",
     "seconds / 3600 * work.layout.num_ranks / work.layout.cp", "GPU-hours of one CP rank"),
    ("sim/runs/step_parts", "inside_layers_s", "reduced + 2 * gathered", "reduced + gathered",
     "keys gathered once in the backward"),
    ("sim/runs/step_parts", "inside_layers_s", "work.microbatch_tokens / layout.cp", "work.microbatch_tokens",
     "reductions of the whole sequence"),
    ("sim/schedule/sends", "send_flows", "part * fraction * HEADERS", "part * fraction", "sends without headers"),
    ("sim/cluster/paths", "extra_latency_s", "hops * step", "step", "latency within a leaf too"),
    ("sim/cluster/fabrics", "_three_tier", "rate * gpus_per_node / fabric.oversubscription", "rate * gpus_per_node",
     "cores not oversubscribed"),
    ("sim/cluster/kernels", "Kernel.fixed_s", "latency.per_remote_peer[direction] * num_remote_peers",
     "latency.per_remote_peer[direction]", "one peer's cost"),
    ("sim/engine/sharing", "max_min", "share[f] * level[r] if share[f] > 0.0 else 0.0", "level[r]", "all shares equal"),
    ("sim/workload/model", "training_flops_per_token", "6.0 * count.matmul + 3.0 * core", "6.0 * count.matmul + core",
     "attention without its backward"),
)  # fmt: skip

_CLUSTER = ["tests/cluster/test_paths.py", "tests/cluster/test_topology.py", "tests/schedule/test_collectives.py"]
_COST = ["tests/cost", "tests/validation/test_gemm.py", "tests/validation/test_inference_bars.py"]
_STEP = ["tests/schedule/test_reductions.py", "tests/schedule/test_stage_times.py", "tests/runs/test_step_fabric.py",
         "tests/runs/test_step_costs.py"]  # fmt: skip
_PASS = ["tests/runs/test_inference.py", "tests/runs/test_pass_bound.py"]
COVERS: dict[str, list[str]] = {
    "sim/cluster": [*_CLUSTER, "tests/cluster", "tests/runs/test_oracles.py"],
    "sim/cluster/export_rules": ["tests/cluster/test_export_rules.py"],
    "sim/cluster/sizes": ["tests/scenario/test_sizes.py"],
    "sim/workload": ["tests/workload", "tests/cost/test_memory.py", "tests/runs/test_oracles.py"],
    "sim/cost": [*_COST, "tests/runs/test_inference.py", "tests/runs/test_serving.py"],
    "sim/schedule": ["tests/schedule", *_STEP, *_PASS],
    "sim/schedule/collectives": [
        "tests/schedule/test_collectives.py", "tests/schedule/test_kernel_kinds.py",
        "tests/runs/test_oracles.py", "tests/runs/test_generations.py",
    ],
    "sim/schedule/serving": ["tests/runs/test_serving.py"],
    "sim/engine": ["tests/engine", "tests/validation/test_simgrid.py"],
    "sim/engine/serving": ["tests/runs/test_serving.py"],
    "sim/engine/inference": _PASS,
    "sim/runs": [*_PASS, "tests/runs/test_oracles.py", "tests/runs/test_moe_layer.py", "tests/runs/test_metric_table.py"],
    "sim/runs/training": _STEP,
    "sim/runs/training_metrics": _STEP,
    "sim/runs/step_parts": _STEP,
    "sim/runs/step_reductions": _STEP,
    "sim/runs/step_traffic": _STEP,
    "sim/runs/serving": ["tests/runs/test_serving.py"],
    "sim/runs/service": ["tests/runs/test_serving.py", "tests/runs/test_step_surface.py"],
    "sim/runs/step_surface": ["tests/runs/test_step_surface.py", "tests/runs/test_serving.py"],
    "sim/runs/metrics": ["tests/runs/test_oracles.py", "tests/engine/test_network.py"],
    "sim/scenario": _STEP,
}  # fmt: skip
"""Module or room -> test files, the fastest to find something first; the longest name that fits counts."""

EQUIVALENT: frozenset[tuple[str, str, str, str]] = frozenset()
"""Module, function, expression and what it becomes: generated mutants that compute the same."""
