"""What a calibration found, as grids: phases, exchanges, classes of kernels, and the kernels that it could not name."""

from __future__ import annotations

from sim.calibration.calibrate import Calibration
from sim.show.grid import Grid, time_cell
from sim.units import show

_MAX_UNNAMED = 20


def of_calibration(found: Calibration) -> list[Grid]:
    """The grids of a calibration; phases and exchanges only where the trace has them."""
    grids = [_phases(found), _exchanges(found)] if found.phases else []
    return [*grids, _classes(found), *([_unnamed(found)] if found.unnamed else [])]


def summary(found: Calibration) -> list[str]:
    """Sentences: what was read, how much communication nothing hid, how it was cut, and how much has no name."""
    origin, overlap = found.origin, found.overlap
    where = (
        f"{origin.gpu or 'an unnamed GPU'}, rank {origin.rank} of {origin.world_size or 'an unknown number'}"
    )
    lines = [
        f"{origin.file}: {found.num_kernels} kernels in {_time(found.span_s)} on {where}.",
        f"Compute was busy for {_time(overlap.compute_busy_s)}, communication for {_time(overlap.comm_busy_s)}, of which "
        f"{_time(overlap.exposed_comm_s)} exposed ({_percent(overlap.exposed_comm_s / found.span_s)} of the span).",
    ]
    if found.phases:
        how = "named ranges of the trace" if found.cut_by == "ranges" else "marker kernels"
        sms = f"{found.compute_sms} SMs compute, {found.comm_sms} communicate"
        lines.append(
            f"{found.num_layers} layer pairs, cut by {how}; {sms}; {found.tokens_per_rank} tokens a rank."
        )
    else:
        lines.append(f"No layer pairs were found: {found.why_not}. Only totals by class follow.")
    if not found.unnamed:
        return [*lines, "Every kernel could be named."]
    num, share = (
        sum(one.num_kernels for one in found.unnamed),
        sum(one.share_fraction for one in found.unnamed),
    )
    return [*lines, f"{num} kernels, {_percent(share)} of the kernel time, could not be named."]


def _phases(found: Calibration) -> Grid:
    rows = [
        (
            name,
            time_cell(one.elapsed_s),
            time_cell(one.sm_bound_s),
            time_cell(one.memory_bound_s),
            time_cell(one.idle_s),
            f"{time_cell(min(one.per_layer_s))} - {time_cell(max(one.per_layer_s))}",
        )
        for name, one in found.phases.items()
    ]
    total_s = sum(one.elapsed_s for one in found.phases.values())
    rows.append(("all", time_cell(total_s), "", "", "", ""))
    return Grid(
        f"Phases of a layer pair, mean of {found.num_layers}",
        ("phase", "elapsed", "SM-bound", "memory-bound", "idle", "layers"),
        tuple(rows),
        breaks=frozenset({len(rows) - 1}),
    )


def _exchanges(found: Calibration) -> Grid:
    rows = tuple(
        (
            name,
            f"{one.kernel}, cached" if one.cached else one.kernel,
            time_cell(one.data_s),
            time_cell(one.notify_s),
            time_cell(one.preparation_s),
            str(one.comm_sms),
        )
        for name, one in found.exchanges.items()
    )
    return Grid(
        f"Exchanges of a layer pair, mean of {found.num_layers}",
        ("exchange", "kernel", "data", "barrier", "preparation", "SMs"),
        rows,
        words=frozenset({0, 1}),
        note="The backward of a combine is a dispatch, and the other way round.",
    )


def _classes(found: Calibration) -> Grid:
    rows = tuple(
        (one.label, one.bound, str(one.num_kernels), time_cell(one.time_s), _percent(one.share_fraction))
        for one in found.classes
    )
    return Grid(
        "Kernels by class", ("class", "bound by", "kernels", "time", "share"), rows, words=frozenset({0, 1})
    )


def _unnamed(found: Calibration) -> Grid:
    rows = tuple(
        (one.name, str(one.num_kernels), time_cell(one.time_s), _percent(one.share_fraction))
        for one in found.unnamed[:_MAX_UNNAMED]
    )
    more = len(found.unnamed) - len(rows)
    note = f"and {more} more" if more > 0 else ""
    return Grid("Kernels that could not be named", ("kernel", "runs", "time", "share"), rows, note=note)


def _time(time_s: float) -> str:
    return show(time_s, "s")


def _percent(share_fraction: float) -> str:
    return show(share_fraction, "fraction", 3)
