"""Sentences on prefill and decode: how fast a pass is, where its time goes, and how many requests memory holds."""

from __future__ import annotations

from collections.abc import Collection, Sequence

from sim.show.views import comparison
from sim.show.views.inference import PARTS, PassView
from sim.show.views.lanes import Lanes
from sim.show.views.run import RunsView, RunView
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


def finding(runs: RunsView) -> list[str]:
    """Answer for the passes, the most important sentence first."""
    passes = runs.select(PassView)
    return [_pass(passes[0]), *_room(passes[0])] if len(passes) == 1 else _compared(runs, passes)


def aside(runs: Sequence[RunView]) -> str:
    """TTFT or TPOT of each."""
    return ", ".join(
        f"{run.latency_name} {show(run.latency_s, 's', 3)}" for run in runs if isinstance(run, PassView)
    )


def course(run: PassView, lanes: Lanes) -> str:
    """Title of the timeline: shares of the two streams; low-latency kernels hold the first one's SMs."""

    def share(row: int, kinds: Collection[str]) -> float:
        held_s = sum(
            end_s - start_s for kind in kinds for start_s, end_s, on, _ in lanes.spans[kind] if on == row
        )
        return min(1.0, held_s / lanes.end_s)

    held = share(0, ("phases",))
    computed = share(0, lanes.spans.keys() - {"phases"})
    sends = f", sends and receives records {held:.0%}" if held else ""
    where = f"in {lanes.note} " if lanes.note else ""
    return (
        f"{where}the compute stream computes {computed:.0%} of the time{sends} and waits for exchanges {1 - computed - held:.0%}; "
        f"exchanges are under way {share(1, lanes.spans):.0%} of it"
    )


def _requests(num: float) -> str:
    return f"{num:,.0f} requests" if num >= 1 else "less than a request"


def _pass(run: PassView) -> str:
    """Say how fast it is next to its bound, and where the time goes."""
    time, rate = show(run.latency_s, "s", 3), f"{run.tokens_per_s_per_gpu:,.0f}"
    if run.tpot_s is not None:
        headline = (
            f"Decode gives a user {run.tokens_per_s_per_user:.1f} tokens/s (TPOT {time}{_over(run)}) and a GPU {rate}, "
            f"with {_requests(run.requests_per_gpu or 0.0)} on each"
        )
    else:
        headline = (
            f"Prefill takes in {rate} tokens/s a GPU, {run.tokens_per_s_per_node:,.0f} a node; "
            f"a prompt has its first token after {time}{_over(run)}"
        )
    return f"{headline}; {_most(run)}, {_exposed(run)}."


def _over(run: PassView) -> str:
    if not run.lower_bound_s:
        return ""
    by = f", which {'links set' if run.limit == 'the links' else f'{run.limit} sets'}" if run.limit else ""
    return f", {run.latency_s / run.lower_bound_s:.2f}x its lower bound{by}"


def _most(run: PassView) -> str:
    spent = {
        part: time_s
        for part, time_s in run.where.items()
        if part not in ("waits", "host", "last_rank", "reductions")
    }
    if not spent:
        return "where it goes was not kept"
    part = max(spent, key=lambda name: spent[name])
    return f"{PARTS[part]} {'takes' if part == 'attention' else 'take'} {spent[part] / run.step_time_s:.0%} of a step"


def _exposed(run: PassView) -> str:
    exposed_s, step_s = run.exposed_comm_s, run.step_time_s
    if exposed_s < 0.001 * step_s:
        return "no communication is exposed"
    held_s, reduced_s = (run.where.get(part, 0.0) for part in ("phases", "reductions"))
    waited_s = exposed_s - held_s - reduced_s
    parts = {"waits for exchanges": waited_s, PARTS["phases"]: held_s, PARTS["reductions"]: reduced_s}
    parts = {name: time_s for name, time_s in parts.items() if time_s > 0.0005 * step_s}
    split = ", ".join(f"{name} {time_s / step_s:.1%}" for name, time_s in parts.items())
    several = f": {split}" if held_s or reduced_s else ""
    return f"exposed communication {exposed_s / step_s:.1%} ({show(exposed_s, 's', 3)}{several})"


