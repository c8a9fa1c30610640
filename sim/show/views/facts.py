"""Facts of a scenario in a few labelled words, as the head of a report has them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from sim.show.views.record import mapping

Facts = tuple[tuple[str, str], ...]


def facts_of(scenario: Mapping[str, Any], sizes: Sequence[str], more: Sequence[tuple[str, Any]]) -> Facts:
    """Label and words of each choice of a resolved scenario that a reader asks for first.

    `sizes` are the parallel dimensions that mean something for its kind of workload, `more` what only that kind
    has; empty values are left out.
    """
    work, cluster = mapping(scenario.get("workload")), mapping(scenario.get("cluster"))
    layout, gate = mapping(scenario.get("layout")), mapping(work.get("gate"))
    model = scenario.get("model")
    placement = mapping(work.get("placement"))
    redundant = placement.get("redundant_experts")
    facts = [
        *_machines(cluster),
        ("GPUs in use", cluster.get("gpus") if cluster.get("use_nodes") else ""),
        ("fabric", _words(mapping(cluster.get("fabric")).get("kind"))),
        ("faults", len(cluster.get("faults") or ())),
        ("model", model.get("name", "inline") if isinstance(model, Mapping) else model),
        *_sizes(layout, sizes),
        ("kernel", _words(mapping(work.get("kernel")).get("kind"))),
        ("kernel generation", mapping(work.get("kernel")).get("generation")),
        ("gate", " ".join(_words(value) for key, value in gate.items() if key in ("kind", "exponent"))),
        ("groups a token", gate.get("top_groups")),
        ("tokens a rank", count(work.get("tokens_per_rank"))),
        ("schedule", _schedule(work)),
        ("microbatches", work.get("microbatches")),
        ("tokens a sequence", count(work.get("sequence_tokens"))),
        ("GEMMs", formats(work.get("precision"))),
        ("bytes a rank", work.get("bytes_per_rank")),
        ("placement", f"{placement.get('kind')}, {redundant} redundant experts" if redundant else ""),
        ("dispatch", work.get("dispatch_dtype") if gate else ""),
        ("combine", work.get("combine_dtype") if gate else ""),
        *more,
    ]
    return tuple((label, str(value)) for label, value in facts if value)


def _machines(cluster: Mapping[str, Any]) -> Sequence[tuple[str, Any]]:
    """Label and words of the machines: those of each pool, of one kind, or the hosts of a bare fabric."""
    pools = mapping(cluster.get("pools"))
    if pools:
        return [
            (f"pool {name}", f"{pool.get('nodes')} nodes of {_hardware(pool)}")
            for name, pool in pools.items()
        ]
    if not cluster.get("hardware"):
        return [("hardware", "bare fabric"), ("hosts", mapping(cluster.get("fabric")).get("hosts") or 1)]
    return [("hardware", _hardware(cluster)), ("nodes", cluster.get("nodes") or 1)]


def _hardware(machines: Mapping[str, Any]) -> str:
    """Name the hardware: a profile, or a chip in a node."""
    named = machines.get("hardware")
    return f"{named.get('chip')} in {named.get('node')}" if isinstance(named, Mapping) else str(named)


def formats(precision: Any) -> str:
    """Say formats in words; weights that are held in fewer bits than they are multiplied in are weight-only."""
    if not isinstance(precision, Mapping):
        return str(precision or "")
    gemm, weights = precision.get("gemm", "bf16"), precision.get("weights")
    words = [str(gemm)]
    if isinstance(weights, Mapping):
        held = [f"{part} {kept}" for part, kept in weights.items() if kept != gemm]
    else:
        held = [str(weights)] if weights and weights != gemm else []
    if held:
        words.append(f"weights held in: {', '.join(held)}{' (weight-only)' if gemm == 'bf16' else ''}")
    if precision.get("attention", "bf16") != "bf16":
        words.append(f"attention {precision['attention']}")
    return "; ".join(words)


def _words(value: Any) -> str:
    return "" if value is None else str(value).replace("_", " ")


def count(value: Any) -> str:
    """A whole number with its thousands apart; "" for none."""
    return f"{value:,}" if isinstance(value, int) and value else ""


def _sizes(layout: Mapping[str, Any], names: Sequence[str]) -> list[tuple[str, Any]]:
    """Sizes of the layout; of EP always, of the others where they split anything."""
    return [
        (name.upper(), layout[name])
        for name in names
        if name in layout and (name == "ep" or layout[name] != 1)
    ]


def _schedule(work: Mapping[str, Any]) -> str:
    schedule = str(work.get("schedule") or "")
    return f"{schedule} without overlap" if schedule and not work.get("overlap", True) else schedule
