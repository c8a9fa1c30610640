"""The workload of one collective of all groups of a layout, such as an all-reduce of every TP group."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import numpy as np

from sim.cluster.collective_library import CollectiveLibrary, load_library
from sim.cluster.kernels import Kernel, load_kernel
from sim.cluster.parameters import SourcedFile
from sim.cluster.topology import Ints
from sim.errors import Problem, nearest
from sim.scenario import sizes
from sim.scenario.descriptions import Scenario, Workload
from sim.scenario.draft import Draft
from sim.scenario.kinds import Resolver
from sim.scenario.values import WorkloadSpec
from sim.schedule.group_operations import algorithms
from sim.schemas import Bytes
from sim.workload.layout import derive

Group = Literal["world", "tp", "cp", "dp", "ep", "expert_dp", "pp"]
Operation = Literal["all_gather", "reduce_scatter", "all_reduce", "all_to_all", "broadcast"]
_AT = ("workload",)


class CollectiveSpec(WorkloadSpec):
    """One collective of every group of a kind, all at once, as NCCL runs it."""

    kind: Literal["collective"]
    op: Operation
    """Operation that every group runs."""
    bytes_per_rank: Bytes
    """Bytes that a rank holds before it: of an all_gather its shard, else its whole buffer."""
    group: Group = "world"
    """Ranks that take part: all, or those of a dimension of the layout."""
    algorithm: Literal["auto", "ring", "tree", "nvls", "hierarchical", "direct"] = "auto"
    """Way that the bytes take; auto is the one that NCCL's tuner chooses, `direct` is for all_to_all."""


@dataclass(frozen=True, slots=True)
class GroupCollectives(Workload):
    """A collective, and the ranks of each group that runs it [num_groups, num_ranks]."""

    spec: CollectiveSpec
    ranks: Ints
    library: CollectiveLibrary
    kernel: Kernel

    @property
    def kernels(self) -> tuple[Kernel, ...]:
        """NCCL's sends."""
        return (self.kernel,)

    @property
    def files(self) -> tuple[SourcedFile, ...]:
        """NCCL's sends, and its library."""
        return (self.kernel, self.library)

    @property
    def total_bytes(self) -> float:
        """The whole buffer, as nccl-tests count sizes [bytes]."""
        spec = self.spec
        return spec.bytes_per_rank * (self.ranks.shape[1] if spec.op == "all_gather" else 1)


def collective_of(draft: Draft, spec: CollectiveSpec) -> GroupCollectives:
    """Resolve a collective; problems are added to the draft."""
    assert draft.hardware is not None
    if draft.model is not None:
        draft.problem(("model",), draft.document.get(("model",)), "none: a collective has bytes and no model")
    if spec.bytes_per_rank <= 0:
        got = str(draft.document.get((*_AT, "bytes_per_rank")))
        draft.problem((*_AT, "bytes_per_rank"), got, "more than 0")
    asked = draft.asked
    layout = derive(draft.num_ranks, pp=asked.pp, ep=asked.ep, tp=asked.tp, dp=asked.dp, cp=asked.cp)
    draft.layout = {name: getattr(layout, name) for name in ("ep", "dp", "pp", "tp", "cp")}
    ranks = layout.groups(spec.group)
    if ranks.shape[1] < 2:
        got = f"{spec.group}, a group of one rank ({layout})"
        draft.problem(
            (*_AT, "group"), got, "a group of two ranks or more: world, or one whose size 'layout' gives"
        )
    shapes = np.unique(ranks - ranks[:, :1] // draft.gpus_per_node * draft.gpus_per_node, axis=0)
    by_shape = [algorithms(spec.op, shape, draft.hardware, draft.gpus_per_node) for shape in shapes]
    able = [name for name in by_shape[0] if all(name in others for others in by_shape)]
    if spec.algorithm != "auto" and spec.algorithm not in able:
        where = draft.document.mark((*_AT, "algorithm"))
        wanted = f"one that {spec.op} has in such groups: {', '.join(['auto', *able])}"
        draft.problems.append(
            Problem(where, "workload.algorithm", f"'{spec.algorithm}'", wanted, nearest(spec.algorithm, able))
        )
    return GroupCollectives(spec, ranks, load_library(), load_kernel("nccl"))


def _count(scenario: Scenario, work: GroupCollectives) -> None:
    sizes.require_nodes(scenario, scenario.num_nodes)
    if work.spec.op == "all_to_all":
        sizes.require_pairs(*work.ranks.shape)


RESOLVER = Resolver(
    {"collective": CollectiveSpec},
    collective_of,
    needs_model=lambda spec: False,
    faults=("bandwidth", "scale_up"),
    windows=True,
    gathers=True,
    count=_count,
)
