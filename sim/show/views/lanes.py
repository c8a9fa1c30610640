"""The lanes of a run: what held which row of its timeline, from when to when, by kind.

Every workload has them: operations of a pipeline, kernels of ranks, both streams of a pass, lives of requests, flows. They
are data that a view makes of its own records; `plots/timeline` draws them, as bars or as a raster. Traces for Perfetto hold
more (`timeline` of a workload in `files`).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from sim.show import style

Span = tuple[float, float, int, str]
"""Start and end [s], row, and what to call it."""

OPERATIONS = {
    "F": ("forward", "#005EAE"),
    "B": ("backward", "#F2791B"),
    "B_in": ("backward, inputs only", "#BC0000"),
    "W": ("weight part", "#5EAE94"),
    "FB": ("F&B pair", "#BC86F2"),
    "FW": ("F&W pair", style.OTHERS["olive"]),
    "opt": ("optimizer", "#86515E"),
}
"""Operation of a training step -> what to call it, and its colour."""
PARTS = {
    "attention": ("attention", "#005EAE"),
    "experts": ("routed experts", "#5EAE94"),
    "shared": ("shared experts", "#BC0000"),
    "dense": ("dense layers", style.OTHERS["olive"]),
    "phases": ("sends and receives on SMs", style.NEUTRAL),
    "dispatch": ("dispatch", "#BC86F2"),
    "combine": ("combine", "#86515E"),
}
"""Part of a pass -> what to call it, and its colour; an exchange has the colour it has in a layer pair."""
LIVES = {
    "prefill wait": ("waits for prefill", "#BC0000"),
    "prefill": ("prefill", "#005EAE"),
    "decode wait": ("waits for decode", "#F2791B"),
    "KV": ("KV cache moves", "#BC86F2"),
    "step wait": ("waits for a step", "#86515E"),
    "decode": ("decode", "#5EAE94"),
}
"""Stage of a request's life -> what to call it, and its colour."""


@dataclass(frozen=True, slots=True)
class Lanes:
    """Rows with their names, what is called a row, and the spans of each kind; `kinds` are drawn in their order."""

    what: str  # a row: "pipeline rank"
    rows: tuple[str, ...]
    end_s: float
    kinds: Mapping[str, tuple[str, str]]
    spans: Mapping[str, Sequence[Span]]
    note: str = ""
    """Words for the axis on what is not shown."""

    @property
    def num_spans(self) -> int:
        """Spans of all kinds."""
        return sum(map(len, self.spans.values()))


def part_of(node: str) -> str:
    """The part of a pass that a node belongs to: `attention_1(0)` -> `attention`."""
    name = node.partition("(")[0]
    return "phases" if name.endswith((" send", " receive")) else name.partition("_")[0]
