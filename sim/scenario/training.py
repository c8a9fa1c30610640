"""The training workload of a scenario, checked against its model, cluster and schedule."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Any

from sim import limits
from sim.cluster.faults import QUANTITIES
from sim.cluster.kernels import Kernel
from sim.cost.curves import load_curves
from sim.cost.measured import MeasuredProfile, load_profile
from sim.cost.optimizer import Optimizer
from sim.errors import InfeasibleError, InputError, nearest
from sim.scenario import layouts, sizes
from sim.scenario.descriptions import Scenario, Workload
from sim.scenario.draft import Draft
from sim.scenario.kinds import Resolver
from sim.scenario.packing import packing_of
from sim.scenario.precision import precision_of
from sim.scenario.routing import (
    PlacementSpec,
    gate_of,
    kernel_of,
    placement_of,
)
from sim.scenario.training_run import AT as RUN
from sim.scenario.training_run import (
    FailureModel,
    PhaseSpec,
    check_run,
    failure_model,
)
from sim.scenario.training_spec import TrainingSpec
from sim.scenario.values import MAX_MICROBATCHES
from sim.schedule import pipelines
from sim.workload.formats import Precision
from sim.workload.gates import Gate
from sim.workload.layout import Layout, check
from sim.workload.packing import Documents, Packed
from sim.workload.skew import Skew
from sim.workload.stages import stages

_AT = ("workload",)
_COUNTS = {"microbatch": (*_AT, "microbatches"), "chunk": (*_AT, "chunks"), "pipeline rank": ("layout", "pp")}


@dataclass(frozen=True, slots=True)
class RunPhase:
    """A part of a whole run: so many steps, or GPU-hours that are given.

    `work` is its step where that is not the workload's own.
    """

    name: str
    steps: float = 0.0
    gpu_hours: float | None = None
    work: Training | None = None


@dataclass(frozen=True, slots=True)
class Training(Workload):
    """An optimizer step, ready to be planned."""

    spec: TrainingSpec
    layout: Layout
    schedule_options: dict[str, Any]
    num_microbatches: int
    gate: Gate
    kernel: Kernel
    comm_sms: int
    options: dict[str, Any]
    formats: Precision
    measured: MeasuredProfile | None
    skew: Skew
    packed: Packed | None = None  # documents of its sequences; None where each is one
    price_usd: float | None = None  # of a GPU-hour of a whole run; None without a run, or where it is unknown
    phases: tuple[RunPhase, ...] = ()  # of a whole run; the first that has a step has the workload's own
    failures: FailureModel | None = None

    @property
    def kernels(self) -> tuple[Kernel, ...]:
        """The one kernel."""
        return (self.kernel,)

    @property
    def recompute(self) -> str | tuple[str, ...]:
        """What the backward computes again: a word, or modules."""
        asked = self.spec.recompute
        return asked if isinstance(asked, str) else tuple(asked)

    @property
    def passes_keys_on(self) -> bool:
        """Ranks of CP pass keys and values round a ring, next to the core of attention."""
        return self.spec.cp_comm == "p2p" and self.layout.cp > 1

    @property
    def optimizer(self) -> Optimizer:
        """The optimizer with its formats and places."""
        return Optimizer(**self.spec.optimizer.model_dump())

    @property
    def lent_sms(self) -> int:
        """SMs that pairs lend to communication [count]."""
        return 0 if self.spec.overlap is False else self.comm_sms

    @property
    def stated_price_usd(self) -> float | None:
        """Price of a GPU-hour of the whole run [$]."""
        return self.price_usd

    @property
    def microbatch_tokens(self) -> int:
        """Tokens of a microbatch [count]."""
        return self.spec.microbatch_sequences * self.spec.sequence_tokens

    @property
    def step_tokens(self) -> int:
        """Tokens of a step, over all data-parallel ranks, padding left out [count]."""
        return self.packed.tokens if self.packed else self.step_sequences * self.spec.sequence_tokens

    @property
    def step_sequences(self) -> int:
        """Sequences of a step, over all data-parallel ranks [count]."""
        return self.layout.dp * self.num_microbatches * self.spec.microbatch_sequences

    @property
    def documents(self) -> Documents | None:
        """Documents as attention sees them; None where it sees whole sequences."""
        asked = self.spec.packing
        if self.packed is None or asked is None or not self.attends_by_document:
            return None
        return self.packed.documents(self.layout.cp if asked.context_parallel == "sequence" else 1)

    @property
    def attends_by_document(self) -> bool:
        """True where documents are shorter than sequences, and attention stays within them."""
        asked = self.spec.packing
        return (
            self.packed is not None
            and asked is not None
            and asked.mask == "document"
            and not self.packed.whole
        )


def training_of(draft: Draft, spec: TrainingSpec) -> Training:
    """Resolve a training workload.

    InputError, empty, where the draft holds the problems; InfeasibleError where no machine could run the
    layout.
    """
    assert draft.model is not None
    draft.model = draft.model.dense_for_training()
    run = spec.run
    if run is not None:
        check_run(draft, run)
    steps = [
        _phase_step(draft, spec, index, phase)
        for index, phase in enumerate((run.phases if run else None) or ())
        if phase.gpu_hours is None
    ]
    if draft.problems:
        raise InputError(())  # the draft has them
    work, *others = [step for step in steps if step] or [_step_of(draft, spec)]
    return _with_run(draft, replace(work, spec=work.spec.model_copy(update={"run": run})), others)


def _step_of(draft: Draft, spec: TrainingSpec) -> Training:
    """Resolve one optimizer step in the layout that the draft asks for."""
    assert draft.model is not None
    assert draft.hardware is not None
    layout = layouts.derived(draft)
    chunks = spec.chunks_per_rank
    given = spec.stages is not None or spec.stage_layers is not None
    check(layout, draft.model, sequence_tokens=spec.sequence_tokens, chunks=chunks, stages_given=given)
    layouts.check_nodes(draft, layout)
    precision = precision_of(draft, spec.precision, trains=True)
    options = {"chunks": chunks} if spec.schedule == "interleaved" else {}
    microbatches = _microbatches(draft, spec, layout)
    if microbatches is not None:
        sizes.require_schedule(layout.pp, microbatches, chunks)
        _check_schedule(draft, spec, layout, microbatches, options)
    _check_unused(draft, spec)
    kernel, comm_sms, kernel_options = kernel_of(draft, spec.kernel)
    if comm_sms == draft.hardware.gpu.sms:
        draft.problem(
            (*_AT, "kernel", "comm_sms"),
            str(comm_sms),
            f"fewer than the {draft.hardware.gpu.sms} SMs of the GPU",
        )
    if "sampling" in spec.gate.model_fields_set and spec.gate.sampling == "tokens":
        wanted = "expected: a step counts means, which skew.routed_load spreads"
        draft.problem((*_AT, "gate", "sampling"), "'tokens'", wanted)
    draft.derived["gate"] = spec.gate.model_dump(exclude_none=True) | {"sampling": "expected"}
    gate = gate_of(draft, spec.gate, layout.ep // layout.near(draft.gpus_per_node, "ep"))
    placement_of(draft, PlacementSpec(), layout.ep)
    measured = _measured(draft, spec)
    packed = None
    if spec.packing is not None and microbatches is not None:
        counts = microbatches, spec.microbatch_sequences, spec.sequence_tokens
        packed = packing_of(draft, spec.packing, layout, counts)
    if draft.problems or gate is None or microbatches is None:
        raise InputError(())  # the draft has them
    return Training(
        spec=spec,
        layout=layout,
        schedule_options=options,
        num_microbatches=microbatches,
        gate=gate,
        kernel=kernel,
        comm_sms=comm_sms,
        options=kernel_options,
        formats=precision,
        measured=measured,
        skew=Skew(spec.routed_spread, spec.skew.kernel_jitter, spec.skew.gpu_spread),
        packed=packed,
    )


def _phase_step(draft: Draft, spec: TrainingSpec, index: int, phase: PhaseSpec) -> Training | None:
    """Resolve the step of a phase: what it does not set is the scenario's. None where the draft has its problems."""
    sets = {key: getattr(phase, key) for key in phase.changes if key != "layout"}
    if phase.global_batch is not None:
        sets["microbatches"] = None
    sizes_ = phase.layout.model_dump(exclude_none=True) if phase.layout else {}
    asked = draft.asked.model_copy(update={"dp": None} | sizes_ if sizes_ else {})
    part = replace(draft, problems=[], derived={}, asked=asked)
    try:
        return _step_of(part, spec.model_copy(update={**sets, "run": None}))
    except InputError:
        return None
    except InfeasibleError as error:
        raise InfeasibleError(f"phase '{phase.name}': {error}") from None
    finally:
        for problem in part.problems:
            branch, _, key = problem.key.rpartition(".")
            own = key in phase.changes if branch == "workload" else branch == "layout" and key in sizes_
            at = (*RUN, "phases", index, *(("layout",) if branch == "layout" else ()), key)
            moved = (
                draft.document.problem(at, problem.got, problem.wanted, problem.nearest) if own else problem
            )
            draft.problems += [] if moved in draft.problems else [moved]


