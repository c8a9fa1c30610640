"""The lanes of a run: what held which row of its timeline, from when to when, by kind.

Every workload has them: operations of a pipeline, kernels of ranks, both streams of a pass, lives of requests, flows. They
are data; `plot_timeline` draws them, as bars or as a raster. Traces for Perfetto hold more (`timelines`).
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from sim.show import style

if TYPE_CHECKING:
    from sim.show.views.run import Case

Span = tuple[float, float, int, str]
"""Start and end [s], row, and what to call it."""

OPERATIONS = {
    "F": ("forward", "#0A7ABF"),
    "B": ("backward", "#D55E00"),
    "B_in": ("backward, inputs only", "#E69F00"),
    "W": ("weight part", "#009E73"),
    "FB": ("F&B pair", "#B766A0"),
    "opt": ("optimizer", style.NEUTRAL),
}
"""Operation of a training step -> what to call it, and its colour."""
PARTS = {
    "attention": ("attention", "#0A7ABF"),
    "experts": ("routed experts", "#009E73"),
    "shared": ("shared experts", "#3FA3D6"),
    "dense": ("dense layers", "#8F8A00"),
    "phases": ("sends and receives on SMs", style.NEUTRAL),
    "dispatch": ("dispatch", "#B766A0"),
    "combine": ("combine", "#CC8400"),
}
"""Part of a pass -> what to call it, and its colour; an exchange has the colour it has in a layer pair."""
LIVES = {
    "prefill wait": ("waits for prefill", "#B8C0C7"),
    "prefill": ("prefill", "#0A7ABF"),
    "decode wait": ("waits for decode", "#E69F00"),
    "KV": ("KV cache moves", "#B766A0"),
    "step wait": ("waits for a step", "#F0D9A0"),
    "decode": ("decode", "#009E73"),
}
"""Stage of a request's life -> what to call it, and its colour."""
_STAGES = {
    "prefill wait": ("arrival_s", "prefill_start_s"),
    "prefill": ("prefill_start_s", "first_token_s"),
    "decode wait": ("first_token_s", "decode_admitted_s"),
    "KV": ("decode_admitted_s", "kv_arrived_s"),
    "step wait": ("kv_arrived_s", "decode_start_s"),
    "decode": ("decode_start_s", "end_s"),
}
_KERNELS = {"dispatch": PARTS["dispatch"], "combine": PARTS["combine"], "exchange": ("exchange", "#0A7ABF")}
_FLOWS = {"flow": ("in flight", style.COLOUR["nic"])}


@dataclass(frozen=True, slots=True)
class Lanes:
    """Rows with their names, what is called a row, and the spans of each kind; `kinds` are drawn in their order."""

    what: str  # a row: "pipeline rank"
    rows: tuple[str, ...]
    end_s: float
    kinds: Mapping[str, tuple[str, str]]
    spans: Mapping[str, Sequence[Span]]
    note: str = ""
    """What is not shown, for the axis."""

    @property
    def num_spans(self) -> int:
        """Spans of all kinds."""
        return sum(map(len, self.spans.values()))


def operation(kind: str, microbatches: Sequence[int]) -> str:
    """What to call an operation: `F 3`, `W 3`, or `F 3 & B 1` for a pair; -1 stands for no microbatch."""
    f, b = microbatches
    return f"F {f} & B {b}" if kind == "FB" else f"{kind.replace('B_in', 'B')} {max(f, b)}"


def of_case(case: Case) -> Lanes | None:
    """The lanes of a run; None where it kept no course in time."""
    line = case.result.get("timeline") or {}
    for key, make in _MAKERS.items():
        if line.get(key) or (key in ("requests", "flow_completion") and case.result.get(key)):
            return make(case, line)
    return None


