"""A scenario while it is resolved: its parts so far, and every problem found in it."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TypeVar

from sim import documents
from sim.cluster import topology
from sim.cluster.hardware import Hardware
from sim.cluster.parts import ClusterPart
from sim.documents import Document
from sim.errors import InputError, Mark, Problem
from sim.scenario.descriptions import Scenario
from sim.scenario.pools import SharedCluster
from sim.scenario.values import Branch, Count
from sim.workload.model import Model, load_model

T = TypeVar("T")


class LayoutSpec(Branch):
    """Sizes of the groups that ranks are split into; what is left out is derived."""

    ep: Count | None = None
    pp: Count | None = None
    tp: Count | None = None
    dp: Count | None = None
    cp: Count | None = None
    etp: Count | None = None
    """Ranks that split each expert: TP where `ep: 1` is written, else 1."""
    order: str | None = None
    """The dimensions, neighbouring ranks' first; tp-cp-ep-dp-pp when left out. Experts have etp for tp, and no cp."""


@dataclass(slots=True)
class Draft:
    """A scenario on its way: its parts that are known, and every problem found so far."""

    document: Document
    seed: int
    fidelity: str
    asked: LayoutSpec
    resolve: Callable[[Document], Scenario]  # of a part that is a scenario of its own
    problems: list[Problem] = field(default_factory=list)
    hardware: Hardware | None = None
    num_nodes: int = 0
    part: ClusterPart | None = None  # the GPUs that the workload takes
    fabric: topology.Fabric | topology.LeafSpine | None = None
    shared: SharedCluster | None = None  # where the cluster has pools
    divides: bool = False  # the workload chooses pools for its parts itself
    faults: tuple[topology.Fault, ...] = ()
    model: Model | None = None
    layout: dict[str, int | str] = field(default_factory=dict)
    derived: dict[str, Any] = field(default_factory=dict)  # keys of the workload that follow from others

    def problem(self, path: documents.Path_, got: object, wanted: str) -> None:
        """Note a problem at a path of the document."""
        self.problems.append(self.document.problem(path, got, wanted))

    @property
    def num_ranks(self) -> int:
        """GPUs that the workload takes."""
        assert self.part is not None
        return self.part.num_gpus

    @property
    def gpus_per_node(self) -> int:
        """GPUs that it takes of one scale-up domain."""
        assert self.part is not None
        joined = isinstance(self.fabric, topology.Fabric) and self.fabric.kind == "scale_up"
        return self.num_ranks if joined else self.part.gpus_per_node

    def divisor_wanted(self, size: int) -> str:
        """The sizes that the ranks can be cut into, for messages on one that they cannot."""
        num, most = self.num_ranks, self.num_ranks // size * size
        divisors = ", ".join(str(d) for d in range(1, num + 1) if num % d == 0)
        idle = f"; or 'cluster.gpus: {most}', and the other {num - most} idle" if most else ""
        return f"a divisor of the {num} ranks: {divisors}{idle}"


def catch(problems: list[Problem], make: Callable[[], T]) -> T | None:
    """Run `make`; its problems are added to the others, so that all are reported together. Returns None where it has any."""
    try:
        return make()
    except InputError as error:
        problems.extend([problem for problem in error.problems if problem not in problems])
        return None


def placed_at(document: Document, base: documents.Path_, error: InputError) -> list[Problem]:
    """Move problems of lower rooms to the branch of the scenario that caused them, `base`, which their keys are in."""
    placed = []
    for problem in error.problems:
        where = problem.where or document.mark((*base, *documents.split(problem.key)))
        placed.append(Problem(where, problem.key, problem.got, problem.wanted, problem.nearest))
    return placed


def named_file(document: Document, path: documents.Path_) -> tuple[Path, Mark, str]:
    """The file that a key of a scenario names, absolute or relative to the scenario; its mark, and the key."""
    file = (document.folder or Path()) / str(document.get(path))
    return file, document.mark(path), documents.dotted(path)


def model_of(document: Document, named: str | dict[str, Any] | None, *, needed: bool) -> Model | None:
    """Load the model, by name, path or inline; None where none is named. Raises `InputError` where one is `needed`."""
    if named is None:
        if needed:
            raise InputError(
                document.problem((), "no model", "the key 'model', e.g. deepseek-v3, or bytes_per_rank")
            )
        return None
    if isinstance(named, str):
        return load_model(named, near=document.folder, mark=document.mark(("model",)))
    return load_model(document.branch(("model",)))
