"""Published times of compute beside our own, row by row: kernels, and the phases of one layer.

`gemm_rows` reads `scenarios/published/gemm.yaml`; a row says whether the curves were fitted on it (`calibration`) or
predict it (`validation`). `layer_phase_rows` reads `scenarios/published/layer_pair.yaml`: no time in it entered a
fit, but the form of the model was settled with it in view (see the file).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from sim import documents
from sim.cluster.hardware import load_hardware
from sim.cluster.kernels import load_kernel
from sim.cost.attention import attention_forward_s, mla_decode_s
from sim.cost.compute import (
    Layout,
    Processor,
    grouped_gemm_s,
    processor,
)
from sim.cost.curves import Curves
from sim.cost.layers import layer_times
from sim.cost.operations import Batch, PhaseTime
from sim.units import parse
from sim.workload.model import Model, load_model
from sim.workload.traffic import record_bytes

MLA_HEADS, MLA_QK_DIM, MLA_V_DIM = 128, 192, 128
USES = ("calibration", "validation")


def gemm_rows(curves: Curves | None = None) -> list[dict[str, Any]]:
    """Every published row of the group `gemm` with our time: id, quantity, unit, published, simulated, use."""
    tree = documents.load(documents.find("gemm", "scenarios/published", "published table")).tree
    hardware = load_hardware(str(tree["hardware"]))
    return [
        row
        for table in tree["tables"]
        for whole in (processor(hardware, generation=table.get("generation", "march_2025"), curves=curves),)
        for use in USES
        for values in table[use]
        for row in (_row(whole, table, dict(zip(table["columns"], values, strict=True)), use),)
    ]


def _row(whole: Processor, table: Mapping[str, Any], row: Mapping[str, float], use: str) -> dict[str, Any]:
    shape = "-".join(f"{key}{row[key]:g}" for key in table["columns"] if key not in ("us", "tflops", "gbps"))
    return {
        "id": f"{table['name']}-{shape}",
        "table": table["name"],
        "quantity": "time_s",
        "unit": "s",
        "published": _published_s(table, row),
        "simulated": _simulated_s(whole, table, row),
        "use": use,
        "source": table["source"],
    }


def _published_s(table: Mapping[str, Any], row: Mapping[str, float]) -> float:
    if "us" in row:
        return row["us"] * 1e-6
    experts, m, n, k = row.get("experts", 1), row["m"], row["n"], row["k"]
    if "tflops" in row:
        return 2.0 * experts * m * n * k / (row["tflops"] * 1e12)
    return experts * (m * k + n * k + 2.0 * m * n) / (row["gbps"] * 1e9)


def _simulated_s(whole: Processor, table: Mapping[str, Any], row: Mapping[str, float]) -> float:
    kernel: str = table["kernel"]
    if kernel == "mla_decode":
        return mla_decode_s(whole, row["requests"], row["context"], MLA_HEADS, queries=int(row["queries"]))
    if kernel == "mla_prefill":
        core_s = attention_forward_s(whole, 1, int(row["sequence"]), MLA_HEADS, MLA_QK_DIM, MLA_V_DIM)
        return core_s + parse(table["timer"], "s")
    expected = row.get("expected_rows", row.get("m"))
    if "spread" in table:
        rows = drawn_rows(
            int(row["experts"]), row["expected_rows"], row["rows"], parse(table["spread"], "fraction")
        )
    else:
        rows = [int(row["m"])] * int(row.get("experts", 1))
    layout: Layout = "contiguous" if kernel == "contiguous" else "masked" if kernel == "masked" else "dense"
    planned = expected if layout == "masked" else None
    n, k = int(row["n"]), int(row["k"])
    return grouped_gemm_s(whole, rows, n, k, "fp8", layout=layout, expected_rows=planned)


def layer_phase_rows(curves: Curves | None = None) -> list[dict[str, Any]]:
    """The six compute phases of a layer in the published trace, and their sum, with our time."""
    document = documents.load(documents.find("layer_pair", "scenarios/published", "published table"))
    published = {name: parse(value, "s") for name, value in document.tree["phases"]["values"].items()}
    simulated = {name: phase.total_s for name, phase in trace_layer(document.tree, curves).items()}
    pairs = {name: (published[name], simulated[name]) for name in published}
    pairs["compute"] = (sum(published.values()), sum(simulated.values()))
    return [
        {
            "id": f"layer-{name}",
            "quantity": "time_s",
            "unit": "s",
            "published": one,
            "simulated": other,
            "use": "validation",
            "source": document.tree["phases"]["source"],
        }
        for name, (one, other) in pairs.items()
    ]


def trace_layer(tree: Mapping[str, Any], curves: Curves | None = None) -> dict[str, PhaseTime]:
    """Phases of one layer under the workload of `layer_pair.yaml`, with communication on the other SMs.

    Notes
    -----
    Two dispatches and two combines move their records through HBM while the layer computes: the share of the HBM rate that
    is left is 1 - touches x records x tokens / (compute time x HBM rate), found by inserting the time once.
    """
    work, hardware, model = (
        tree["workload"],
        load_hardware(str(tree["hardware"])),
        load_model(str(tree["model"])),
    )
    experts = int(work["experts_per_rank"])
    batches = {
        name: Batch(
            sequences=int(work["sequences"]),
            sequence_tokens=int(work["sequence_tokens"]),
            expert_rows=(int(work[name]["expert_rows"]) // experts,) * experts,
            received_tokens=float(work[name]["received_tokens"]),
        )
        for name in ("forward", "backward")
    }
    received = sum(batch.received_tokens for batch in batches.values())
    touched = received * hbm_bytes_per_token(model, str(work["comm_kernel"]))
    share, phases = 1.0, dict[str, PhaseTime]()
    for _ in range(2):
        p = processor(
            hardware,
            sms=int(work["compute_sms"]),
            sustained=True,
            hbm_share_fraction=share,
            generation=str(tree["generation"]),
            curves=curves,
        )
        forward, backward = (layer_times(p, model, batches[name]) for name in ("forward", "backward"))
        phases = {name: (forward if name.endswith("(F)") else backward)[name] for name in forward}
        compute_s = sum(phase.total_s for phase in phases.values())
        share = 1.0 - touched / (compute_s * hardware.gpu.hbm.bandwidth_bytes_per_s)
    return phases


def hbm_bytes_per_token(model: Model, kernel: str) -> float:
    """HBM bytes of a dispatch in FP8 and a combine in BF16 for each token that a rank receives [bytes]."""
    touches = load_kernel(kernel).hbm_touches
    return sum(
        touches.of(direction) * record_bytes(kernel, direction, dtype, model.hidden, model.top_k)
        for direction, dtype in (("dispatch", "fp8"), ("combine", "bf16"))
    )


def drawn_rows(experts: int, expected: float, total: float, spread: float) -> Sequence[int]:
    """Rows of each expert as evenly drawn within `spread` of the expected number, scaled to the sum that was drawn."""
    drawn = [int(expected * (1.0 - spread + 2.0 * spread * (i + 0.5) / experts)) for i in range(experts)]
    scale = total / sum(drawn) if sum(drawn) else 0.0
    return [round(rows * scale) for rows in drawn]
