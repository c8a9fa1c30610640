"""Metrics of results: the one table of their names, units, directions, labels and meanings.

The table of docs/results.md, the names that `expect`, `objectives` and a ladder's `metric` accept, the better direction, and the words of tables
and sentences come from here; `tests/runs/test_metric_table.py` holds it equal to what runs report. Instants that a meaning
speaks of are defined in the module that measures (`sim/runs/metrics.py`, `training_metrics.py`, `inference.py`, `serving.py`).
"""

from __future__ import annotations

import itertools
import re
from collections.abc import Collection, Mapping
from dataclasses import dataclass, replace
from typing import Literal

from sim import units

_PASSES = ("prefill", "decode")
_STEPS = ("training", *_PASSES)
_ALL = ("all_to_all", "flows", *_STEPS, "serving", "rl_step")
_SPREADS = (
    "{ttft,ttft_alone,ttft_bound,tpot,tpot_bound,response,prefill_wait,decode_wait,step_wait,kv_transfer}"
)
_KERNELS = "{dispatch,combine,exchange}"
_TOKENS = "{dispatch,combine}"
WORD = "word"
"""Unit of a metric that is no number."""


@dataclass(frozen=True, slots=True)
class Metric:
    """One metric, or several whose names differ in a part: `{dispatch,combine}.time_s`.

    `unit` is a dimension of `sim.units`, a `WORD`, or what is counted. `label` heads a column, `phrase` is for sentences, with {}
    for the first part of the name; where they are left out the name serves.
    """

    name: str
    kinds: tuple[str, ...]
    unit: str
    better: Literal["lower", "higher"] | None
    meaning: str
    label: str = ""
    phrase: str = ""
    by_class: bool = False
    """Also of each class of requests, as `classes.NAME.` and this name."""

    @property
    def dimension(self) -> str:
        """The dimension of `sim.units` that its values are shown in."""
        return self.unit if self.unit in units.DIMENSIONS else "number"

    @property
    def names(self) -> tuple[str, ...]:
        """All names that it stands for."""
        parts = [part.split(",") for part in re.split(r"[{}]", self.name)[1::2]]
        between = re.split(r"\{[^}]*\}", self.name)
        return tuple(
            between[0] + "".join(part + text for part, text in zip(chosen, between[1:], strict=True))
            for chosen in itertools.product(*parts)
        )


