"""Write a measured compute profile: a calibration as the YAML that `sim.cost.measured` reads.

    profile_text(calibrate("train.json.gz"), name="h800-train", source=TraceSource(title="...", where="..."))

Why this way: the text is written here rather than dumped by a library, so that one phase reads as one paragraph and the
same calibration gives the same bytes.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from typing import Any

from sim.calibration.calibrate import Calibration
from sim.calibration.layer_pairs import PHASES
from sim.cost.measured import PROFILE_SCHEMA, MeasuredCollective, MeasuredPhase, TraceSource
from sim.errors import InputError, Mark, Problem


def profile_text(
    calibration: Calibration, name: str, source: TraceSource | None = None, title: str | None = None
) -> str:
    """Return the measured compute profile as YAML, in the form that `sim.cost.measured` reads.

    InputError where the trace has no layer pairs: totals by class are no profile.
    """
    origin = calibration.origin
    if not calibration.phases:
        wanted = f"a trace of layer pairs ({', '.join(PHASES)}) to make a profile of"
        raise InputError(Problem(Mark(origin.file), "", calibration.why_not, wanted))
    where = source or TraceSource(title=f"PyTorch profiler trace {origin.file}", where=origin.file)
    tree: dict[str, Any] = {
        "schema": PROFILE_SCHEMA,
        "name": name,
        "title": title or f"One layer pair of a training step, measured on {origin.gpu or 'a GPU'}",
        "grade": "measured",
        "source": {
            key: value for key in ("title", "where", "date", "note") if (value := getattr(where, key))
        },
        "trace": {
            "file": origin.file,
            "name": origin.name,
            "gpu": origin.gpu,
            "gpu_sms": origin.gpu_sms,
            "rank": origin.rank,
            "world_size": origin.world_size,
            "backend": origin.backend,
        },
        "context": {
            "layers": calibration.num_layers,
            "tokens_per_rank": calibration.tokens_per_rank,
            "compute_sms": calibration.compute_sms,
            "comm_sms": calibration.comm_sms,
        },
        "cut_by": calibration.cut_by,
        "span": _ms(calibration.span_s),
        "phases": {name: _phase_tree(phase) for name, phase in calibration.phases.items()},
        "exchanges": {name: _exchange_tree(exchange) for name, exchange in calibration.exchanges.items()},
        "overlap": {
            "compute_busy": _ms(calibration.overlap.compute_busy_s),
            "comm_busy": _ms(calibration.overlap.comm_busy_s),
            "both": _ms(calibration.overlap.both_s),
            "exposed_comm": _ms(calibration.overlap.exposed_comm_s),
            "idle": _ms(calibration.overlap.idle_s),
        },
        "unnamed": [
            {"kernel": kernel.name, "count": kernel.num_kernels, "time": _ms(kernel.time_s)}
            for kernel in calibration.unnamed
        ],
    }
    return f"{_HEADER}{_yaml(tree)}"


_HEADER = """\
# Measured compute profile, written by `moesim calibrate`. Times are means over the layers of the trace, taken while the
# exchanges ran beside the compute. elapsed = sm_bound + memory_bound + idle; operations are sums of kernel times.
"""


def _phase_tree(phase: MeasuredPhase) -> dict[str, Any]:
    tree: dict[str, Any] = {
        "elapsed": _ms(phase.elapsed_s),
        "sm_bound": _ms(phase.sm_bound_s),
        "memory_bound": _ms(phase.memory_bound_s),
        "idle": _ms(phase.idle_s),
        "per_layer": [_ms(time_s) for time_s in phase.per_layer_s],
        "compute_sms": phase.compute_sms,
    }
    if phase.expert_rows:
        tree["expert_rows"] = list(phase.expert_rows)
    tree["operations"] = {
        label: _Inline({"kernels": round(operation.num_kernels, 4), "time": _ms(operation.time_s)})
        for label, operation in phase.operations.items()
    }
    return tree


def _exchange_tree(exchange: MeasuredCollective) -> dict[str, Any]:
    return {
        "kernel": exchange.kernel,
        "cached": exchange.cached,
        "data": _ms(exchange.data_s),
        "notify": _ms(exchange.notify_s),
        "preparation": _ms(exchange.preparation_s),
        "per_layer": [_ms(time_s) for time_s in exchange.per_layer_s],
        "comm_sms": exchange.comm_sms,
    }


_PLAIN = re.compile(r"[\d.e+-]+ ms|(?!true|false|null)[a-z][a-z_-]*")  # needs no quotes in YAML


class _Inline(dict[str, Any]):
    """A mapping written on one line."""


def _ms(time_s: float) -> str:
    return f"{max(time_s, 0.0) * 1e3:.7g} ms"


def _yaml(tree: Mapping[str, Any], indent: str = "") -> str:
    lines = []
    for key, value in tree.items():
        if isinstance(value, dict) and not isinstance(value, _Inline):
            lines.append(f"{indent}{key}:\n{_yaml(value, indent + '  ')}")
        else:
            lines.append(f"{indent}{key}: {_flow(value)}\n")
    return "".join(lines)


def _flow(value: Any) -> str:
    if isinstance(value, dict):
        return "{" + ", ".join(f"{key}: {_flow(inner)}" for key, inner in value.items()) + "}"
    if isinstance(value, list):
        return "[" + ", ".join(_flow(inner) for inner in value) + "]"
    plain = isinstance(value, str) and _PLAIN.fullmatch(value)
    return value if plain else json.dumps(value, ensure_ascii=False)
