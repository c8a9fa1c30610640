"""Run a scenario: routing, flows, simulated time, metrics, and the result document."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import asdict
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

import sim
from sim.cluster import export_rules
from sim.cluster.figures import OVERRIDE
from sim.cluster.kernels import Kernel
from sim.cluster.topology import LeafSpine
from sim.documents import Document
from sim.engine import executor
from sim.engine.records import Trace, TransferRecord
from sim.errors import InputError, nearest
from sim.schedule import flow_list
from sim.schedule.collectives import Exchange
from sim.study import metrics as measure
from sim.study import scenario as scenarios
from sim.study.descriptions import AllToAll, FlowList, Inference, Scenario, Serving, Training
from sim.study.routing import record_of, routings
from sim.trees import flatten

Result = dict[str, Any]
Progress = Callable[[str], None]
Keep = Callable[[Callable[[], Result]], None]
"""Takes what makes the document of all that has ended so far, to write it or not."""

RESULT_SCHEMA = "moesim.result/1"
_MATRIX_LIMIT = 256  # ranks; a larger traffic matrix is left out of the result


def run_document(
    document: Document, progress: Progress = lambda _: None, keep: Keep = lambda _: None
) -> Result:
    """Run a scenario document, with its variants if it has any. Returns the result document.

    `keep` is given, after each variant but the last, what makes the document of those that have ended.
    """
    documents = scenarios.variants(document)
    if not document.get(("variants",)):
        return run_scenario(scenarios.resolve(document), progress)
    resolved = {name: scenarios.resolve(one) for name, one in documents.items()}
    results: dict[str, Result] = {}
    for name, one in resolved.items():
        results[name] = run_scenario(one, progress)
        if len(results) < len(resolved):
            keep(partial(_partial, document, results, len(resolved)))
    return _together(document, results)


def _partial(document: Document, results: dict[str, Result], total: int) -> Result:
    finished = {"finished": len(results), "of": total, "what": "variants"}
    return {"schema": RESULT_SCHEMA, "partial": finished} | _together(document, results)


def _together(document: Document, results: dict[str, Result]) -> Result:
    """The document of several variants, each compared with the first."""
    first, *others = results
    reference = flatten(results[first]["metrics"])
    comparison = {
        name: {
            key: value / reference[key]
            for key, value in flatten(results[name]["metrics"]).items()
            if reference.get(key)
        }
        for name in others
    }
    return {
        "schema": RESULT_SCHEMA,
        "name": str(document.get(("name",))),
        "title": str(document.get(("title",)) or document.get(("name",))),
        "variants": results,
        "comparison": {"reference": first, **comparison},
    }


def run_scenario(scenario: Scenario, progress: Progress = lambda _: None) -> Result:
    """Run one resolved scenario."""
    result: Result = {
        "schema": RESULT_SCHEMA,
        "name": scenario.name,
        "title": scenario.title,
        "scenario": scenario.document,
        "provenance": provenance(scenario),
    }
    result |= _RUNNERS[type(scenario.workload)](scenario, progress)
    result["expect"] = expectations(scenario, result["metrics"])
    return result


def _run_all_to_all(scenario: Scenario, progress: Progress) -> Result:
    work = scenario.workload
    assert isinstance(work, AllToAll)
    cluster = scenario.cluster()
    progress(f"{scenario.name}: routing tokens")
    routed = routings(scenario)
    plain = work.bytes_per_rank is not None
    hidden = scenario.model.hidden if scenario.model else 0
    found: dict[str, Any] = {}
    timeline: list[dict[str, Any]] = []
    traffic: dict[str, Any] = {}
    whole = Trace(saturated_s=np.zeros(len(cluster.names)))
    for name, direction in (
        [("exchange", "dispatch")] if plain else [("dispatch", "dispatch"), ("combine", "combine")]
    ):
        record = record_of(scenario, direction)
        exchanges = [
            Exchange(
                cluster=cluster,
                kernel=work.kernel,
                direction=direction,
                gpus=group * scenario.ep + np.arange(scenario.ep),
                routing=routing,
                record_bytes=record,
                comm_sms=work.comm_sms,
                **work.options,
            )
            for group, routing in enumerate(routed)
        ]
        dtype = None if plain else (work.dispatch_dtype if direction == "dispatch" else work.combine_dtype)
        if scenario.fidelity == "closed_form":
            found[name] = measure.of_closed_form(exchanges, dtype, hidden)
            continue
        progress(f"{scenario.name}: {name}")
        trace = executor.run_together(cluster, name, exchanges, start_s=whole.end_s)
        found[name] = measure.of_exchange(trace, exchanges, dtype, hidden)
        timeline += [_bars(one) for one in trace.transfers]
        if scenario.ep <= _MATRIX_LIMIT:
            matrix = routed[0].tokens_to_rank * record
            traffic[name] = (matrix if direction == "dispatch" else matrix.T).round().astype(int).tolist()
        whole.transfers += trace.transfers
        whole.stretches += trace.stretches
        whole.saturated_s += trace.saturated_s
        whole.end_s = trace.end_s
    if not whole.transfers:
        return {"metrics": found, "links": {}, "timeline": {}}
    return {
        "metrics": found,
        "links": measure.links(whole, cluster),
        "timeline": {"kernels": timeline, "utilisation": measure.utilisation(whole, cluster)},
        "traffic": traffic,
    }


def _bars(record: TransferRecord) -> dict[str, Any]:
    """A kernel on the timeline: when it started, and when each rank ended."""
    return {
        "name": record.name,
        "group": record.group,
        "start_s": record.start_s,
        "fixed_s": record.fixed_s,
        "first_gpu": int(record.gpus[0]),
        "rank_ends_s": record.rank_ends_s.tolist(),
    }


def _run_flows(scenario: Scenario, progress: Progress) -> Result:
    work, cluster = scenario.workload, scenario.cluster()
    assert isinstance(work, FlowList)
    fabric = scenario.fabric if isinstance(scenario.fabric, LeafSpine) else None
    table = work.table
    progress(f"{scenario.name}: {len(table.src)} flows")
    flows = flow_list.plan(table, cluster, fabric)
    trace = executor.run_flows(cluster, flows)
    finish = trace.transfers[0].finish_s
    released = np.where(table.after < 0, table.start_s, (finish + flows.latency_s)[table.after])
    rows = np.stack([table.flow_id.astype(float), released * 1e6, finish * 1e6], axis=1)
    return {
        "metrics": measure.of_flows(trace, cluster),
        "links": measure.links(trace, cluster),
        "timeline": {"utilisation": measure.utilisation(trace, cluster)},
        "flow_completion": rows.tolist(),
    }


def _run_training(scenario: Scenario, progress: Progress) -> Result:
    from sim.study.training import run_training

    return run_training(scenario, progress)


def _run_inference(scenario: Scenario, progress: Progress) -> Result:
    from sim.study.inference import run_inference

    return run_inference(scenario, progress)


def _run_serving(scenario: Scenario, progress: Progress) -> Result:
    from sim.study.serving import run_serving

    return run_serving(scenario, progress)


_RUNNERS: dict[type, Callable[[Scenario, Progress], Result]] = {
    AllToAll: _run_all_to_all,
    FlowList: _run_flows,
    Training: _run_training,
    Inference: _run_inference,
    Serving: _run_serving,
}


_LINKS = (
    "gpu.sms",
    "gpu.hbm.bandwidth",
    "gpu.scale_up.bandwidth",
    "gpu.scale_up.domain",
    "gpu.pcie",
    "nic",
    "fabric",
)
_COMPUTE = (
    "gpu.tensor_clock",
    "gpu.sustained",
    "gpu.dense_flops.bf16",
    "gpu.dense_flops.fp8",
    "gpu.hbm",
    "gpu.power",
    "cost",
)
_READ: dict[type, tuple[str, ...]] = {
    AllToAll: _LINKS,
    FlowList: _LINKS,
    Training: (*_LINKS, *_COMPUTE),
    Inference: (*_LINKS, *_COMPUTE),
    Serving: (*_LINKS, *_COMPUTE),
}
"""Figures of the profile that a workload reads, by the beginning of their keys."""


def _kernels(workload: object) -> list[Kernel]:
    """The kernel generations that a workload uses."""
    if isinstance(workload, Serving):
        pools = (workload.prefill.workload, workload.decode.workload)
        return [one.kernel for one in pools if isinstance(one, Inference)]
    return [workload.kernel] if isinstance(workload, AllToAll | Training | Inference) else []


def provenance(scenario: Scenario) -> dict[str, Any]:
    """Version, seed, hardware with its export rules, and the assumed, derived and overridden figures that the run leaned on."""
    read = _READ.get(type(scenario.workload), ())
    leaned = [f for f in scenario.hardware.figures if f.path.startswith(read)] if scenario.hardware else []
    for kernel in _kernels(scenario.workload):
        leaned += list(kernel.figures)
    return {
        "version": sim.__version__,
        "seed": scenario.seed,
        **({"settings": list(scenario.settings)} if scenario.settings else {}),
        **_hardware(scenario),
        "leaned_on": [
            {"key": f.path, "value": f.shown, "grade": f.grade, "source": f.citation, "detail": f.detail}
            for f in leaned
            if f.grade in ("assumed", "derived", "override")
        ],
    }


def _hardware(scenario: Scenario) -> dict[str, Any]:
    """Which part it is, what was overridden, and what export rules say of it as it ran; nothing of a bare fabric."""
    part = scenario.hardware
    if part is None:
        return {}
    return {
        "hardware": {
            "name": part.name,
            "title": part.title,
            "overrides": {f.path: f.shown for f in part.figures if f.grade == OVERRIDE},
        },
        "export_rules": {
            "note": export_rules.NOTE,
            "verdicts": [_verdict(one) for one in export_rules.verdicts(part)],
        },
    }


def _verdict(one: export_rules.Verdict) -> dict[str, Any]:
    numbers = [{"name": name, "value": value, "unit": unit} for name, value, unit in one.numbers]
    return {**asdict(one), "numbers": numbers}


def expectations(scenario: Scenario, metrics: Mapping[str, Any]) -> list[dict[str, Any]]:
    """Each expected value beside ours; what the run has no metric for, `check_expected` tells."""
    known, rows = flatten(metrics), []
    for one in scenario.expectations:
        got = known.get(one.metric)
        if got is None:
            continue
        error = (
            (got - one.value) / one.value if one.value else float(got != 0)
        )  # of nothing: met or missed whole
        rows.append(
            {
                "metric": one.metric,
                "published": one.value,
                "simulated": got,
                "error_fraction": error,
                "tolerance_fraction": one.tolerance_fraction,
                "source": one.source,
                "ok": abs(error) <= one.tolerance_fraction,
            }
        )
    return rows


def check_expected(document: Document, result: Result) -> None:
    """Raise `InputError` for expected metrics that the runs of a document do not have; asked once results are safe."""
    faults = []
    for name, one in scenarios.variants(document).items():
        known = flatten(result.get("variants", {name: result})[name]["metrics"])
        for metric in one.get(("expect",)) or ():
            if metric not in known:
                wanted, near = "a metric of this run", nearest(metric, known)
                faults.append(one.fault(("expect", metric), f"'{metric}'", wanted, near, key=True))
    if faults:
        raise InputError(list(dict.fromkeys(faults)))


def missed(result: Result) -> list[str]:
    """The expectations that a result (or any of its variants) misses, one line each."""
    lines = []
    for name, one in {"": result, **result.get("variants", {})}.items():
        for row in one.get("expect", []):
            if not row["ok"]:
                where = f"{name}: " if name else ""
                lines.append(
                    f"{where}{row['metric']}: simulated {row['simulated']:.6g}, published {row['published']:.6g}, "
                    f"error {row['error_fraction']:+.1%}, tolerance {row['tolerance_fraction']:.0%}"
                )
    return lines


def run_file(spec: str | Path, settings: tuple[str, ...] = (), progress: Progress = lambda _: None) -> Result:
    """Read and run a scenario file or shipped scenario."""
    return run_document(scenarios.read(spec, settings), progress)
