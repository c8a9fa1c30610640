"""Removals: what else goes when a choice is taken out of the full design, which is other rungs whose keys its `without` sets back.

A rung that is removed last may take others along. One copy a rank is what two hops are built on, so a `without` that says
"a copy for each expert" sets the kernel back beyond both. What such a removal costs is not the price of that one choice.

Leaf by leaf, what stands at a key along the ladder is compared with what stands there without the rung. A value from further
down the ladder undoes every rung that moved the key since, and those are taken along. A value from nowhere on the ladder
stands in for the last rung that moved the key, which is then altered and not undone: sixteen replicas instead of 128, because
no more fit. What another rung sets and this one had overwritten comes back, and counts as neither.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from sim.documents import Document, Path_
from sim.ladders.spec import Ladder
from sim.scenario.settings import unfold_model
from sim.trees import leaves

Leaves = Mapping[Path_, Any]
"""Path -> scalar or list: a design, flattened."""


@dataclass(frozen=True, slots=True)
class Removal:
    """The effect of a removal on other rungs, by name and in the ladder's order."""

    takes_along: tuple[str, ...]
    """Rungs of which something is undone too."""
    alters: tuple[str, ...]
    """Rungs of which something is set to what no design of the ladder has."""


def removals(ladder: Ladder) -> dict[str, Removal]:
    """Return for each rung what else goes or changes when it is removed last."""
    names = list(ladder.spec.rungs)
    designs = [_flat(ladder.design(names[:n])) for n in range(len(names) + 1)]
    return {name: effect(name, names, designs, _flat(ladder.design_without(name))) for name in names}


def effect(rung: str, rungs: Sequence[str], designs: Sequence[Leaves], without: Leaves) -> Removal:
    """Find what the removal of a rung does to the others.

    `designs` are the naive one and that after each rung [num_rungs + 1], `without` is the full one but for the
    rung.
    """
    undone, altered = set(), set()
    for path in {path: None for design in (*designs, without) for path in design}:
        along, now = [design.get(path) for design in designs], without.get(path)
        if now == along[-1]:
            continue
        movers = [i for i in range(1, len(along)) if along[i] != along[i - 1]]
        same = [i for i, value in enumerate(along) if value == now]
        if same:
            undone |= {rungs[i - 1] for i in movers if i > same[-1]}
        elif movers:
            altered.add(rungs[movers[-1] - 1])
    undone.discard(rung)
    altered -= {rung, *undone}
    return Removal(tuple(r for r in rungs if r in undone), tuple(r for r in rungs if r in altered))


def _flat(design: Document) -> Leaves:
    """Return a design by leaves, those of its model too: a key below a named model changes that key alone."""
    unfold_model(design)
    return dict(leaves(design.tree))