def _room(run: PassView) -> list[str]:
    """Say what a GPU holds, and how many requests it could hold, if that was counted."""
    held, capacity = run.held, run.memory_capacity_bytes
    if not capacity or not held:
        return []
    largest = max((part for part in held if part != "reserve"), key=lambda part: held[part])
    return [
        f"A GPU holds {show(sum(held.values()), 'bytes', 3)} of its {show(capacity, 'bytes', 3)}, most of it {largest} "
        f"({show(held[largest], 'bytes', 3)}); {_fitting(run)} would fit, then "
        f"{run.memory_limit or largest} takes most.{_halved(run)}"
    ]


def _fitting(run: PassView) -> str:
    """How many requests a GPU has room for."""
    if not run.max_batch_per_gpu:
        return f"fewer {run.noun} than GPUs"
    return f"{run.max_batch_per_gpu:,.0f} {run.noun}"


def _halved(run: PassView) -> str:
    """Say that one request less runs than memory holds, if as many as fit were asked for."""
    num = run.requests_per_gpu
    if run.asked_requests or num is None or num >= run.max_batch_per_gpu:
        return ""
    return f" {num:,.0f} of them run: an even number, half in each microbatch."


def _compared(runs: RunsView, passes: Sequence[PassView]) -> list[str]:
    """Which is best; then passes against the first or their twins, and where the largest difference arises."""
    first = passes[0]
    sentences = [
        _best(passes),
        f"{first.name} has a {first.latency_name} of {show(first.latency_s, 's', 3)}{_over(first)}, and "
        f"{first.tokens_per_s_per_gpu:,.0f} tokens/s a GPU; {_most(first)}, {_exposed(first)}.",
    ]
    pairs, rest = comparison.pairs_of(passes, runs.twins, lambda run: run.latency_s, room=2)
    for reference, run in pairs:
        ratio, than = run.latency_s / reference.latency_s, comparison.as_reference(reference, passes)
        rate = f"at {run.tokens_per_s_per_gpu:,.0f} tokens/s a GPU"
        if abs(ratio - 1) < comparison.SAME:
            sentences.append(f"{run.name} takes as long{than}, within {comparison.as_long(ratio)}, {rate}.")
            continue
        change, time = comparison.speed(ratio), show(run.latency_s, "s", 3)
        why = moved(reference, run)
        sentences.append(f"{run.name} takes {time}, {change}{than}, {rate}{f': {why}' if why else ''}.")
    return comparison.append_rest(sentences, rest)


def _best(passes: Sequence[PassView]) -> str:
    """Which variant gives a GPU, and which a user, most."""
    most = max(run.tokens_per_s_per_gpu for run in passes)
    least_s = min(run.latency_s for run in passes)
    by_gpu = [run for run in passes if run.tokens_per_s_per_gpu >= most * (1 - comparison.SAME)]
    by_user = [run for run in passes if run.latency_s <= least_s * (1 + comparison.SAME)]
    decodes = passes[0].tpot_s is not None
    user = f"{1 / least_s:.1f} tokens/s" if decodes else f"the first token after {show(least_s, 's', 3)}"
    gpu_names, user_names = (" and ".join(run.name for run in best) for best in (by_gpu, by_user))
    if by_gpu == by_user:
        verb = "is best for both" if len(by_gpu) == 1 else "are best for both"
        return f"{gpu_names} {verb}: {most:,.0f} tokens/s a GPU, {user}{' a user' if decodes else ''}."
    gives = "gives" if len(by_gpu) == 1 else "give"
    return f"{gpu_names} {gives} a GPU most, {most:,.0f} tokens/s; {user_names} a user, {user}."


def moved(first: PassView, run: PassView) -> str:
    """Return the part that changed most between two passes, and by how much; "" where nothing is known of parts."""
    if not first.where and not run.where:
        return ""
    slower = run.step_time_s > first.step_time_s
    part, change_s = comparison.most_moved(first.where, run.where, slower=slower)
    return f"{show(abs(change_s), 's', 3)} {'more' if change_s > 0 else 'less'} of a step in {PARTS[part]}"
