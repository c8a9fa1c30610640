"""Tables of a calibration: phases, collectives, classes of kernels, and the kernels that it could not name."""

from __future__ import annotations

from sim.calibration.calibrate import Calibration
from sim.show.grid import Grid, time_cell
from sim.units import show

_MAX_UNNAMED = 20


def calibration_grids(calibration: Calibration) -> list[Grid]:
    """Return the tables of a calibration; phases and collectives only where the trace has them."""
    grids = [_phases(calibration), _collectives(calibration)] if calibration.phases else []
    return [*grids, _classes(calibration), *([_unnamed(calibration)] if calibration.unnamed else [])]


def summary(calibration: Calibration) -> list[str]:
    """Return what was read, how much communication nothing hid, how it was cut, and how much has no name, in sentences."""
    origin, overlap = calibration.origin, calibration.overlap
    rank = f"rank {origin.rank} of {origin.world_size or 'an unknown number'}"
    lines = [
        f"{origin.file}: {calibration.num_kernels} kernels in {_time(calibration.span_s)} on {origin.gpu or 'an unnamed GPU'}, {rank}.",
        f"Compute was busy for {_time(overlap.compute_busy_s)}, communication for {_time(overlap.comm_busy_s)}, of which "
        f"{_time(overlap.exposed_comm_s)} exposed ({_percent(overlap.exposed_comm_s / calibration.span_s)} of the span).",
    ]
    if calibration.phases:
        marks = "named ranges of the trace" if calibration.cut_by == "ranges" else "marker kernels"
        sms = f"{calibration.compute_sms} SMs compute, {calibration.comm_sms} communicate"
        layers = f"{calibration.num_layers} layer pairs, cut by {marks}"
        lines.append(f"{layers}; {sms}; {calibration.tokens_per_rank} tokens a rank.")
    else:
        lines.append(f"No layer pairs were found: {calibration.why_not}. Only totals by class follow.")
    if host := calibration.host:
        each = f"one in {_time(host.launch_s)}, half of them within {_time(host.half_s)}"
        lines.append(
            f"The host issued {host.num_launches:,} launches, {each} with the profiler's part, waits of {_time(host.waited_s)} left out."
        )
    if not calibration.unnamed:
        return [*lines, "Every kernel could be named."]
    num_kernels = sum(kernel.num_kernels for kernel in calibration.unnamed)
    share = _percent(sum(kernel.share_fraction for kernel in calibration.unnamed))
    return [*lines, f"{num_kernels} kernels, {share} of the kernel time, could not be named."]


def _phases(calibration: Calibration) -> Grid:
    phases = calibration.phases
    rows = [
        (
            name,
            *map(time_cell, (phase.elapsed_s, phase.sm_bound_s, phase.memory_bound_s, phase.idle_s)),
            f"{time_cell(min(phase.per_layer_s))} - {time_cell(max(phase.per_layer_s))}",
        )
        for name, phase in phases.items()
    ]
    total_s = sum(phase.elapsed_s for phase in phases.values())
    return Grid(
        f"Phases of a layer pair, mean of {calibration.num_layers}",
        ("phase", "elapsed", "SM-bound", "memory-bound", "idle", "layers"),
        (*rows, ("all", time_cell(total_s), "", "", "", "")),
        breaks=frozenset({len(rows)}),
    )


def _collectives(calibration: Calibration) -> Grid:
    rows = tuple(
        (
            name,
            f"{collective.kernel}, cached" if collective.cached else collective.kernel,
            *map(time_cell, (collective.data_s, collective.notify_s, collective.preparation_s)),
            str(collective.comm_sms),
        )
        for name, collective in calibration.exchanges.items()
    )
    return Grid(
        f"Exchanges of a layer pair, mean of {calibration.num_layers}",
        ("exchange", "kernel", "data", "barrier", "preparation", "SMs"),
        rows,
        words=frozenset({0, 1}),
        note="The backward of a combine is a dispatch, and the other way round.",
    )


def _classes(calibration: Calibration) -> Grid:
    rows = tuple(
        (one_class.label, one_class.bound, str(one_class.num_kernels), time_cell(one_class.time_s), _percent(one_class.share_fraction))
        for one_class in calibration.classes
    )  # fmt: skip
    heads = ("class", "bound by", "kernels", "time", "share")
    return Grid("Kernels by class", heads, rows, words=frozenset({0, 1}))


def _unnamed(calibration: Calibration) -> Grid:
    rows = tuple(
        (kernel.name, str(kernel.num_kernels), time_cell(kernel.time_s), _percent(kernel.share_fraction))
        for kernel in calibration.unnamed[:_MAX_UNNAMED]
    )
    more = len(calibration.unnamed) - len(rows)
    note = f"and {more} more" if more > 0 else ""
    return Grid("Kernels that could not be named", ("kernel", "runs", "time", "share"), rows, note=note)


def _time(time_s: float) -> str:
    return show(time_s, "s")


def _percent(share_fraction: float) -> str:
    return show(share_fraction, "fraction", 3)
