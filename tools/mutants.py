"""Mutants chosen by hand, the tests that cover each module, and generated mutants that change nothing."""

from __future__ import annotations

_COLLECTIVES, _REDUCTIONS = "sim/schedule/collectives", "sim/schedule/reductions"

CHOSEN: tuple[tuple[str, str, str, str, str], ...] = (
    # module, function, expression, what it becomes, what it stands for
    (_REDUCTIONS, "scatter_s", "(near > 1) + (far > 1)", "(near > 1) or (far > 1)", "one latency for two stages"),
    (_REDUCTIONS, "scatter_s", "total_bytes / near * (far - 1)", "total_bytes * (far - 1)", "whole buffer over the NIC"),
    (_REDUCTIONS, "optimizer_s", "WEIGHT_BYTES * getattr(gathered, what)", "0.0 * getattr(gathered, what)", "weights not gathered"),
    (_REDUCTIONS, "tensor_parallel_s", "2 * scatter_s(links, activation_bytes, tp, near)",
     "scatter_s(links, activation_bytes, tp, near)", "half an all-reduce"),
    ("sim/cost/optimizer", "Optimizer.update_bytes", "self.gradient_bytes + WEIGHT_BYTES", "self.gradient_bytes", "weights not written back"),
    (_REDUCTIONS, "HeldParameters.shard", "layout.dp * layout.cp", "layout.dp", "states not cut over CP"),
    (_REDUCTIONS, "Phase.fraction", "(far - 1) / far / self.near", "(far - 1) / far", "whole buffer between nodes"),
    ("sim/cost/memory", "buffer_bytes", "4 * tokens * 2.0 * model.hidden", "2 * tokens * 2.0 * model.hidden", "pipeline buffers of one direction"),
    ("sim/cost/memory", "buffer_bytes", "2 * ranks_per_token * tokens * record", "ranks_per_token * tokens * record",
     "results of one half"),
    ("sim/cost/memory", "memory", "layout.dp * layout.cp", "layout.dp", "optimizer not cut over CP"),
    ("sim/cost/power", "Energy.total_j", "self.gpu_j + self.network_j + self.host_j", "self.gpu_j + self.host_j",
     "network power dropped"),
    ("sim/cost/attention", "_core_s", "max(0.0, longest - math.ceil(before_tokens / block)) / 2.0", "0.0",
     "attention's exposed half"),
    ("sim/cost/attention", "_core_s", "max(0.0, longest - math.ceil(before_tokens / block)) / 2.0",
     "max(0.0, longest - math.ceil(before_tokens / block))", "all of the longest row exposed"),
    (_COLLECTIVES, "Collective._uplinks", "max(1, self.comm_sms // 2)", "max(1, self.comm_sms)", "queue pairs = comm_sms"),
    (_COLLECTIVES, "", "4160 / 4096", "1.0", "headers = 1"),
    (_COLLECTIVES, "_node_flows", "others if x.mirrored else everyone - others", "everyone - others",
     "HBM of combine not mirrored"),
    (_COLLECTIVES, "_node_flows", "not x.mirrored", "True", "combine reads HBM at every receiver too"),
    (_COLLECTIVES, "Collective.mirrored", "self.direction == 'combine' and self.kind.mirrored", "False",
     "combine loads the side of dispatch"),
    (_COLLECTIVES, "Collective.memory", "records * self.kernel.hbm_touches[self.direction]", "records", "HBM touched once"),
    (_COLLECTIVES, "Collective.copy", "self.comm_sms", "1", "one SM copies"),
    ("sim/runs/training_metrics", "rates_of", "work.step_tokens / step_s / work.layout.num_ranks",
     "work.step_tokens / step_s / work.layout.num_ranks * work.layout.cp", "throughput times CP"),
    ("sim/runs/step_parts", "inside_layers_s", "reduced + 2 * gathered", "reduced + gathered",
     "keys gathered once in the backward"),
    ("sim/runs/step_parts", "shared_bytes", "work.microbatch_tokens / layout.cp", "work.microbatch_tokens",
     "reductions of the whole sequence"),
    ("sim/schedule/sends", "send_flows", "part * fraction * HEADERS", "part * fraction", "sends without headers"),
    ("sim/cluster/paths", "extra_latency_s", "path_s - same_s", "path_s", "latency within a leaf too"),
    ("sim/cluster/fabrics", "_three_tier", "pods[pod] / fabric.oversubscription", "pods[pod]",
     "cores not oversubscribed"),
    ("sim/cluster/kernels", "Kernel.fixed_s", "latency.per_remote_peer[direction] * num_remote_peers",
     "latency.per_remote_peer[direction]", "one peer's cost"),
    ("sim/engine/sharing", "max_min", "share[f] * level[r] if share[f] > 0.0 else 0.0", "level[r]", "all shares equal"),
    ("sim/workload/model", "training_flops_per_token", "6.0 * count.matmul + 3.0 * core", "6.0 * count.matmul + core",
     "attention without its backward"),
)  # fmt: skip

