"""Software: what the host of a GPU does for each launch, and how many launches a stack makes of a layer.

One YAML file of `hardware/software/` is one stack in one release. The launches of an operation that a file leaves out are
those of moesim's own lists (`sim.cost.layers`, `sim.cost.serving_kernels`).
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

from sim import documents
from sim.cluster import parameters as p
from sim.descriptions import Description, OneOf
from sim.documents import Document
from sim.errors import Mark

NONE = "none"
"""Name of the software whose launches cost nothing."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Issued(Description):
    """Launches of one operation of a layer for a microbatch."""

    forward: p.CountOrNone
    """In the forward pass."""
    backward: p.CountOrNone | None = None
    """For the gradient of its input; as in the forward pass when left out."""
    weight: p.CountOrNone | None = None
    """For the gradient of its weights; none when left out."""
    syncs: p.CountOrNone | None = None
    """Times that the host waits for the device before it issues the forward; none when left out."""

    def count(self, part: str) -> int:
        """Launches of a part: F, B or W."""
        if part == "F":
            return self.forward
        if part == "W":
            return self.weight or 0
        return self.forward if self.backward is None else self.backward


@dataclass(frozen=True, slots=True, kw_only=True)
class Launches(Description):
    """Launches of a layer by operation, as a file assumes them of a stack."""

    norm: Issued
    """Both norms of a layer."""
    attention: Issued
    """Projections, rotary embedding and core."""
    router: Issued
    """Gate: logits, scores, the choice of experts and their loss."""
    permute: Issued
    """Counts and order of the tokens before they are sent."""
    dispatch: Issued
    """The all-to-all to the experts."""
    experts: Issued
    """All launches of the routed experts that do not grow with their number."""
    each_expert: Issued | None = None
    """Launches of every expert of a rank, where products are not grouped."""
    shared_experts: Issued
    combine: Issued
    """The all-to-all back, and the sum of a token's results."""
    dense: Issued
    """Feed-forward block of a layer without experts."""
    tensor_parallel: Issued | None = None
    """Collectives of a tensor-parallel group around attention."""
    ends: Issued | None = None
    """Embedding, head and sampling of a pass, with the inputs of the next; moesim's own list when left out."""
    stage: Issued | None = None
    """Each way of a chunk and microbatch, where a pipeline has several stages: its send and receive, which a pair waits for once."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Software(p.SourcedFile):
    """One stack in one release."""

    name: str
    title: str
    launch_s: p.Duration
    """Host time of one launch, from the one before."""
    sync_s: p.Duration
    """From the device having come to a synchronisation until the host issues again."""
    step_s: p.Duration
    """Between two decode steps or prefill passes, while the device has nothing to do."""
    run_ahead: p.Count
    """Launches that the host may be ahead of the device."""
    graphs: Annotated[str, OneOf(("none", "decode", "all"))] = "none"
    """Passes whose launches are replayed from a CUDA graph, which is one launch and synchronises nothing."""
    launches: Launches | None = None

    def graphed(self, kind: str) -> bool:
        """True where operations of a kind of workload are graphs."""
        return self.graphs in ("all", kind)


def load_software(
    name_or_path: str | Path,
    override: Document | Mapping[str, Any] | None = None,
    *,
    near: Path | None = None,
    mark: Mark | None = None,
) -> Software:
    """Read a software profile, a shipped one or a path, with an override as of `load_hardware`.

    InputError with every problem of the file and of the override.

    Examples
    --------
    >>> load_software("none").launch_s
    0.0
    """
    path = documents.find(str(name_or_path), "hardware/software", "software", near=near, mark=mark)
    return p.read(Software, documents.load(path), override)[0]