def _of_step(case: Case, line: Mapping[str, Any]) -> Lanes:
    spans: dict[str, list[Span]] = {kind: [] for kind in OPERATIONS}
    ranks = line["pipeline"]
    for row, rank in enumerate(ranks):
        for kind, pair, start_s, end_s in zip(
            rank["kinds"], rank["microbatches"], rank["start_s"], rank["end_s"], strict=True
        ):
            spans[kind].append((start_s, end_s, row, operation(kind, pair)))
    last_s = max(max(rank["end_s"]) for rank in ranks)
    for row, time_s in enumerate(line.get("optimizer_s") or []):
        spans["opt"].append((last_s, last_s + time_s, row, "optimizer"))
    return Lanes(
        "pipeline rank", tuple(str(rank["rank"]) for rank in ranks), line["end_s"], OPERATIONS, spans
    )


def _of_pass(case: Case, line: Mapping[str, Any]) -> Lanes:
    """Both streams; results keep the first nodes of a pass."""
    shown, streams = line["passes"][0], ("compute", "communication")
    spans: dict[str, list[Span]] = {kind: [] for kind in PARTS}
    for name, stream, layer, start_s, end_s in zip(
        shown["names"], shown["streams"], shown["tasks"], shown["start_s"], shown["end_s"], strict=True
    ):
        if end_s > start_s:
            words = f"{name.replace('_', ' ')}" + (f" of layer {layer}" if layer >= 0 else "")
            spans[part_of(name)].append((start_s, end_s, streams.index(stream), words))
    end_s = max(shown["end_s"])
    share = end_s / line["end_s"] if line.get("end_s") else 1.0
    note = f"the first {share:.0%} of a pass" if share < 0.99 else ""
    return Lanes("stream", streams, end_s, PARTS, spans, note)


def part_of(node: str) -> str:
    """The part of a pass that a node belongs to: `attention_1(0)` -> `attention`."""
    name = node.partition("(")[0]
    return "phases" if name.endswith((" send", " receive")) else name.partition("_")[0]


def _of_serving(case: Case, line: Mapping[str, Any]) -> Lanes:
    """A row for each request, by arrival."""
    rows = case.result["requests"]
    end_s = float(line.get("end_s") or max(one or 0.0 for one in rows["end_s"]))
    spans: dict[str, list[Span]] = {kind: [] for kind in LIVES}
    for stage, (came, left) in _STAGES.items():
        for row, (start_s, stop_s, last_s) in enumerate(
            zip(rows[came], rows[left], rows["end_s"], strict=True)
        ):
            if start_s is None:
                continue
            until_s = next((one for one in (stop_s, last_s) if one is not None), end_s)
            if until_s > start_s:
                spans[stage].append((start_s, until_s, row, LIVES[stage][0]))
    return Lanes("request", tuple(map(str, range(len(rows["arrival_s"])))), end_s, LIVES, spans)


def _of_kernels(case: Case, line: Mapping[str, Any]) -> Lanes:
    """A row for each rank, with the kernels it ran."""
    kernels = line["kernels"]
    num = max(one["first_gpu"] + len(one["rank_ends_s"]) for one in kernels)
    spans: dict[str, list[Span]] = {kind: [] for kind in _KERNELS}
    for one in kernels:
        for rank, end_s in enumerate(one["rank_ends_s"], start=one["first_gpu"]):
            spans[one["name"]].append((one["start_s"], end_s, rank, one["name"]))
    end_s = max(max(one["rank_ends_s"]) for one in kernels)
    return Lanes("rank", tuple(map(str, range(num))), end_s, _KERNELS, spans)


def _of_flows(case: Case, line: Mapping[str, Any]) -> Lanes:
    """A row for each flow, by its start."""
    flows = sorted(case.result["flow_completion"], key=lambda one: (one[1], one[2], one[0]))
    spans = [
        (start_us * 1e-6, done_us * 1e-6, row, f"flow {int(flow)}")
        for row, (flow, start_us, done_us) in enumerate(flows)
    ]
    names = tuple(str(int(flow)) for flow, _, _ in flows)
    return Lanes("flow", names, max(done for _, done, _, _ in spans), _FLOWS, {"flow": spans})


_MAKERS: dict[str, Callable[[Case, Mapping[str, Any]], Lanes]] = {
    "pipeline": _of_step,
    "passes": _of_pass,
    "requests": _of_serving,
    "kernels": _of_kernels,
    "flow_completion": _of_flows,
}