def _with_run(draft: Draft, work: Training, others: Sequence[Training]) -> Training:
    """The step with the whole run that it is part of; `others` are the steps of the phases after the first that has one."""
    run, hardware = work.spec.run, draft.hardware
    assert hardware is not None
    draft.layout = layouts.written(work.layout, "pp", "ep", "tp", "dp", "cp")
    if run is None:
        return work
    phases, steps = [], iter((work, *others))
    for phase in run.phases or (PhaseSpec(name="run", tokens=run.tokens),):
        if phase.gpu_hours is not None:
            phases.append(RunPhase(phase.name, gpu_hours=phase.gpu_hours))
            continue
        step = next(steps)
        count = phase.steps if phase.steps is not None else (phase.tokens or 0.0) / step.step_tokens
        phases.append(RunPhase(phase.name, count, work=None if step is work else step))
    return replace(
        work,
        price_usd=run.price if run.price is not None else hardware.gpu_hour_usd,
        phases=tuple(phases),
        failures=failure_model(run, hardware, draft.num_nodes, work.layout.num_ranks),
    )


def _microbatches(draft: Draft, spec: TrainingSpec, layout: Layout) -> int | None:
    """Microbatches of one pipeline: as declared, or as a pipeline's part of the global batch makes them; None with a problem."""
    if spec.global_batch is None:
        if spec.microbatches is None:
            draft.problem(_AT, "neither", "the key 'microbatches', or 'global_batch'")
        return spec.microbatches
    at_once = layout.dp * spec.microbatch_sequences
    derived, rest = divmod(spec.global_batch, at_once)
    if rest:
        wanted = (
            f"a multiple of DP{layout.dp} x {spec.microbatch_sequences} sequences a microbatch = {at_once}"
        )
        draft.problem((*_AT, "global_batch"), str(spec.global_batch), wanted)
        return None
    if derived > MAX_MICROBATCHES:
        wanted = f"at most {MAX_MICROBATCHES * at_once}: {MAX_MICROBATCHES} microbatches a pipeline"
        draft.problem((*_AT, "global_batch"), str(spec.global_batch), wanted)
        return None
    if spec.microbatches not in (None, derived):
        wanted = f"{derived}, what global_batch: {spec.global_batch} makes, or leave one of them out"
        draft.problem((*_AT, "microbatches"), str(spec.microbatches), wanted)
    draft.derived["microbatches"] = derived
    return derived


