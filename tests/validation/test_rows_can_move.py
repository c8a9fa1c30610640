"""Every row of kernels and steps moves beyond its tolerance under one change of the model: none would hold whatever happens."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import fields, is_dataclass, replace
from typing import Any

import pytest

from figures import by_id
from sim.cluster.collective_library import load_library
from sim.cluster.kernels import Kernel, load_kernel
from sim.scenario import collective, settings
from sim.validation.runs import RunFigures, rows
from sim.validation.validate import load

pytestmark = [pytest.mark.slow, pytest.mark.xdist_group("published")]

NAMES = (
    "two_hop", "low_latency", "h100_normal", "h100_low_latency", "hybrid_ep", "deepep_v2", "nccl", "nccl_8gpu", "prefill",
    "decode", "training_step", "sglang_tp8",
)  # fmt: skip
LOOSEST = 0.25
"""Tolerance of a row that has none of its own."""
LIBRARY: dict[str, Any] = {}
"""The change of what no scenario overrides, the times of NCCL's own collectives."""
SLOWER: Mapping[str, Mapping[str, str]] = {
    "h800": {
        "nic.bandwidth": "200 Gb/s",
        "gpu.scale_up.bandwidth": "100 GB/s",
        "gpu.hbm.bandwidth": "1.6 TB/s",
    },
    "h200": {"gpu.scale_up.bandwidth": "225 GB/s", "gpu.hbm.bandwidth": "2.4 TB/s"},
    "h100": {
        "nic.bandwidth": "200 Gb/s",
        "gpu.scale_up.bandwidth": "225 GB/s",
        "gpu.hbm.bandwidth": "1.6 TB/s",
    },
}
"""Half of each rate of a part."""


def fixed_times(kernel: Mapping[str, Any]) -> dict[str, str]:
    """Override that doubles the fixed times, and the time of every copy, of the kernel of a scenario."""
    named = load_kernel(kernel.get("generation") or kernel["kind"])
    doubled = {}
    for row in named.parameters:
        if row.path.startswith(("latency.", "chunk_time.")):
            doubled[f"workload.kernel.override.{row.path}"] = f"{2e6 * row.value} us"
        if row.path.startswith(("copy_rate.", "copy_limit.", "take_in_rate.")):
            doubled[f"workload.kernel.override.{row.path}"] = f"{row.value / 2e9} GB/s"
    return doubled


def changes(figures: RunFigures) -> list[dict[str, Any]]:
    """Settings of each change: a rate of the part halved, and all that a kernel or a launch takes doubled."""
    base = (
        settings.read(figures.scenario).tree if isinstance(figures.scenario, str) else dict(figures.scenario)
    )
    kernel = base["workload"].get("kernel")
    return [
        {"cluster.override.gpu.sustained_clock_fraction": "0.4"},
        fixed_times(kernel) if kernel else LIBRARY,
        *({f"cluster.override.{key}": value} for key, value in SLOWER[base["cluster"]["hardware"]].items()),
    ]


def doubled(library: Any) -> Any:
    """A library of collectives, or a part of one, whose launches and steps take twice as long."""
    return replace(
        library,
        **{
            field.name: 2 * value if field.name.endswith("_s") else doubled(value)
            for field in fields(library)
            if is_dataclass(value := getattr(library, field.name)) or field.name.endswith("_s")
        },
    )


def slower_kernel(kind: str) -> Kernel:
    """A kernel with `fixed_times`."""
    override = fixed_times({"kind": kind}).items()
    return load_kernel(
        kind, {key.removeprefix("workload.kernel.override."): value for key, value in override}
    )


@pytest.mark.parametrize("name", NAMES)
def test_every_counted_row_moves_beyond_its_tolerance_under_some_change(
    name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    figures = load(name)
    assert isinstance(figures, RunFigures)
    own = by_id(name)
    still = {
        row["id"] for row in own.values() if row["bar"] and row["evidence"] in (figures.evidence, "implied")
    }
    for change in changes(figures):
        with monkeypatch.context() as patched:
            if change == LIBRARY:
                patched.setattr(collective, "load_library", lambda: doubled(load_library()))
                patched.setattr(collective, "load_kernel", slower_kernel)
            found = list(rows(changed(only(figures, still), change), lambda _: None))
        for row in found:
            before = own[row.id]
            moved = abs(row.simulated / before["simulated"] - 1)
            if moved > (before["tolerance_fraction"] or figures.bar.worst or LOOSEST):
                still.discard(row.id)
        if not still:
            break
    assert not still, sorted(still)


def only(figures: RunFigures, rows_of: set[str]) -> RunFigures:
    """The runs that some rows are of, and no others."""
    pairs = [pair for pair in (*figures.ratios, *figures.differences) if pair.name in rows_of]
    names = {end for pair in pairs for end in (pair.of, getattr(pair, "over", None) or pair.less)}
    runs = [
        run
        for run in figures.runs
        if run.name in names or any(f"{row}.".startswith(f"{run.name}.") for row in rows_of)
    ]
    kept = {
        kind: [pair for pair in getattr(figures, kind) if pair in pairs] for kind in ("ratios", "differences")
    }
    return figures.model_copy(update={"runs": runs, **kept})


def changed(figures: RunFigures, change: Mapping[str, str]) -> RunFigures:
    """Every run with a change laid over it."""
    runs = [run.model_copy(update={"set": nested(run.set, change)}) for run in figures.runs]
    return figures.model_copy(update={"runs": runs})


def nested(run: Mapping[str, Any], change: Mapping[str, str]) -> dict[str, Any]:
    """Settings of a run with a change laid over them; dots inside an override stay one key."""
    found = dict(run)
    for key, value in change.items():
        for prefix in ("cluster.override", "workload.kernel.override"):
            if key.startswith(prefix):
                found[prefix] = {**found.get(prefix, {}), key.removeprefix(f"{prefix}."): value}
    return found
