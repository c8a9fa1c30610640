"""Kinds of workloads as they are run: the runner of each, and forecasts."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from sim import kinds
from sim.scenario.descriptions import Scenario

if TYPE_CHECKING:
    from sim.engine.link_states import LinkLoad
    from sim.engine.step import StepRun
    from sim.engine.step_plan import StepPlan

Result = dict[str, Any]
Progress = Callable[[str], None]
Keep = Callable[[Callable[[], Result | None]], None]
"""Takes what makes the document of all that has ended so far, None where nothing has, to write it or not."""
Figures = Mapping[str, float]

LINKS = (
    "gpu.sms",
    "gpu.hbm.bandwidth",
    "gpu.scale_up.bandwidth",
    "gpu.scale_up.domain",
    "gpu.pcie",
    "nic",
    "fabric",
)
"""Parameters of a profile that decide how bytes move, by the beginning of their keys."""
COMPUTE = (
    "gpu.tensor_clock",
    "gpu.sustained",
    "gpu.dense_flops.bf16",
    "gpu.dense_flops.fp8",
    "gpu.hbm",
    "gpu.power",
    "cost",
)
"""Parameters of a profile that decide how long compute takes, by the beginning of their keys."""


@dataclass(frozen=True, slots=True)
class Forecast:
    """Memory of the fullest GPU by part, with `total_bytes` [bytes]; metric -> the best that it could be; and `run` for its metrics."""

    run: Callable[[], dict[str, Any]]
    memory: Figures = field(default_factory=dict)
    best: Figures = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class SharedRun:
    """A run that goes on next to others on one network: plans, each of which begins when the one before has ended."""

    plans: Sequence[StepPlan]
    result: Callable[[Sequence[StepRun]], Result]
    tails_s: Sequence[float] = ()
    """Time that each takes without the network after it, where it takes any [s]."""
    """The parts of the result document, of the plans as they ran, each counted from its own begin."""


@dataclass(frozen=True, slots=True)
class OpenRun:
    """A run that decides while time passes, at what other jobs leave of the links: its result, its span [s], its load."""

    result: Result
    span_s: float
    load: LinkLoad


Left = tuple[tuple[int, float], ...]
"""Links by their rows, and the part that other jobs leave of each."""


@dataclass(frozen=True, slots=True)
class OpenJob:
    """A job that decides while time passes: its run at what others leave, and the NICs by which it sends over a link, by row."""

    run: Callable[[Left, Progress], OpenRun]
    senders: Callable[[int], float]


@dataclass(frozen=True, slots=True)
class Runner:
    """Entry of a module of `sim/runs/` for its kinds, under the name RUNNER."""

    run: Callable[[Scenario, Progress], Result]
    """The parts of the result document that are this kind's own, `metrics` among them."""
    reads: tuple[str, ...]
    """Parameters of the hardware profile that decide a run, by the beginning of their keys."""
    shared: Callable[[Scenario], SharedRun] | None = None
    """The run as one of several jobs that go on together; None of a kind that has a network to itself, or `beside`."""
    forecast: Callable[[Scenario], Forecast] | None = None
    """Memory and bounds before a run; raises `DoesNotFitError` where memory overflows. None where they take as long as the run."""
    beside: Callable[[Scenario], OpenJob] | None = None
    """The run next to jobs that repeat, at what they leave of the links; None of a kind that repeats itself."""


def runner(kind: str) -> Runner:
    """The runner of a kind."""
    declared: Runner = kinds.module("runs", kind).RUNNER
    return declared


def named_parts(parts: Mapping[str, float]) -> Figures:
    """Rename parts of a memory [bytes] as constraints call them: `fp8 copies` -> `fp8_copies_bytes`."""
    return {f"{name.replace(' ', '_')}_bytes": size for name, size in parts.items()} | {
        "total_bytes": sum(parts.values())
    }
