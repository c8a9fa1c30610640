"""Mutants chosen by hand, and why some that are drawn are let live."""

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
    ("sim/engine/sharing", "_freeze", "share[f] * s.level[r] if share[f] > 0.0 else 0.0", "s.level[r]", "all shares equal"),
    ("sim/workload/model", "training_flops_per_token", "6.0 * count.matmul + 3.0 * core", "6.0 * count.matmul + core",
     "attention without its backward"),
)  # fmt: skip

EQUIVALENT: dict[tuple[str, str, str, str], str] = {
    ("sim/runs/afd", "AfdPass._fixed_s",
     "self.work.kernel.beyond_s(c.scale_up_latency_s, c.same_leaf_latency_s, uses_nic=True)", ""):
        "where a NIC is used both latencies count, alike",
    ("sim/engine/step_host", "_entry_back", "1", "2"): "another number below zero for no node",
    ("sim/workload/huggingface", "_Configuration.number", "1", "2"): "stands for a number that is a problem, which ends the reading",
    ("sim/workload/expectation", "_splits", "1", "2"): "ways of which there are none, or that take too many and are left out",
    ("sim/runs/service_faults", "", "2048", "2049"): "tokens of any number cross the same links",
    ("sim/engine/step_templates", "can_fill", "num * num <= _DENSE_PAIRS * len(led)", ""): "which of two ways with equal results runs",
    ("sim/cost/serving_kernels", "mtp_join",
     "work.part(work.streaming(p, 'norms of the join', rows * d * 3 * BF16, count=2), "
     "work.gemm(p, 'join', rows, d, 2 * d, precision))", ""): "launches of a part, in another order",
    ("sim/runs/passes", "ForwardPass.loads", "0", "1"): "an array with one other length of none is as empty",
    ("sim/cluster/paths", "_hash", "", ""): "any constants mix as well",
    ("sim/engine/folding", "mixed", "", ""): "any constants mix as well",
    ("sim/engine/folding", "rounded", "", ""): "any digits between the sums' and the inputs' do",
    ("sim/cost/layers", "moe_mlp", "transposed_cast(b, d, rows, from_fp8=True)", ""): "rows times columns either way",
    ("sim/runs/serving_metrics", "_queue", "1e-12", ""): "any span above none keeps the division",
    ("sim/schedule/pipelines", "", "128", ""): "a table with room for one letter more",
    ("sim/engine/fluid", "drained", "0", "1"): "nobody reads the log of rates that is emptied there",
    ("sim/cost/power", "Machines", "1.0", "2.0"): "a rate of ports where there are none",
    ("sim/engine/step", "_loop", "max(lanes.num_lanes, int(net.sizes[0]))", ""): "which of two loops with equal results runs",
}  # fmt: skip
"""Module, function, expression and what it becomes (empty: any) of mutants that compute the same, and why."""

LEFT: dict[tuple[str, str, str, str], str] = {
    ("sim/runs/pass_conditions", "slowed_nodes.slowed", "1.0", "2.0"): "the rate of links on which no time of such a pass depends",
    ("sim/workload/stages", "_balanced", "0.0", "1.0"): "one FLOP of a token more than the head alone",
    ("sim/schedule/serving", "draw_steps", "1", "2"): "how many rows are drawn at once: other draws of the same kind",
    ("sim/engine/step_templates", "Weights.from_transfers", "-1", "1"): "differs only where no entry has the first key of all",
    ("sim/runs/afd_surface", "afd_surface", "1", "2"): "how busy links are at the second largest load instead of the largest",
}  # fmt: skip
"""Mutants that change something that no test sees, and why they are left."""
