"""A whole training run as a scenario writes it: its phases, its price, its power and its failures."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated, Literal

from pydantic import Discriminator, Field, Tag, model_validator

from sim.cluster.hardware import Hardware
from sim.cost.power import Stated
from sim.cost.recompute import Module
from sim.scenario.draft import Draft, LayoutSpec
from sim.scenario.values import Branch, Count, Number
from sim.schemas import WORD_OR_MODULES, Amount, Duration, Fraction, Price, Watts, written

AT = ("workload", "run")
HOUR_S = 3600.0


_Modules = Annotated[list[Module], Field(min_length=1)]
Recompute = Annotated[
    Annotated[Literal["none", "selective", "full"], Tag(WORD_OR_MODULES)]
    | Annotated[_Modules, Tag("modules")],
    Discriminator(lambda value: "modules" if isinstance(value, list) else WORD_OR_MODULES),
]
"""A word, or modules of `cost.recompute`."""


class PhaseSpec(Branch):
    """One phase of a run; keys of the step that it leaves out are the workload's own."""

    name: str
    """Name of the phase, in tables and messages."""
    tokens: Amount | None = None
    """Tokens that it trains on."""
    steps: Amount | None = None
    """Optimizer steps, in place of tokens."""
    gpu_hours: Amount | None = None
    """GPU-hours that are given, not simulated: the phase has no step."""
    sequence_tokens: Count | None = None
    """Length of a sequence."""
    global_batch: Count | None = None
    """Sequences of one step; in its place the workload's own microbatches count no more."""
    layout: LayoutSpec | None = None
    """Sizes that differ from those of the scenario's layout; `dp` follows."""
    recompute: Recompute | None = None
    """Activations that its backward computes again."""
    schedule: Literal["gpipe", "1f1b", "interleaved", "zb1p", "zb2p", "dualpipe", "dualpipev"] | None = None
    """Pipeline schedule."""

    @model_validator(mode="after")
    def _one_amount(self) -> PhaseSpec:
        if sum(given is not None for given in (self.tokens, self.steps, self.gpu_hours)) != 1:
            raise ValueError("one of 'tokens', 'steps' and 'gpu_hours'")
        if self.gpu_hours is not None and self.changes:
            raise ValueError(f"no {', '.join(self.changes)} beside gpu_hours: the phase has no step")
        return self

    @property
    def changes(self) -> tuple[str, ...]:
        """Keys of the step that it sets."""
        keys = ("sequence_tokens", "global_batch", "layout", "recompute", "schedule")
        return tuple(key for key in keys if getattr(self, key) is not None)


class MtbfSpec(Branch):
    """Mean time between failures of one part of each kind; a part that is left out never fails."""

    gpu: Duration | None = None
    """One GPU."""
    node: Duration | None = None
    """One node: all of it that is neither GPU nor NIC."""
    nic: Duration | None = None
    """One NIC."""


class CheckpointSpec(Branch):
    """Saved states of a run."""

    write: Duration
    """Time in which training stands while a state is saved."""
    every: Duration | None = None
    """Training between two saves; what Daly's formula finds best where left out."""


class StragglersSpec(Branch):
    """GPUs that become slow, which the whole run waits for."""

    mtbf: Duration
    """Mean time until one GPU becomes slow."""
    speed: Fraction = written("80 %")
    """Pace of the run next to a slow GPU over its pace without (assumed)."""
    detect: Duration
    """Time until it is found."""
    swap: Duration
    """From then until training goes on without it: saving, replacement, loading."""


class FailuresSpec(Branch):
    """Failures of a run, each of which takes it back to its last checkpoint."""

    mtbf: MtbfSpec
    """Mean time between failures of a part, by kind."""
    checkpoint: CheckpointSpec
    """Time and interval of saved states."""
    restart: Duration
    """From a failure until training goes on: detection, replacement, loading."""
    spares: Annotated[int, Field(ge=0, le=10**6, strict=True)] | None = None
    """Nodes held back to replace failed ones, and paid; as many as needed, from elsewhere, where left out."""
    repair: Duration = written("1 d")
    """Time until a failed node is a spare again (assumed: a day)."""
    stragglers: StragglersSpec | None = None
    """GPUs that become slow; none where left out."""


