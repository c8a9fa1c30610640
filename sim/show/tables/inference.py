"""Prefill and decode in tables and sentences: the pass beside its bound, where it goes, what memory holds."""

from __future__ import annotations

from collections.abc import Sequence

from sim.show.grid import Cell, Grid, padded, time_cell
from sim.show.views.inference import PARTS, is_inference, latency_of, limit_of, memory_parts, where
from sim.show.views.run import Case
from sim.units import show

_BESIDE = 3  # cases side by side in a table; more get no shares


# --- grids -----------------------------------------------------------------------------------------------------------


def grids(found: Sequence[Case]) -> list[Grid]:
    """All grids of the passes among the cases."""
    passes = [case for case in found if is_inference(case)]
    if not passes:
        return []
    return [of_passes(passes), of_where(passes), of_memory(passes), of_exchanges(passes)]


def of_passes(passes: Sequence[Case]) -> Grid:
    """Latency and throughput beside the bound, a row for each case."""
    names = list(dict.fromkeys(latency_of(case)[0] for case in passes))
    first = latency_of(passes[0])[1]
    rows = []
    for case in passes:
        m, (_, latency_s) = case.metrics, latency_of(case)
        bound = m.get("lower_bound_s")
        rows.append(
            (
                case.name,
                time_cell(latency_s),
                time_cell(m["step_time_s"]),
                time_cell(bound),
                f"{latency_s / bound:.3f}" if bound else "-",
                limit_of(case).removeprefix("the ") or "-",
                f"{m['tokens_per_s_per_gpu']:,.0f}",
                f"{m['tokens_per_s_per_user']:.1f}" if "tokens_per_s_per_user" in m else "-",
                f"{m['requests_per_gpu']:,.0f}" if "requests_per_gpu" in m else "-",
                f"{latency_s / first:.3f}" if len(passes) > 1 else "-",
            )
        )
    heads = (
        "variant" if len(passes) > 1 else "scenario", " / ".join(names), "step", "bound", "/ bound", "set by", "tokens/s\na GPU",
        "tokens/s\na user", "requests", f"/ {passes[0].name}",
    )  # fmt: skip
    return Grid("The pass beside its lower bound", heads, tuple(rows), words=frozenset({0, 5}))


def of_where(passes: Sequence[Case]) -> Grid:
    """Where the pass goes on the mean rank's compute stream."""
    spent = [where(case) for case in passes]
    shares = len(passes) <= _BESIDE
    rows: list[tuple[Cell, ...]] = []
    for part, label in PARTS.items():
        if not any(part in one for one in spent):
            continue
        cells: list[Cell] = []
        for one, case in zip(spent, passes, strict=True):
            cells.append(time_cell(one.get(part)))
            if shares:
                cells.append(f"{one[part] / case.metrics['step_time_s']:.1%}" if part in one else "-")
        rows.append((label, *cells))
    rows.append(
        (
            "step",
            *(c for case in passes for c in (time_cell(case.metrics["step_time_s"]), "100.0%")[: 1 + shares]),
        )
    )
    names = [case.name if len(passes) > 1 else "time" for case in passes]
    heads = [head for name in names for head in ((name, "share") if shares else (name,))]
    note = (
        "share: of the step, on the compute stream of the mean rank"
        if shares
        else "on the compute stream of the mean rank"
    )
    if any("phases" in one for one in spent):
        note += "; exposed communication is waits, and sends and receives on SMs"
    return Grid(
        "Where the pass goes", ("part", *heads), tuple(rows), breaks=frozenset({len(rows) - 1}), note=note
    )


def of_memory(passes: Sequence[Case]) -> Grid:
    """What a GPU holds, and how many requests it could hold."""
    held = [memory_parts(case) for case in passes]
    keys = list(dict.fromkeys(key for one in held for key in one))
    rows: list[tuple[Cell, ...]] = [
        (key, *(padded(show(one[key], "bytes", 3), 3) if key in one else "-" for one in held)) for key in keys
    ]
    capacity = [case.metrics.get("memory_capacity_bytes") for case in passes]
    rows.append(("all", *(padded(show(sum(one.values()), "bytes", 3), 3) for one in held)))
    rows.append(("of a GPU's", *(padded(show(one, "bytes", 3), 3) if one else "-" for one in capacity)))
    rows.append(
        ("requests that fit", *(f"{case.metrics.get('max_batch_per_gpu', 0):,.0f}" for case in passes))
    )
    heads = ("part", *(case.name if len(passes) > 1 else "memory" for case in passes))
    return Grid("Memory of a GPU", heads, tuple(rows) if keys else (), breaks=frozenset({len(keys)}))


def of_exchanges(passes: Sequence[Case]) -> Grid:
    """Dispatch and combine of one layer and microbatch."""
    rows = []
    for case in passes:
        for name, one in (case.result.get("exchanges") or {}).items():
            rows.append(
                (
                    *((case.name,) if len(passes) > 1 else ()),
                    name,
                    time_cell(one["alone_s"]),
                    time_cell(one["longest_s"]),
                    f"{one['nodes_per_token']:.3g}",
                    f"{one['ranks_per_token']:.3g}",
                    f"{one['max_over_mean_rank_load']:.2f}",
                )
            )
    heads = ("exchange", "alone", "slowest rank", "nodes/token", "ranks/token", "busiest rank / mean")
    many = len(passes) > 1
    return Grid(
        "Exchanges of one layer and microbatch",
        ("variant", *heads) if many else heads,
        tuple(rows),
        words=frozenset({0, 1}) if many else frozenset({0}),
    )


# --- sentences -------------------------------------------------------------------------------------------------------