def _check_schedule(
    draft: Draft, spec: TrainingSpec, layout: Layout, microbatches: int, options: dict[str, Any]
) -> None:
    """Check that the schedule has an order for these counts, and the model such stages."""
    assert draft.model is not None
    try:
        pipeline = pipelines.plan(spec.schedule, layout.pp, microbatches, **options)
    except InputError as error:
        for problem in error.problems:
            path = next((path for word, path in _COUNTS.items() if word in problem.got), (*_AT, "schedule"))
            draft.problem(path, problem.got, problem.wanted)
        return
    if spec.stages is not None and spec.stage_layers is not None:
        draft.problem((*_AT, "stages"), f"'{spec.stages}'", "no stages beside stage_layers")
    for key, layers, layout_ in (("stage_layers", spec.stage_layers, None), ("stages", None, spec.stages)):
        if layers is None and layout_ is None:
            continue
        try:
            stages(draft.model, pipeline.num_stages, num_layers=layers, layout=layout_)
        except InputError as error:
            draft.problem((*_AT, key), error.problems[0].got, error.problems[0].wanted)


def _check_unused(draft: Draft, spec: TrainingSpec) -> None:
    """Check for unknown names, numbers below zero, and keys that a training step would ignore."""
    known = load_curves().gemm.generations
    if spec.gemm_generation not in known:
        got, near = f"'{spec.gemm_generation}'", nearest(spec.gemm_generation, known)
        wanted = f"one of: {', '.join(known)}"
        draft.problems.append(draft.document.problem((*_AT, "gemm_generation"), got, wanted, near))
    if spec.chunks is not None and spec.schedule != "interleaved":
        wanted = "no chunks but for schedule: interleaved"
        draft.problem((*_AT, "chunks"), f"{spec.chunks} beside {spec.schedule}", wanted)
    if spec.packing is not None and spec.compute == "measured":
        wanted = "no packing next to 'compute: measured', whose attention is of whole sequences"
        draft.problem((*_AT, "packing"), "packing", wanted)
    layouts.check_ring(draft, spec.cp_comm)
    for key in ("routed_load", "kernel_jitter", "gpu_spread"):
        deviation = getattr(spec.skew, key)
        good = deviation is None or 0 <= deviation <= 1
        _check_range(draft, "skew", key, good, "a deviation of 0 to 100 %")
    if draft.fidelity != "flow":
        draft.problem(("fidelity",), f"'{draft.fidelity}'", "'flow' for training")