_COMPUTE = ["tests/cost/test_compute.py", "tests/cost/test_work.py", "tests/validation/test_gemm.py"]
_SERVED = [
    "tests/runs/test_inference.py",
    "tests/runs/test_pass_bound.py",
    "tests/validation/test_inference_bars.py",
]
_STEP = [
    "tests/schedule/test_stage_times.py",
    "tests/runs/test_step_fabric.py",
    "tests/runs/test_step_costs.py",
]
_PIPELINE = ["tests/schedule/test_pipelines.py", "tests/engine/test_step.py"]
COVERS: dict[str, list[str]] = {
    "sim/cluster": ["tests/cluster", "tests/schedule/test_collectives.py"],
    "sim/cluster/sizes": ["tests/scenario/test_sizes.py"],
    "sim/cluster/fabrics": ["tests/cluster/test_topology.py", "tests/cluster/test_paths.py", "tests/runs/test_step_fabric.py"],
    "sim/cost": [*_COMPUTE, *_SERVED],
    "sim/cost/layers": [*_COMPUTE, "tests/schedule/test_stage_times.py", "tests/validation/test_layer_pair.py"],
    "sim/cost/ends": [*_COMPUTE, "tests/schedule/test_stage_times.py", "tests/runs/test_step_costs.py"],
    "sim/cost/memory": ["tests/cost/test_memory.py"],
    "sim/cost/measured": ["tests/schedule/test_stage_times.py", "tests/calibration"],
    "sim/cost/surfaces": ["tests/runs/test_step_surface.py", "tests/runs/test_serving.py"],
    "sim/cost/tpot": ["tests/runs/test_inference.py"],
    "sim/schedule": [*_PIPELINE, *_STEP],
    "sim/schedule/bounds": ["tests/schedule/test_collectives.py", "tests/runs/test_oracles.py"],
    "sim/schedule/collectives": [
        "tests/schedule/test_collectives.py", "tests/schedule/test_kernel_kinds.py", "tests/runs/test_oracles.py",
        "tests/runs/test_generations.py",
    ],
    "sim/schedule/flow_list": ["tests/schedule/test_flows.py", "tests/scenario/test_bad_input.py"],
    "sim/schedule/flows": ["tests/schedule/test_flows.py", "tests/schedule/test_collectives.py"],
    "sim/schedule/inference": _SERVED,
    "sim/schedule/programs": ["tests/schedule/test_programs.py", *_STEP],
    "sim/schedule/record_sizes": ["tests/schedule/test_flows.py", "tests/schedule/test_kernel_kinds.py", "tests/runs/test_oracles.py"],
    "sim/schedule/reductions": ["tests/schedule/test_reductions.py", "tests/runs/test_step_fabric.py"],
    "sim/schedule/sends": ["tests/runs/test_step_fabric.py"],
    "sim/schedule/serving": ["tests/runs/test_serving.py"],
    "sim/schedule/step_bound": ["tests/schedule/test_step_bound.py", "tests/runs/test_step_costs.py"],
    "sim/engine": ["tests/engine/test_step.py"],
    "sim/engine/executor": ["tests/schedule/test_collectives.py"],
    "sim/engine/fluid": ["tests/engine/test_fluid.py", "tests/engine/test_network.py"],
    "sim/engine/fluid_loop": ["tests/engine/test_fluid.py", "tests/engine/test_network.py"],
    "sim/engine/sharing": ["tests/engine/test_fluid.py", "tests/engine/test_network.py"],
    "sim/engine/network": ["tests/engine/test_network.py"],
    "sim/engine/serving": ["tests/runs/test_serving.py"],
    "sim/engine/transfers": ["tests/runs/test_serving.py"],
    "sim/runs": [*_SERVED, "tests/runs/test_generations.py"],
    "sim/runs/all_to_all": ["tests/runs/test_oracles.py", "tests/runs/test_generations.py"],
    "sim/runs/flows": ["tests/runs/test_laws.py", "tests/scenario/test_faults.py"],
    "sim/runs/kernel_list": ["tests/cost/test_work.py"],
    "sim/runs/metrics": ["tests/runs/test_oracles.py"],
    "sim/runs/moe_layer": ["tests/runs/test_moe_layer.py"],
    "sim/runs/routing": ["tests/runs/test_oracles.py"],
    "sim/runs/service": ["tests/runs/test_step_surface.py", "tests/runs/test_serving.py"],
    "sim/runs/serving": ["tests/runs/test_serving.py"],
    "sim/runs/step_parts": _STEP,
    "sim/runs/step_reductions": _STEP,
    "sim/runs/step_surface": ["tests/runs/test_step_surface.py", "tests/runs/test_serving.py"],
    "sim/runs/step_traffic": _STEP,
    "sim/runs/training": [*_STEP, "tests/schedule/test_step_bound.py"],
    "sim/runs/training_metrics": _STEP,
    "sim/scenario": _STEP,
    "sim/workload": ["tests/workload"],
}  # fmt: skip
"""Module or room -> test files, the fastest to find something first; the longest name that fits counts."""

EQUIVALENT: dict[tuple[str, str], str] = {
    ("sim/cluster/paths", "_hash"): "any constants mix as well",
    ("sim/engine/folding", "mixed"): "any constants mix as well",
    ("sim/engine/folding", "rounded"): "any digits between the sums' and the inputs' do",
}
"""Module and function that are not mutated, and why every change of them computes the same."""