TABLE = (
    # --- kernels and flows
    Metric(f"{_KERNELS}.time_s", ("all_to_all",), "s", "lower",
           "mean over ranks of end minus the common start, as DeepEP's benchmark prints", phrase="{}"),
    Metric(f"{_KERNELS}.completion_time_s", ("all_to_all",), "s", "lower", "end of the last rank minus the start"),
    Metric("time_s", ("collective", "launch"), "s", "lower",
           "mean over ranks of end minus the common start, as nccl-tests print; of a launch its own time", phrase="it"),
    Metric("completion_time_s", ("flows", "collective"), "s", "lower", "end of the last flow or rank minus the first start"),
    Metric(f"{_KERNELS}.lower_bound_s", ("all_to_all",), "s", "lower",
           "bytes over data-sheet rate on the busiest resource; bounds `completion_time_s`"),
    Metric(f"{_KERNELS}.binding", ("all_to_all",), WORD, None,
           "class that was full longest on the last rank's way: `nic`, `scale_up`, `leaf_uplink`, `pcie`, `copy_sms`, `hbm`, "
           "`compute` or `latency`"),
    Metric("binding", ("flows", "collective", "launch"), WORD, None,
           "the same of the way of the last flow or rank; of a launch what its bound consists of"),
    Metric("flops", ("launch",), "FLOP", None, "products of rows that exist, two for a multiply and an add", "FLOP"),
    Metric("bytes", ("launch",), "bytes", None, "operands and results that HBM must give and take once", "bytes"),
    Metric(f"{_KERNELS}.binding_resource", ("all_to_all",), WORD, None,
           "its name in `links`, such as `node3/gpu5/scale_up/egress`"),
    Metric("binding_resource", ("flows", "collective"), WORD, None, "its name in `links`"),
    Metric("{algorithm,protocol}", ("collective",), WORD, None,
           "`ring`, `tree`, `nvls`, `hierarchical` or `direct`, and `ll`, `ll128` or `simple`"),
    Metric(f"{_KERNELS}.wire_nic_bytes", ("all_to_all",), "bytes", "lower", "bytes a rank's NIC sends"),
    Metric(f"{_KERNELS}.wire_nvlink_bytes", ("all_to_all",), "bytes", "lower",
           "bytes a GPU sends over NVLink, forwarded ones included"),
    Metric("wire_{nic,nvlink}_bytes", ("collective",), "bytes", "lower", "the same of the mean rank"),
    Metric(f"{_TOKENS}.logical_rdma_bytes_per_s", ("all_to_all",), "bytes/s", "higher",
           "payload times `nodes_per_token` over `time_s`, the own node counted"),
    Metric(f"{_TOKENS}.logical_nvlink_bytes_per_s", ("all_to_all",), "bytes/s", "higher",
           "payload times `ranks_per_token` over `time_s`, the own rank counted"),
    Metric(f"{_TOKENS}.logical_selection_bytes_per_s", ("all_to_all",), "bytes/s", "higher",
           "one record for every chosen expert over `time_s`, as low-latency benchmarks count"),
    Metric(f"{_TOKENS}.ranks_per_token", ("all_to_all",), "ranks", "lower", "distinct ranks that hold a token's experts"),
    Metric(f"{_TOKENS}.nodes_per_token", ("all_to_all",), "nodes", "lower", "distinct nodes that do"),
    Metric("exchange.algbw_bytes_per_s", ("all_to_all",), "bytes/s", "higher",
           "a rank's whole buffer, own part included, over `time_s`"),
    Metric("exchange.busbw_bytes_per_s", ("all_to_all",), "bytes/s", "higher", "algbw times (n-1)/n"),
    # --- energy
    Metric("energy.{gpu,network,host}_kwh", _ALL, "kWh", "lower",
           "of GPUs by what holds them, of NICs and switches by ports and bytes, of all else in nodes; of what is simulated: a "
           "step, a pass, all requests"),
    Metric("energy.{tensor,memory,communication,idle}_kwh", _ALL, "kWh", "lower",
           "the part of `energy.gpu_kwh` while tensor cores multiply, launches only move bytes, compute waits for communication, or "
           "nothing holds the GPU"),
    Metric("energy.total_kwh", _ALL, "kWh", "lower", "their sum with what the building adds", "energy [kWh]"),
    Metric("energy.{low,high}_kwh", _ALL, "kWh", "lower", "the same with every parameter of power at an end of its range"),
    Metric("energy.gpu_w", _ALL, "W", "lower", "mean power of a GPU", "W a GPU"),
    Metric("layers.{count,slowest}", ("all_to_all",), "number", None,
           "layers of recorded loads, and the one, from 0, that the other metrics are of"),
    Metric("layers.{dispatch,combine}.{mean,worst}_s", ("all_to_all",), "s", "lower", "mean and worst `time_s` of all these layers"),
    Metric("energy.per_token_j", ("all_to_all", *_STEPS, "serving", "rl_step"), "J", "lower",
           "`energy.total_kwh` over tokens: of all ranks, trained, computed or put out", "J/token", "energy of a token"),
    Metric("algbw_bytes_per_s", ("collective",), "bytes/s", "higher",
           "the whole buffer, of an all-gather all shards, over `time_s`", "algbw"),
    Metric("busbw_bytes_per_s", ("collective",), "bytes/s", "higher",
           "algbw times 2(n-1)/n of an all-reduce, 1 of a broadcast, else (n-1)/n", "busbw"),
    # --- steps and passes
    Metric("step_time_s", (*_STEPS, "rl_step"), "s", "lower",
           "an optimizer step, all passes of a prompt, a decode step, or an iteration of RL, until the last rank has ended", "step", "the step"),
    Metric("lower_bound_s", ("flows", "collective", "launch", *_STEPS, "serving"), "s", "lower", "what the data sheets leave at the least, see below"),
    Metric("tokens_per_s_per_gpu", _STEPS, "tokens/s", "higher", "tokens a second of a GPU", "tokens/s/GPU",
           "tokens a second and GPU"),
    Metric("exposed_comm_s", _STEPS, "s", "lower",
           "compute stream waits for collectives: of pipeline rank 0; of a pass also the phases in which they hold its SMs",
           "exposed", "exposed communication"),
    Metric("host_s", (*_STEPS, "serving", "rl_step"), "s", "lower",
           "compute stream waits for launches that the host has not issued: of pipeline rank 0; of passes with what lies between "
           "them; of serving in all decode steps of the mean instance", "host", "time waiting for the host"),
    Metric("layer_time_s", _STEPS, "s", "lower", "one layer: of a step one with experts, forward and backward, as it runs; of a "
           "pass the mean of all", phrase="one layer"),
    Metric("memory_capacity_bytes", _STEPS, "bytes", None, "HBM of a GPU"),
    # --- training
    Metric("bubble_s", ("training",), "s", "lower", "pipeline rank 0 idle by the schedule", "bubble"),
    Metric("exposed_comm_mean_s", ("training",), "s", "lower", "`exposed_comm_s`, mean over pipeline ranks"),
    Metric("barrier_wait_s", ("training",), "s", "lower", "pipeline rank 0 waits for slower ranks of its EP group"),
    Metric("optimizer_s", ("training",), "s", "lower", "reductions of gradients and the update of pipeline rank 0"),
    Metric("phases.{1F,1B,1W}_s", ("training",), "s", "lower",
           "forwards, backwards and weight parts that run alone, of pipeline rank 0"),
    Metric("phases.1F1B_s", ("training",), "s", "lower", "its overlapped pairs"),
    Metric("phases.{bubble,opt}_s", ("training",), "s", "lower", "its idle time, and its optimizer"),
    Metric("phases_mean.{1F,1B,1W,1F1B,bubble,opt}_s", ("training",), "s", "lower", "the same, mean over pipeline ranks"),
    Metric("tokens_per_step", ("training",), "tokens", None, "of all data-parallel ranks"),
    Metric("tokens_per_day", ("training",), "tokens/day", "higher", "of all data-parallel ranks"),
    Metric("mfu_causal_fraction", ("training",), "fraction", "higher",
           "FLOPs of the model over the dense BF16 peak, of attention the half that a causal mask leaves", "MFU"),
    Metric("mfu_noncausal_fraction", ("training",), "fraction", "higher", "the same with attention counted whole"),
    Metric("packing.documents", ("training",), "documents", None,
           "of a step, with `workload.packing`; what is cut counts as several"),
    Metric("packing.padding_fraction", ("training",), "fraction", "lower", "tokens of no document over all", "padding"),
    Metric("packing.attention_fraction", ("training",), "fraction", None,
           "sum of the squares of documents over that of unbroken sequences", "attention of whole sequences"),
    Metric("packing.max_over_mean_{microbatch,rank}", ("training",), "number", "lower",
           "the same sum of the heaviest microbatch, or data-parallel rank, over the mean one's"),
    Metric("layer_comm_alone_s", ("training",), "s", "lower",
           "two dispatches and two combines of a layer, each alone on idle links", phrase="exchanges of one layer"),
    Metric("layer_time_exposed_s", ("training",), "s", "lower",
           "the same kernels on the same SMs as in `layer_time_s`, every all-to-all waited for"),
    Metric("layer_time_serial_s", ("training",), "s", "lower", "that with all SMs computing meanwhile"),
    Metric("memory_peak_bytes", ("training",), "bytes", "lower", "memory of the fullest GPU", "memory"),
    Metric("run_days", ("training",), "days", "lower", "a whole run of such steps, with `workload.run`"),
    Metric("run_gpu_hours", ("training",), "GPU-hours", "lower", "the same on all GPUs", "GPU-hours"),
    Metric("run_cost_usd", ("training",), "$", "lower", "the same at the price of a GPU-hour", "cost [$]"),
    Metric("run_energy_kwh", ("training",), "kWh", "lower",
           "`energy.total_kwh` of all its steps, or the power that `workload.run` states", "energy [kWh]"),
    Metric("run_energy_{low,high}_kwh", ("training",), "kWh", "lower", "the same of `energy.low_kwh` and `energy.high_kwh`"),
    Metric("ettr_fraction", ("training",), "fraction", "higher",
           "training that counts over time on the clock, with `workload.run.failures`", "ETTR", "effective training time"),
    Metric("failures", ("training",), "failures", "lower", "of the whole run, the mean of many", "failures"),
    Metric("lost_s", ("training",), "s", "lower",
           "time of the run that is not training that counts: checkpoints, what failures undo, restarts, waits for a spare", "lost"),
    Metric("mtbf_s", ("training",), "s", "higher", "mean time between failures of the whole cluster", "MTBF"),
    Metric("checkpoint_every_s", ("training",), "s", None, "training between two checkpoints, as asked or as Daly's formula finds"),
    # --- prefill and decode
    Metric("ttft_s", ("prefill",), "s", "lower", "end of a prompt's last pass minus start of its first, without a queue", "TTFT",
           "time to the first token"),
    Metric("tpot_s", ("decode",), "s", "lower", "`step_time_s` over the tokens that a step gives a request", "TPOT",
           "time per output token"),
    Metric("pass_time_s", ("prefill",), "s", "lower", "`step_time_s` over `passes`"),
    Metric("passes", ("prefill",), "passes", None, "chunks that a prompt is computed in"),
    Metric("tokens_per_gpu", ("prefill",), "tokens", None, "that all passes compute"),
    Metric("tokens_per_s_per_node", _PASSES, "tokens/s", "higher", "tokens a second of a node", "tokens/s/node",
           "tokens a second and node"),
    Metric("tokens_per_s_per_user", ("decode",), "tokens/s", "higher", "tokens a second of a request", "tokens/s/user",
           "tokens a second and user"),
    Metric("skew_wait_s", _PASSES, "s", "lower", "the part of `exposed_comm_s` in which the mean rank waits for slower ones"),
    Metric("requests_per_gpu", ("decode",), "requests", "higher", "of the step: as asked, or as many as fit",
           phrase="requests a GPU"),
    Metric("accepted_tokens_per_step", ("decode",), "tokens", "higher", "tokens that a step gives a request on average"),
    Metric("max_batch_per_gpu", _PASSES, "requests", "higher", "requests that memory holds", "max batch"),
    Metric("kv_cache_bytes", _PASSES, "bytes", "lower", "keys and values that the fullest GPU holds"),
    Metric("memory_limit", _PASSES, WORD, None, "what takes most of a GPU's memory"),
    Metric("microbatches", _PASSES, "microbatches", None,
           "of a pass: two that hide each other's all-to-alls, or one; with attention and experts apart those under way at once"),
    Metric("idle_fraction.{attention,experts}", ("decode",), "fraction", "lower",
           "time of a step in which the mean GPU of a pool has nothing to compute, where attention and experts are apart"),
    # --- serving
    Metric(f"{_SPREADS}.{{mean,p50,p90,p99}}_s", ("serving",), "s", "lower",
           "mean and percentiles over requests: arrival to first token, the same on empty machines, time per output token, "
           "what FLOPs and bytes leave of either at the least, "
           "arrival to end, waits for prefill, for a decode instance and for its next step, and the move of keys and values", by_class=True),
    Metric("token_gap.{p50,p90,p99,max}_s", ("serving",), "s", "lower", "end of a step minus that of the one before", by_class=True),
    Metric("goodput_requests_per_s", ("serving",), "requests/s", "higher", "requests that ended within every objective", by_class=True),
    Metric("good_fraction", ("serving",), "fraction", "higher", "those over all that came", by_class=True),
    Metric("requests_per_s", ("serving",), "requests/s", "higher", "requests that ended", by_class=True),
    Metric("output_tokens_per_s", ("serving",), "tokens/s", "higher", "their tokens", by_class=True),
    Metric("output_tokens_per_s_per_gpu", ("serving",), "tokens/s", "higher", "the same of a GPU"),
    Metric("requests_per_step", ("serving",), "requests", None, "of a decode step on average"),
    Metric("makespan_s", ("serving",), "s", "lower", "last end minus first arrival; rates are over it"),
    Metric("queues.{prefill,decode}.{mean,max}", ("serving",), "requests", "lower", "length of a pool's queue"),
    Metric("waited_s.{prefill,decode}", ("serving",), "s", "lower", "waits for a pool, summed over requests"),
    Metric("{prefill,decode}_utilisation_fraction", ("serving",), "fraction", None,
           "time that the mean instance of a pool is in batches and steps"),
    Metric("kv_peak_fraction", ("serving",), "fraction", None, "of the fullest decode instance's room for keys and values"),
    Metric("kv_occupancy_fraction", ("serving",), "fraction", None, "keys and values held over the room for them, mean over time"),
    Metric("preemptions", ("serving",), "requests", "lower", "put out of a full GPU, and computed or brought back again later", by_class=True),
    Metric("restarts", ("serving",), "requests", "lower", "that lost their keys and values with a GPU, and were computed again"),
    Metric("down_s", ("serving",), "s", "lower", "time in which instances had a dead GPU, of all together"),
    Metric("queue_drain_s", ("serving",), "s", "lower",
           "from the last end of a fault until nobody waits for prefill or for a decode rank"),
    Metric("cache_hit_fraction", ("serving",), "fraction", "higher", "prompt tokens found in a cache over all", by_class=True),
    Metric("cost_usd_per_million_tokens", ("serving",), "$", "lower", "rent of all GPUs for a million output tokens"),
    Metric("num_{ended,refused,unfinished}", ("serving",), "requests", None,
           "that ended, that no instance has room for, and that were cut off", by_class=True),
    Metric("arrivals.{prompt,output}_tokens", ("serving",), "tokens", None, "of all requests that came", by_class=True),
    Metric("arrivals.num_dropped", ("serving",), "requests", None,
           "recorded ones without a prompt or an answer, which are not simulated"),
    Metric("arrivals.reusable_fraction", ("serving",), "fraction", None,
           "prompt tokens that a prefix cache without bounds would hold, where a trace has hashes of blocks"),
    Metric("while_arriving.span_s", ("serving",), "s", None,
           "last arrival minus first; what `while_arriving` says is of this span and leaves the draining out"),
    Metric("while_arriving.arrivals_per_s", ("serving",), "requests/s", None, "arrivals after the first"),
    Metric("while_arriving.prefilled_per_s", ("serving",), "requests/s", "higher", "first tokens"),
    Metric("while_arriving.requests_per_s", ("serving",), "requests/s", "higher", "ends"),
    Metric("while_arriving.output_tokens_per_s", ("serving",), "tokens/s", "higher", "output tokens"),
    Metric("while_arriving.{prefill,decode}_utilisation_fraction", ("serving",), "fraction", None, "as above"),
    # --- reinforcement learning
    Metric("rollout_s", ("rl_step",), "s", "lower", "from the first token to the last of the last sample of all instances", "rollout",
           "the rollout"),
    Metric("reward_s", ("rl_step",), "s", "lower", "from there to its reward", "reward"),
    Metric("logprob_s", ("rl_step",), "s", "lower", "forward passes over all samples before the update", "log-probabilities"),
    Metric("update_s", ("rl_step",), "s", "lower", "all optimizer steps over the samples", "update", "the update"),
    Metric("sync_s", ("rl_step",), "s", "lower", "the way of new weights into the deployment", "new weights"),
    Metric("offload_s", ("rl_step",), "s", "lower",
           "training states to host memory and back, where rollout and update are on the same GPUs", "offload"),
    Metric("stage_fraction.{rollout,reward,logprob,update,sync,offload}", ("rl_step",), "fraction", None,
           "time of a stage over the times of all stages together"),
    Metric("tail_wait_gpu_s", ("rl_step",), "s", "lower", "GPU-seconds in which places of the batch wait for the last sample", "tail"),
    Metric("idle_fraction.{colocated,rollout,update,reward}", ("rl_step",), "fraction", "lower",
           "time without work of a pool, by its name, over the iteration"),
    Metric("tokens_per_s", ("rl_step",), "tokens/s", "higher", "sampled tokens over the iteration", "tokens/s", "tokens a second"),
    Metric("step_cost_usd", ("rl_step",), "$", "lower", "rent of the GPUs of all pools for an iteration", "cost [$]",
           "the cost of an iteration"),
    Metric("carried_samples", ("rl_step",), "samples", "lower", "begun and not ended in a rollout, which the next goes on with, or which are put off"),
    Metric("stale_tokens_fraction", ("rl_step",), "fraction", "lower", "tokens that an update takes and older weights made, over all that it takes"),
    Metric("discarded_tokens_fraction", ("rl_step",), "fraction", "lower", "tokens generated and thrown away with prompts that are put off, over all generated"),
    Metric("recompute_s", ("rl_step",), "s", "lower", "at the begin of a rollout, of reading answers again that it goes on with"),
    Metric("staleness_mean", ("rl_step",), "updates", "lower", "updates that the weights of a rollout lag behind"),
)  # fmt: skip