def _check_range(draft: Draft, branch: str, key: str, good: bool, wanted: str) -> None:
    path = (*_AT, branch, key)
    if not good:
        draft.problem(path, str(draft.document.get(path)), wanted)


def _measured(draft: Draft, spec: TrainingSpec) -> MeasuredProfile | None:
    if (spec.compute == "measured") != (spec.profile is not None):
        wanted = (
            "a profile, e.g. h800-train-measured"
            if spec.profile is None
            else "'compute: measured' beside a profile"
        )
        draft.problem(
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
        draft.problems.extend(error.problems)
        return None


def _hints(spec: TrainingSpec) -> Iterator[str]:
    if spec.routed_spread or spec.skew.kernel_jitter or spec.skew.gpu_spread:
        alike = "workload.skew: {routed_load: 0, kernel_jitter: 0, gpu_spread: 0}"
        yield f"steps of unlike ranks take seconds each; with '{alike}' under 'set', milliseconds"


def _count(scenario: Scenario, work: Training) -> None:
    for phase in work.phases:
        if phase.work is not None:
            _count(scenario, phase.work)
    assert scenario.model is not None
    assert scenario.hardware is not None
    layout, layers = work.layout, scenario.model.num_layers + scenario.model.num_mtp_layers
    sizes.require_nodes(scenario, scenario.num_nodes, "the nodes of the cluster")
    sizes.require_pairs(layout.num_ranks // layout.ep, layout.ep)
    if (work.skew.routed_load or work.attends_by_document) and layout.ep > 1:
        every = work.spec.skew.groups == "all" or work.attends_by_document
        groups = layout.expert_dp if every else 1
        kernels = layers * work.num_microbatches
        at = f"EP groups {groups:,} (ranks / pp / ep) x layers {layers:,} x workload.microbatches {work.num_microbatches:,}"
        limits.require(groups * kernels * layout.ep, limits.CELLS, f"{at} x layout.ep {layout.ep:,}")
        solved = 2 * groups * kernels * layout.ep**2
        limits.require(solved, limits.SOLVED_PAIRS, f"{at} x layout.ep {layout.ep:,} squared x 2 directions")


RESOLVER = Resolver(
    {"training": TrainingSpec}, training_of, faults=QUANTITIES, windows=True, count=_count, hints=_hints
)
