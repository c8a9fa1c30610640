"""Validation: every published figure beside ours, with the error.

Each figure is met the way a user would meet it: a scenario document, resolved and run. A group passes when the mean of its
absolute errors and each single error stay within its bar; what calibrated a parameter counts too, and the mean over
predictions alone stands beside it. Figures outside the bar's range (`counted` false) are printed only.
"""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from sim import units
from sim.cluster.export_rules import verdicts
from sim.cluster.hardware import load_hardware
from sim.cost.tpot import TpotBound, tpot_bound
from sim.documents import Document, data_folder
from sim.errors import Fault, InputError, Mark, nearest
from sim.study import metrics as measure
from sim.study import published, scenario
from sim.study.published import Bar, Facts, PlacementExample, Published, Run, TimedFlows
from sim.study.run import Progress, Result, run_scenario
from sim.workload.model import Model, kv_bytes_per_token, load_model, parameters, training_flops_per_token
from sim.workload.placement import eplb

Row = dict[str, Any]

GROUPS = (
    "two_hop",
    "low_latency",
    "nccl",
    "packet_level",
    "tpot_bound",
    "prefill",
    "decode",
    "export_rules",
    "models",
    "eplb",
)
"""Every group, in the order in which they are told."""

_SEQUENCE_TOKENS = 4096  # of the published FLOPs per token


def validate(groups: Sequence[str] | None = None, progress: Progress = lambda _: None) -> dict[str, Any]:
    """Compare with what was published.

    Parameters: `groups`, names from `GROUPS` (all where None or empty). Returns `{groups: {NAME: {ok,
    mean_abs_error_fraction, worst_error_fraction, rows, ...}}}`; values and units of rows are SI. Raises `InputError`
    for an unknown group.
    """
    asked = list(dict.fromkeys(groups or GROUPS))
    faults = [
        Fault(Mark("--group"), "", f"'{name}'", f"one of: {', '.join(GROUPS)}", nearest(name, GROUPS))
        for name in asked
        if name not in GROUPS
    ]
    if faults:
        raise InputError(faults)
    return {"groups": {name: _group(name, progress) for name in asked}}


def _group(name: str, progress: Progress) -> dict[str, Any]:
    spec, document = published.load(name)
    rows: list[Row] = []
    rows += _runs(spec, document, progress)
    rows += [row for facts in spec.facts for row in _facts(facts, spec.bar)]
    rows += [_placement(example, spec.bar) for example in spec.placements]
    bars = [_verdict(rows, "main", spec.bar)]
    if spec.flow_bar:
        bars.append(_verdict(rows, "flows", spec.flow_bar))
    predicted = [
        abs(row["error_fraction"]) for row in rows if row["bar"] == "main" and row["use"] == "validation"
    ]
    return {
        "title": spec.title,
        "ok": all(bar["ok"] for bar in bars),
        "mean_abs_error_fraction": bars[0]["mean_abs_error_fraction"],
        "worst_error_fraction": bars[0]["worst_error_fraction"],
        "predicted_mean_abs_error_fraction": float(np.mean(predicted)) if predicted else None,
        "bars": bars,
        "sources": {key: one.model_dump(exclude_none=True) for key, one in spec.sources.items()},
        "rows": rows,
    }


def _verdict(rows: Iterable[Row], name: str, bar: Bar) -> dict[str, Any]:
    """Whether the rows of a bar hold it."""
    mine = [row for row in rows if row["bar"] == name]
    errors = [abs(row["error_fraction"]) for row in mine]
    mean, worst = (float(np.mean(errors)), max(errors)) if errors else (0.0, 0.0)
    return {
        "name": name,
        "ok": mean <= bar.mean and all(row["ok"] for row in mine),
        "mean_abs_error_fraction": mean,
        "worst_error_fraction": worst,
        "mean_bar_fraction": bar.mean,
        "worst_bar_fraction": bar.worst,
    }


def _row(
    id_: str,
    what: str,
    unit: str,
    said: float,
    ours: float,
    *,
    tolerance: float | None,
    use: str,
    bar: str | None,
    source: str,
) -> Row:
    """One figure beside ours; `bar` None is printed and not counted."""
    error = (ours - said) / said if said else float(ours != said)
    return {
        "id": id_,
        "quantity": what,
        "unit": unit,
        "published": said,
        "simulated": ours,
        "error_fraction": error,
        "tolerance_fraction": tolerance if bar else None,
        "use": use,
        "ok": bar is None or tolerance is None or abs(error) <= tolerance,
        "bar": bar,
        "source": source,
    }


# --- runs ----------------------------------------------------------------------------------------------------------