class RunSpec(Branch):
    """A whole training run of such steps."""

    tokens: Amount | None = None
    """Tokens of a run of one phase."""
    phases: Annotated[list[PhaseSpec], Field(min_length=1, max_length=100)] | None = None
    """Parts of the run one after another, each with a step of its own; the scenario's step is that of the first."""
    price: Price | None = None
    """The profile's when left out."""
    gpu_load: Fraction | None = None
    """Mean power of a GPU over its TDP, in place of what its activity makes."""
    host_power: Watts | None = None
    """CPU, memory, fans of a node for each GPU, in place of that of `hardware/compute/power.yaml`."""
    network_power: Watts | None = None
    """NIC, optics and switches for each GPU, in place of what ports and bytes make."""
    pue: Annotated[Number, Field(ge=1, le=100)] | None = None
    """Power of the building over power of the machines, in place of that of `hardware/compute/power.yaml`."""
    failures: FailuresSpec | None = None
    """Failures of parts of the cluster; none where left out."""

    @model_validator(mode="after")
    def _one_amount(self) -> RunSpec:
        if (self.tokens is None) == (self.phases is None):
            raise ValueError("the key 'tokens' or the key 'phases', not both")
        return self

    @property
    def stated(self) -> Stated:
        """Power that is stated in place of what activity makes."""
        return Stated(
            gpu_fraction=self.gpu_load, host_w=self.host_power, network_w=self.network_power, pue=self.pue
        )


@dataclass(frozen=True, slots=True)
class FailureModel:
    """Failures of a run, resolved [s].

    Parameters
    ----------
    mtbf_s : dict
        Part -> mean time between failures of all parts of that kind together.
    every_s : float or None
    write_s, restart_s, repair_s : float
    spares : int or None [nodes]
    gpus_per_node : int [count]
    """

    mtbf_s: dict[str, float]
    every_s: float | None
    write_s: float
    restart_s: float
    spares: int | None
    repair_s: float
    gpus_per_node: int
    stragglers: StragglersSpec | None = None  # of any GPU of the run


def check_run(draft: Draft, run: RunSpec) -> None:
    """Note the problems of a run that its shape does not tell."""
    for key in ("price", "host_power", "network_power"):
        _require(draft, (*AT, key), (getattr(run, key) or 0) >= 0, "0 or more")
    if run.tokens is not None:
        _require(draft, (*AT, "tokens"), run.tokens > 0, "more than 0")
    if run.gpu_load is not None:
        _require(draft, (*AT, "gpu_load"), 0 <= run.gpu_load <= 1, "0 to 100 %")
    for index, phase in enumerate(run.phases or ()):
        for key in ("tokens", "steps", "gpu_hours"):
            amount = getattr(phase, key)
            _require(draft, (*AT, "phases", index, key), amount is None or amount > 0, "more than 0")
    names = [phase.name for phase in run.phases or ()]
    for index, name in enumerate(names):
        _require(draft, (*AT, "phases", index, "name"), name not in names[:index], "a name of its own")
    if run.phases and all(phase.gpu_hours is not None for phase in run.phases):
        draft.problem((*AT, "phases"), "GPU-hours alone", "at least one phase with 'tokens' or 'steps'")
    if run.failures is not None:
        _check_failures(draft, run.failures)


def _check_failures(draft: Draft, failures: FailuresSpec) -> None:
    at = (*AT, "failures")
    given = failures.mtbf.model_dump(exclude_none=True)
    if not given:
        draft.problem((*at, "mtbf"), "no part that fails", "one or more of: gpu, node, nic")
    for key, value in given.items():
        _require(draft, (*at, "mtbf", key), value > 0, "more than 0 s")
    if slow := failures.stragglers:
        _require(draft, (*at, "stragglers", "mtbf"), slow.mtbf > 0, "more than 0 s")
        _require(draft, (*at, "stragglers", "speed"), 0 < slow.speed <= 1, "more than 0 %, to 100 %")
    every = failures.checkpoint.every
    _require(draft, (*at, "checkpoint", "every"), every is None or every > 0, "more than 0 s")
    if every is None:
        _require(
            draft, (*at, "checkpoint", "write"), failures.checkpoint.write > 0, "more than 0 s, or 'every'"
        )


def _require(draft: Draft, path: tuple[str | int, ...], good: bool, wanted: str) -> None:
    if not good:
        draft.problem(path, str(draft.document.get(path)), wanted)


def failure_model(
    run: RunSpec | None, hardware: Hardware, num_nodes: int, num_gpus: int
) -> FailureModel | None:
    """Resolve the failures of a run on a cluster; None where it has none."""
    if run is None or run.failures is None:
        return None
    asked, slow = run.failures, run.failures.stragglers
    nics = round(num_gpus * hardware.nics_of_gpu)
    counts = {"gpu": num_gpus, "node": num_nodes, "nic": nics}
    return FailureModel(
        mtbf_s={
            part: mtbf / counts[part]
            for part, mtbf in asked.mtbf.model_dump(exclude_none=True).items()
            if counts[part]
        },
        every_s=asked.checkpoint.every,
        write_s=asked.checkpoint.write,
        restart_s=asked.restart,
        spares=asked.spares,
        repair_s=asked.repair,
        gpus_per_node=num_gpus // num_nodes,
        stragglers=slow and slow.model_copy(update={"mtbf": slow.mtbf / num_gpus}),
    )