METRICS: Mapping[str, Metric] = {
    name: replace(row, name=name, phrase=row.phrase.format(name.partition(".")[0]))
    for row in TABLE
    for name in row.names
}
"""Name, as in a result with dots between its parts -> the metric."""


NUMBERS = tuple(name for name, row in METRICS.items() if row.unit != WORD)
"""Names of the metrics that are numbers."""


def reported(kinds: Collection[str], *, words: bool = False) -> list[str] | None:
    """Names of the metrics that runs of some kinds report, with those that are `words`.

    None for a kind that the table lacks.
    """
    if not kinds or not set(kinds) <= {kind for row in TABLE for kind in row.kinds}:
        return None
    return [
        name for name in (METRICS if words else NUMBERS) if not set(kinds).isdisjoint(METRICS[name].kinds)
    ]


def lacks(kinds: Collection[str], name: str, *, words: bool = False) -> bool:
    """True where no run of some kinds reports a metric of this name, of all requests or of a class of them."""
    names = reported(kinds, words=words)
    if names is None or name in names:
        return False
    row = METRICS.get(name.split(".", 2)[-1]) if name.startswith("classes.") else None
    return row is None or not row.by_class or row.name not in names


def row_of(name: str) -> Metric | None:
    """The metric of a name, of what a job or a class of requests reports under `jobs.NAME.` or `classes.NAME.`, or of a pool's idle
    time; None where the table does not have it.
    """
    if name.startswith(("jobs.", "classes.")):
        name = name.split(".", 2)[-1]
    return METRICS.get("idle_fraction.rollout" if name.startswith("idle_fraction.") else name)


def dimension_of(name: str) -> str:
    """The dimension of a metric; of what the table does not know (a part of memory, a key) the one that its suffix states."""
    row = row_of(name)
    return row.dimension if row is not None else units.dimension_of(name)


def more_is_better(name: str) -> bool | None:
    """True where more of a metric is better, False where less is; None where neither is, or it is unknown."""
    row = row_of(name)
    return None if row is None or row.better is None else row.better == "higher"


def label(name: str) -> str:
    """A metric at the head of a column: `step_time_s` -> `step`."""
    row = row_of(name)
    words = re.sub(r"_(bytes_per_s|bytes|fraction|s)$", "", name)
    return (row.label if row is not None else "") or words.replace("_", " ").replace(".", " ")


def phrase(name: str) -> str:
    """A metric in a sentence: `step_time_s` -> `the step`."""
    row = row_of(name)
    return (row.phrase if row is not None else "") or label(name)