def _runs(spec: Published, document: Document, progress: Progress) -> Iterator[Row]:
    base = document.branch(("scenario",))
    mark = document.mark(("runs",), key=True)
    base.put(("name",), spec.group, mark)
    base.put(("variants",), {run.name: run.set for run in spec.runs}, mark)
    if not spec.runs:
        return
    variants = scenario.variants(base)
    with tempfile.TemporaryDirectory(prefix="moesim-") as folder:
        for run in spec.runs:
            progress(f"{spec.group}: {run.name}")
            one, timed = variants[run.name], None
            if run.flows:
                timed = published.read_flows(data_folder("scenarios") / "published" / run.flows)
                file = Path(folder) / f"{run.name}.csv"
                file.write_text(timed.csv_text, encoding="utf-8")
                one.put(("workload", "file"), str(file), mark)
            result = run_scenario(scenario.resolve(one))
            yield from _figures(spec, run, result)
            if timed is not None:
                yield _flow_row(run, result, timed)


def _figures(spec: Published, run: Run, result: Result) -> Iterator[Row]:
    """The published metrics of one run."""
    ours = measure.flatten(result["metrics"])
    for figure in run.rows:
        unit = units.dimension_of(figure.metric)
        part, _, what = figure.metric.partition(".")
        yield _row(
            f"{run.name}.{part}" if what else run.name,
            figure.metric,
            unit,
            units.parse(figure.value, unit),
            ours[figure.metric],
            tolerance=figure.tolerance if figure.tolerance is not None else spec.bar.worst,
            use=figure.use,
            bar="main" if figure.counted else None,
            source=run.source,
        )


def _flow_row(run: Run, result: Result, timed: TimedFlows) -> Row:
    """Mean over flows of |ours - theirs| / theirs; equal times would make it 0."""
    flow_id, released_us, done_us = np.array(result["flow_completion"]).T
    assert np.array_equal(flow_id, timed.flow_id)
    error = float(np.mean(np.abs((done_us - released_us) * 1e-6 - timed.time_s) / timed.time_s))
    return _row(
        f"{run.name}.flows",
        "mean over flows of the error of a flow's time",
        "fraction",
        0.0,
        error,
        tolerance=None,
        use="validation",
        bar="flows" if run.flows_counted else None,
        source=run.source,
    ) | {"error_fraction": error}


# --- what follows without running -----------------------------------------------------------------------------------


def _facts(facts: Facts, bar: Bar) -> Iterator[Row]:
    for subject, said in facts.values.items():
        dimension = facts.unit if facts.unit in units.DIMENSIONS else "count"
        yield _row(
            f"{subject}.{facts.quantity}",
            facts.quantity,
            facts.unit,
            said if isinstance(said, bool) else units.parse(said, dimension),
            _FACTS.get(facts.quantity, _rule(facts.quantity))(subject),
            tolerance=facts.tolerance if facts.tolerance is not None else bar.worst,
            use="validation",
            bar="main",
            source=facts.source,
        )


def _rule(rule: str) -> Callable[[str], bool]:
    """The verdict of an export rule on a shipped part; a rule that cannot decide has failed."""
    return lambda part: next(v.holds for v in verdicts(load_hardware(part)) if v.rule == rule) is True


def _of_model(count: Callable[[Model], float]) -> Callable[[str], float]:
    return lambda name: float(count(load_model(name)))


_LINKS = {"infiniband-50-gb-per-s": 50e9, "nvl72-900-gb-per-s": 900e9}


def _of_link(read: Callable[[TpotBound], float]) -> Callable[[str], float]:
    return lambda link: read(tpot_bound(_LINKS[link]))


_FACTS: dict[str, Callable[[str], float]] = {
    "parameters.total": _of_model(lambda m: parameters(m).total),
    "parameters.active": _of_model(lambda m: parameters(m).active),
    "parameters.attention": _of_model(lambda m: parameters(m).attention),
    "parameters.expert": _of_model(lambda m: parameters(m).expert),
    "kv_bytes_per_token": _of_model(kv_bytes_per_token),
    "training_flops_per_token.causal": _of_model(
        lambda m: training_flops_per_token(m, _SEQUENCE_TOKENS, True)
    ),
    "training_flops_per_token.non_causal": _of_model(
        lambda m: training_flops_per_token(m, _SEQUENCE_TOKENS, False)
    ),
    "training_flops_per_token.causal_with_mtp": _of_model(
        lambda m: training_flops_per_token(m, _SEQUENCE_TOKENS, True, include_mtp=True)
    ),
    "tpot_bound.exchange_s": _of_link(lambda bound: bound.exchange_s),
    "tpot_bound.layer_s": _of_link(lambda bound: bound.layer_s),
    "tpot_bound.tpot_s": _of_link(lambda bound: bound.tpot_s),
    "tpot_bound.tokens_per_s": _of_link(lambda bound: bound.tokens_per_s),
}


def _placement(example: PlacementExample, bar: Bar) -> Row:
    """How many replicas stand where the published answer has them."""
    said = np.array(example.physical_to_logical)
    ours = eplb(example.loads, len(said), example.num_groups, example.num_nodes, example.num_ranks)
    return _row(
        example.name,
        "replicas where the published placement has them",
        "count",
        float(len(said)),
        float(np.sum(ours.physical_to_logical == said)),
        tolerance=bar.worst,
        use="validation",
        bar="main",
        source=example.source,
    )
