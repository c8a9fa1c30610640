"""The training workload of a scenario, checked against its model, cluster and schedule."""

from __future__ import annotations

from sim.cost.measured import MeasuredProfile, load_profile
from sim.engine.step_costs import Skew
from sim.errors import InputError
from sim.schedule import pipelines
from sim.study.descriptions import Training, TrainingRun
from sim.study.exchanges import gate_of, kernel_of, placement_of
from sim.study.metal import Draft, placed_at
from sim.study.specification import PlacementSpec, TrainingSpec
from sim.workload import layout as layouts

_AT = ("workload",)


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
    try:
        pipelines.plan(spec.schedule, layout.pp, spec.microbatches, **options)
    except InputError as error:
        draft.faults.extend(placed_at(draft.document, _AT, error))
    kernel, comm_sms, kernel_options = kernel_of(draft, spec.kernel)
    if comm_sms >= draft.hardware.gpu.sms:
        draft.fault(
            (*_AT, "kernel", "comm_sms"),
            str(comm_sms),
            f"fewer than the {draft.hardware.gpu.sms} SMs of the GPU",
        )
    gate = gate_of(draft, spec.gate, max(1, layout.ep // per_node))
    placement_of(draft, PlacementSpec(), layout.ep)
    measured = _measured(draft, spec)
    if draft.faults or gate is None:
        raise InputError(draft.faults)
    draft.layout = {name: getattr(layout, name) for name in ("pp", "ep", "tp", "dp", "cp")}
    return Training(
        layout=layout,
        schedule=spec.schedule,
        schedule_options=options,
        num_microbatches=spec.microbatches,
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
