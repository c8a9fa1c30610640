"""The training workload of a scenario, checked against its model, cluster and schedule."""

from __future__ import annotations

from typing import Any

from sim.cost.curves import load_curves
from sim.cost.measured import MeasuredProfile, load_profile
from sim.engine.step_costs import Skew
from sim.errors import InputError, nearest
from sim.schedule import pipelines
from sim.study import sizes
from sim.study.descriptions import Training, TrainingRun
from sim.study.exchanges import gate_of, kernel_of, placement_of
from sim.study.gate_specs import MAX_MICROBATCHES
from sim.study.metal import Draft
from sim.study.specification import PlacementSpec, SkewSpec, TrainingSpec
from sim.workload import layout as layouts
from sim.workload.layout import Layout
from sim.workload.stages import stages

_AT = ("workload",)
_COUNTS = {"microbatch": (*_AT, "microbatches"), "chunk": (*_AT, "chunks"), "pipeline rank": ("layout", "pp")}


def training_of(draft: Draft) -> Training:
    """The workload; faults join the draft's. Raises `InfeasibleError` where no machine could run it."""
    spec, asked = draft.spec.workload, draft.spec.layout
    assert isinstance(spec, TrainingSpec)
    assert draft.model is not None
    assert draft.hardware is not None
    layout = layouts.derive(
        draft.num_ranks,
        pp=asked.pp,
        ep=asked.ep,
        tp=asked.tp,
        dp=asked.dp,
        cp=asked.cp,
        num_experts=draft.model.num_experts,
    )
    chunks = spec.chunks or (2 if spec.schedule in ("interleaved", "dualpipev") else 1)
    layouts.check(layout, draft.model, sequence_tokens=spec.sequence_tokens, chunks=chunks)
    per_node = draft.gpus_per_node
    if layout.ep % per_node and per_node % layout.ep:
        draft.fault(
            ("layout", "ep"), str(layout.ep), f"a multiple or a divisor of the {per_node} GPUs of a node"
        )
    options = {"chunks": chunks} if spec.schedule == "interleaved" else {}
    microbatches = _microbatches(draft, spec, layout)
    if microbatches is not None:
        sizes.require_schedule(layout.pp, microbatches, chunks)
        _check_schedule(draft, spec, layout, microbatches, options)
    _check_unused(draft, spec)
    kernel, comm_sms, kernel_options = kernel_of(draft, spec.kernel)
    if comm_sms == draft.hardware.gpu.sms:
        draft.fault(
            (*_AT, "kernel", "comm_sms"),
            str(comm_sms),
            f"fewer than the {draft.hardware.gpu.sms} SMs of the GPU",
        )
    gate = gate_of(draft, spec.gate, max(1, layout.ep // per_node))
    placement_of(draft, PlacementSpec(), layout.ep)
    measured = _measured(draft, spec)
    if draft.faults or gate is None or microbatches is None:
        raise InputError(())  # the draft has them
    draft.layout = {name: getattr(layout, name) for name in ("pp", "ep", "tp", "dp", "cp")}
    return Training(
        layout=layout,
        schedule=spec.schedule,
        schedule_options=options,
        num_microbatches=microbatches,
        sequences=spec.microbatch_sequences,
        sequence_tokens=spec.sequence_tokens,
        stage_layers=tuple(spec.stage_layers) if spec.stage_layers else None,
        overlap=spec.overlap,
        gate=gate,
        kernel=kernel,
        comm_sms=comm_sms,
        options=kernel_options,
        dispatch_dtype=spec.dispatch_dtype,
        combine_dtype=spec.combine_dtype,
        precision=spec.precision,
        measured=measured,
        generation=spec.gemm_generation,
        recompute=spec.recompute,
        skew=Skew(spec.skew.routed_load, spec.skew.kernel_jitter, spec.skew.gpu_spread),
        run=_run(draft, spec),
    )


def _microbatches(draft: Draft, spec: TrainingSpec, layout: Layout) -> int | None:
    """Microbatches of one pipeline: as said, or what a pipeline's part of the global batch makes; None with a fault."""
    if spec.global_batch is None:
        if spec.microbatches is None:
            draft.fault(_AT, "neither", "the key 'microbatches', or 'global_batch'")
        return spec.microbatches
    at_once = layout.dp * spec.microbatch_sequences
    found, rest = divmod(spec.global_batch, at_once)
    if rest:
        wanted = (
            f"a multiple of DP{layout.dp} x {spec.microbatch_sequences} sequences a microbatch = {at_once}"
        )
        draft.fault((*_AT, "global_batch"), str(spec.global_batch), wanted)
        return None
    if found > MAX_MICROBATCHES:
        wanted = f"at most {MAX_MICROBATCHES * at_once}: {MAX_MICROBATCHES} microbatches a pipeline"
        draft.fault((*_AT, "global_batch"), str(spec.global_batch), wanted)
        return None
    if spec.microbatches not in (None, found):
        wanted = f"{found}, what global_batch: {spec.global_batch} makes, or leave one of them out"
        draft.fault((*_AT, "microbatches"), str(spec.microbatches), wanted)
    draft.derived = {"microbatches": found}
    return found


def _check_schedule(
    draft: Draft, spec: TrainingSpec, layout: Layout, microbatches: int, options: dict[str, Any]
) -> None:
    """Whether the schedule has an order for these counts, and the model such stages."""
    assert draft.model is not None
    try:
        pipeline = pipelines.plan(spec.schedule, layout.pp, microbatches, **options)
    except InputError as error:
        for fault in error.faults:
            path = next((path for word, path in _COUNTS.items() if word in fault.got), (*_AT, "schedule"))
            draft.fault(path, fault.got, fault.wanted)
        return
    if spec.stage_layers is not None:
        try:
            stages(draft.model, pipeline.num_stages, num_layers=spec.stage_layers)
        except InputError as error:
            draft.fault((*_AT, "stage_layers"), error.faults[0].got, error.faults[0].wanted)


def _check_unused(draft: Draft, spec: TrainingSpec) -> None:
    """Names that must be known, numbers below zero, and what a training step would pass over in silence."""
    known = load_curves().gemm.generations
    if spec.gemm_generation not in known:
        got, near = f"'{spec.gemm_generation}'", nearest(spec.gemm_generation, known)
        wanted = f"one of: {', '.join(known)}"
        draft.faults.append(draft.document.fault((*_AT, "gemm_generation"), got, wanted, near))
    if spec.chunks is not None and spec.schedule != "interleaved":
        wanted = "no chunks but for schedule: interleaved"
        draft.fault((*_AT, "chunks"), f"{spec.chunks} beside {spec.schedule}", wanted)
    for key in SkewSpec.model_fields:
        _check_range(draft, "skew", key, 0 <= getattr(spec.skew, key) <= 1, "a deviation of 0 to 100 %")
    if draft.spec.fidelity != "flow":
        draft.fault(("fidelity",), f"'{draft.spec.fidelity}'", "'flow' for training")
    if draft.spec.cluster.faults:
        draft.fault(
            ("cluster", "faults"), "faulty links", "none for training: every EP group is taken to be alike"
        )
    if spec.run is not None:
        _check_range(draft, "run", "tokens", spec.run.tokens > 0, "more than 0")
        _check_range(draft, "run", "gpu_load", 0 <= spec.run.gpu_load <= 1, "0 to 100 %")
        for key in ("price", "host_power", "network_power"):
            _check_range(draft, "run", key, (getattr(spec.run, key) or 0) >= 0, "0 or more")


def _check_range(draft: Draft, branch: str, key: str, good: bool, wanted: str) -> None:
    path = (*_AT, branch, key)
    if not good:
        draft.fault(path, str(draft.document.get(path)), wanted)


def _measured(draft: Draft, spec: TrainingSpec) -> MeasuredProfile | None:
    if (spec.compute == "measured") != (spec.profile is not None):
        wanted = (
            "a profile, e.g. h800-train-measured"
            if spec.profile is None
            else "'compute: measured' beside a profile"
        )
        draft.fault(
            (*_AT, "profile" if spec.profile else "compute"), str(spec.profile or spec.compute), wanted
        )
        return None
    if spec.profile is None:
        return None
    try:
        return load_profile(
            spec.profile, near=draft.document.folder, mark=draft.document.mark((*_AT, "profile"))
        )
    except InputError as error:
        draft.faults.extend(error.faults)
        return None


def _run(draft: Draft, spec: TrainingSpec) -> TrainingRun | None:
    run, hardware = spec.run, draft.hardware
    assert hardware is not None
    if run is None:
        return None
    tdp = hardware.gpu.tdp_w
    power = (tdp * run.gpu_load + run.host_power + run.network_power) * run.pue if tdp is not None else None
    price = run.price if run.price is not None else hardware.gpu_hour_usd
    return TrainingRun(tokens=run.tokens, price_usd=price, power_w=power)
