"""TODO sim/show/words/inference.py."""

from __future__ import annotations

from collections.abc import Sequence

from sim.show.views import comparison
from sim.show.views.inference import _SAME, PARTS, is_inference, latency_of, limit_of, memory_parts, where
from sim.show.views.run import Case
from sim.units import show

TERMS = (
    ("TTFT", "from the start of a prompt's first pass to the end of its last, without a queue"),
    ("TPOT", "time of a step over the tokens that it gives a request"),
    ("step", "one pass of all layers over what a GPU has at once, with embedding, head and sampling"),
    ("bound", "the longest of FLOPs over dense peak, bytes over HBM rate, bytes over links; no pass can beat it"),
    ("waits for exchanges", "the compute stream has nothing to do until a dispatch or combine has come"),
    ("sends and receives on SMs", "low-latency kernels take the SMs while they pack and unpack records"),
    ("assumed, derived", "figures without a measurement of their own; each says what it stands on"),
)  # fmt: skip


def finding(found: Sequence[Case]) -> list[str]:
    """What the passes say, the most important first."""
    passes = [case for case in found if is_inference(case)]
    return of_pass(passes[0]) if len(passes) == 1 else _compared(passes)


def of_pass(case: Case) -> list[str]:
    """How fast it is, beside its bound, where the time goes, and how many requests memory holds."""
    m, (name, latency_s) = case.metrics, latency_of(case)
    time = show(latency_s, "s", 3)
    if name == "TPOT":
        said = f"Decode gives a user {m['tokens_per_s_per_user']:.1f} tokens/s (TPOT {time}{_over(case)}) and a GPU {m['tokens_per_s_per_gpu']:,.0f}, with {m['requests_per_gpu']:,.0f} requests on each"
    else:
        said = (
            f"Prefill takes in {m['tokens_per_s_per_gpu']:,.0f} tokens/s a GPU, {m['tokens_per_s_per_node']:,.0f} a node; "
            f"a prompt has its first token after {time}{_over(case, ', ')}"
        )
    return [f"{said}; {_most(case)}, {_exposed(case)}.", *_room(case)]


def _over(case: Case, lead: str = ", ") -> str:
    bound, limit = case.metrics.get("lower_bound_s"), limit_of(case)
    if not bound:
        return ""
    by = f", which {'links set' if limit == 'the links' else f'{limit} sets'}" if limit else ""
    return f"{lead}{latency_of(case)[1] / bound:.2f}x its lower bound{by}"


def _most(case: Case) -> str:
    spent = {part: time_s for part, time_s in where(case).items() if part not in ("waits", "last_rank")}
    if not spent:
        return "where it goes was not kept"
    part = max(spent, key=lambda key: spent[key])
    verb = "takes" if part == "attention" else "take"
    return f"{PARTS[part]} {verb} {spent[part] / case.metrics['step_time_s']:.0%} of a step"


def _exposed(case: Case) -> str:
    m = case.metrics
    exposed = m.get("exposed_comm_s", 0.0)
    if exposed < 0.001 * m["step_time_s"]:
        return "no communication is exposed"
    held = where(case).get("phases", 0.0)
    parts = (("waits for exchanges", exposed - held), ("sends and receives on SMs", held))
    beside = ", ".join(f"{name} {time_s / m['step_time_s']:.1%}" for name, time_s in parts) if held else ""
    return f"exposed communication {exposed / m['step_time_s']:.1%} ({show(exposed, 's', 3)}{f': {beside}' if beside else ''})"


def _room(case: Case) -> list[str]:
    m, parts = case.metrics, memory_parts(case)
    capacity = m.get("memory_capacity_bytes")
    if not capacity or not parts:
        return []
    largest = max((part for part in parts if part != "reserve"), key=lambda key: parts[key])
    fits = f"{m['max_batch_per_gpu']:,.0f} {'prompts' if 'ttft_s' in m else 'requests'}"
    return [
        f"A GPU holds {show(sum(parts.values()), 'bytes', 3)} of its {show(capacity, 'bytes', 3)}, most of it {largest} "
        f"({show(parts[largest], 'bytes', 3)}); {fits} would fit, then {m.get('memory_limit', largest)} takes most.{_halved(case)}"
    ]  # fmt: skip


