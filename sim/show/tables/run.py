"""The grids of a run and of a validation.

Why this way: the terminal and the report must never state different numbers, so both print the same grids.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence

from sim.schedule.collectives import KINDS
from sim.show.grid import Cell, Grid, time_cell, value_cell
from sim.show.tables import inference, serving, training
from sim.show.views import inference as inference_views
from sim.show.views import names as names_views
from sim.show.views import serving as serving_views
from sim.show.views import training as training_views
from sim.show.views.run import Case, Result, Twin, cases, over_bound, twins
from sim.trees import flatten


def of_result(result: Result, *, wide: bool = True) -> list[Grid]:
    """The grids of a run: times beside bounds, bytes and bandwidths, published values.

    Names of resources are left out of a comparison that is not `wide`.
    """
    found = cases(result)
    made = [
        times(found, wide=wide),
        bandwidths(found),
        *training.grids(found),
        *inference.grids(found),
        *serving.grids(found),
        others(found),
        expectations(found),
    ]
    return [one.without_empty() for one in made if one.rows]


def times(found: Sequence[Case], *, wide: bool = True) -> Grid:
    """Time, completion, bound and what binds, a row for each case and direction."""
    pairs = {id(pair.other): pair for pair in twins(found)}
    many = len(found) > 1
    against, head = _reference(found, list(pairs.values()))
    rows: list[tuple[Cell, ...]] = []
    breaks: list[int] = []
    for case in found:
        if id(case) not in pairs:
            breaks.append(len(rows))
        for direction, m in case.transfers.items():
            ratio = over_bound(m)
            resource = m.get("binding_resource")
            twin = pairs.get(id(case)) or against.get(id(case))
            gain = twin.ratio(direction) if twin else None
            rows.append(
                (
                    *((case.name,) if many else ()),
                    direction,
                    time_cell(m.get("time_s")),
                    time_cell(m["completion_time_s"]),
                    time_cell(m.get("lower_bound_s")),
                    f"{ratio:.3f}" if ratio else "-",
                    names_views.label(str(m["binding"])),
                    str(resource or "-") if wide or not many else "-",
                    f"{gain:.3f}" if gain else ("1" if many and _is_reference(case, pairs, against) else "-"),
                )
            )
    heads = ("direction", "time", "last rank", "bound", "/ bound", "binds", "fullest on its path", head)
    first = 1 if many else 0
    return Grid(
        title="Times beside their lower bounds",
        heads=(("variant", *heads) if many else heads),
        rows=tuple(rows),
        words=frozenset({0, first, first + 5, first + 6}),
        breaks=frozenset(breaks[1:]) if many and len(rows) > len(breaks) else frozenset(),
        note="time: mean over ranks; / bound: the last rank's completion over its lower bound",
    )


def _reference(found: Sequence[Case], pairs: Sequence[Twin]) -> tuple[dict[int, Twin], str]:
    """What each case is compared with where it has no twin, and the head of that column."""
    if pairs:
        names = {pair.reference.hardware for pair in pairs}
        return {}, f"/ {names_views.hardware_name(names.pop())}" if len(names) == 1 else "/ twin"
    if len(found) > 1:
        return {id(case): Twin(found[0], case) for case in found[1:]}, f"/ {found[0].name}"
    return {}, ""


def _is_reference(case: Case, pairs: Mapping[int, Twin], against: Mapping[int, Twin]) -> bool:
    return any(twin.reference is case for twin in [*pairs.values(), *against.values()])


def bandwidths(found: Sequence[Case]) -> Grid:
    """Bytes that cross cables, bandwidths as benchmarks print them, and what a token touches."""
    many, others = len(found) > 1, {id(pair.other) for pair in twins(found)}
    rows: list[tuple[Cell, ...]] = []
    breaks: list[int] = []
    for case in found:
        if id(case) not in others:
            breaks.append(len(rows))
        selections = case.kernel in KINDS and KINDS[case.kernel].counts_selections
        for direction, m in case.transfers.items():
            if direction == "flows":
                continue
            rows.append(
                (
                    *((case.name,) if many else ()),
                    direction,
                    value_cell("bytes", m.get("wire_nic_bytes")),
                    value_cell("bytes", m.get("wire_nvlink_bytes")),
                    "-" if selections else value_cell("bytes/s", m.get("logical_rdma_bytes_per_s")),
                    "-" if selections else value_cell("bytes/s", m.get("logical_nvlink_bytes_per_s")),
                    value_cell("bytes/s", m.get("logical_selection_bytes_per_s")) if selections else "-",
                    value_cell("bytes/s", m.get("algbw_bytes_per_s")),
                    value_cell("bytes/s", m.get("busbw_bytes_per_s")),
                    value_cell("number", m.get("nodes_per_token")),
                    value_cell("number", m.get("ranks_per_token")),
                )
            )
    heads = (
        "direction", "NIC wire", "NVLink wire", "logical RDMA", "logical NVLink", "logical", "algbw", "busbw",
        "nodes/token", "ranks/token",
    )  # fmt: skip
    return Grid(
        title="Bytes a rank sends, and bandwidths as benchmarks count them",
        heads=(("variant", *heads) if many else heads),
        rows=tuple(rows),
        words=frozenset({0, 1}) if many else frozenset({0}),
        breaks=frozenset(breaks[1:]) if many and len(rows) > len(breaks) else frozenset(),
        note="wire: what crosses a cable; logical: DeepEP's count, local copies included",
    )


def others(found: Sequence[Case]) -> Grid:
    """Every number of the metrics, for workloads that are no transfer: a column a case."""
    told = (
        training_views.is_training,
        inference_views.is_inference,
        serving_views.is_serving,
    )  # they have tables of their own
    plain = [case for case in found if not case.transfers and not any(is_one(case) for is_one in told)]
    metrics = {case.name: flatten(case.metrics) for case in plain}
    keys = dict.fromkeys(key for one in metrics.values() for key in one)
    return Grid(
        title="Metrics",
        heads=("metric", *metrics),
        rows=tuple(
            (key, *(names_views.value(key, one[key]) if key in one else "-" for one in metrics.values()))
            for key in keys
        ),
    )


def expectations(found: Sequence[Case]) -> Grid:
    """Published values beside ours."""
    rows: list[tuple[Cell, ...]] = []
    bad: list[int] = []
    many = len(found) > 1
    for case in found:
        for row in case.result.get("expect") or []:
            if not row["ok"]:
                bad.append(len(rows))
            rows.append(
                (
                    *((case.name,) if many else ()),
                    str(row["metric"]),
                    names_views.value(row["metric"], row["published"]),
                    names_views.value(row["metric"], row["simulated"]),
                    f"{row['error_fraction']:+.1%}",
                    f"±{row['tolerance_fraction']:.1%}",
                    "ok" if row["ok"] else "missed",
                    str(row.get("source") or "-"),
                )
            )
    heads = ("metric", "published", "simulated", "error", "tolerance", "", "source")
    first = 1 if many else 0
    return Grid(
        title="Published values beside ours",
        heads=(("variant", *heads) if many else heads),
        rows=tuple(rows),
        words=frozenset({0, first, first + 5, first + 6}),
        bad=frozenset(bad),
    )


def leaned_on(found: Iterable[Case]) -> Grid:
    """Assumed, derived and overridden figures, each once, the weakest grade first."""
    order = {"override": 0, "assumed": 1, "derived": 2}
    seen: dict[tuple[str, ...], list[str]] = {}
    all_cases = list(found)
    for case in all_cases:
        for one in (case.result.get("provenance") or {}).get("leaned_on") or []:
            why = " · ".join(part for part in (one.get("detail"), one.get("source")) if part)
            seen.setdefault((one["key"], one["value"], one["grade"], why), []).append(case.hardware)
    hardware = {case.hardware for case in all_cases}
    rows = [
        (
            grade,
            key,
            value,
            ", ".join(sorted(set(names)))
            if set(names) != hardware
            else ("both" if len(hardware) == 2 else "all"),
            why,
        )
        for (key, value, grade, why), names in seen.items()
    ]
    rows.sort(key=lambda row: (order.get(row[0], 9), row[1]))
    if len(hardware) < 2:
        short = tuple((grade, key, value, why) for grade, key, value, _, why in rows)
        return Grid(
            "Assumptions leaned on",
            ("grade", "figure", "value", "why and source"),
            short,
            words=frozenset({0, 1, 3}),
        )
    heads = ("grade", "figure", "value", "hardware", "why and source")
    return Grid("Assumptions leaned on", heads, tuple(rows), words=frozenset({0, 1, 3, 4}))