def _halved(case: Case) -> str:
    """That one request less runs than memory holds, where as many as fit were asked for."""
    m = case.metrics
    if case.workload.get("requests_per_gpu") is not None or "requests_per_gpu" not in m:
        return ""
    run, fit = m["requests_per_gpu"], m["max_batch_per_gpu"]
    return f" {run:,.0f} of them run: an even number, half in each microbatch." if run < fit else ""


def _compared(passes: Sequence[Case]) -> list[str]:
    """Which is best; each variant against the first or its twin, and where the largest difference arises."""
    first = passes[0]
    name, base = latency_of(first)
    rate = first.metrics["tokens_per_s_per_gpu"]
    said = [
        _best(passes),
        f"{first.name} has a {name} of {show(base, 's', 3)}{_over(first)}, and {rate:,.0f} tokens/s a GPU; {_most(first)}, {_exposed(first)}.",
    ]  # fmt: skip
    chosen, pairs, rest = comparison.told(passes, lambda case: latency_of(case)[1])
    for reference, case in (*chosen, *pairs):
        latency_s, per_gpu = latency_of(case)[1], case.metrics["tokens_per_s_per_gpu"]
        ratio, beside = latency_s / latency_of(reference)[1], comparison.as_reference(reference, passes)
        rates = f"{per_gpu:,.0f} tokens/s a GPU"
        if abs(ratio - 1) < _SAME:
            said.append(
                f"{case.name} takes as long{beside}, within {max(abs(ratio - 1), 0.001):.1%}, at {rates}."
            )
            continue
        change = f"{1 / ratio:.2f}x as fast" if ratio < 1 else f"{ratio:.2f}x as long"
        said.append(
            f"{case.name} takes {show(latency_s, 's', 3)}, {change}{beside}, at {rates}{_moved(reference, case)}."
        )
    return [*said, rest] if rest else said


def _best(passes: Sequence[Case]) -> str:
    """Which variant gives a GPU, and which a user, most."""
    most = max(case.metrics["tokens_per_s_per_gpu"] for case in passes)
    least_s = min(latency_of(case)[1] for case in passes)
    by_gpu = [case for case in passes if case.metrics["tokens_per_s_per_gpu"] >= most * (1 - _SAME)]
    by_user = [case for case in passes if latency_of(case)[1] <= least_s * (1 + _SAME)]
    name = latency_of(passes[0])[0]
    user = (
        f"{1 / least_s:.1f} tokens/s" if name == "TPOT" else f"the first token after {show(least_s, 's', 3)}"
    )
    if list(map(id, by_gpu)) == list(map(id, by_user)):
        verb = "is best for both" if len(by_gpu) == 1 else "are best for both"
        return f"{_names(by_gpu)} {verb}: {most:,.0f} tokens/s a GPU, {user}{' a user' if name == 'TPOT' else ''}."
    gives = "gives" if len(by_gpu) == 1 else "give"
    return f"{_names(by_gpu)} {gives} a GPU most, {most:,.0f} tokens/s; {_names(by_user)} a user, {user}."


def _names(found: Sequence[Case]) -> str:
    return " and ".join(case.name for case in found)


def _moved(first: Case, case: Case) -> str:
    """The part that changed most between two passes."""
    ours, theirs = where(first), where(case)
    changes = {part: theirs.get(part, 0.0) - ours.get(part, 0.0) for part in {**ours, **theirs}}
    if not changes:
        return ""
    longer = case.metrics["step_time_s"] > first.metrics["step_time_s"]
    part = max(changes, key=lambda key: changes[key] * (1 if longer else -1))
    return f": {show(abs(changes[part]), 's', 3)} {'more' if changes[part] > 0 else 'less'} of a step in {PARTS[part]}"
