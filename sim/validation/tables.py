"""Published tables next to what follows from a shipped file without running it: counts, verdicts, placements."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import replace

import numpy as np
from pydantic import Field

from sim.cluster.export_rules import verdicts
from sim.cluster.hardware import load_hardware
from sim.cost.tpot import TpotBound, tpot_bound
from sim.runs.kinds import Progress
from sim.scenario.values import Branch, Count
from sim.validation import failures
from sim.validation.published import Bar, Facts, Published, Row, fact_rows, row
from sim.workload.model import (
    Model,
    cache_bytes,
    kv_bytes_per_token,
    load_model,
    parameters,
    training_flops_per_token,
)
from sim.workload.placement import eplb

_SEQUENCE_TOKENS = 4096  # of the published FLOPs per token


class PlacementExample(Branch):
    """A published answer of the expert balancer."""

    name: str
    source: str
    loads: list[float]
    num_groups: Count
    num_nodes: Count
    num_ranks: Count
    physical_to_logical: list[int]


class TableFigures(Published):
    """A file of facts about shipped files (by their names), or of what the expert balancer should answer."""

    facts: list[Facts] = Field(default_factory=list)
    placements: list[PlacementExample] = Field(default_factory=list)


def rows(figures: TableFigures, progress: Progress) -> Iterator[Row]:
    """Yield every figure next to ours."""
    progress(figures.group)
    named: set[str] = set()
    for facts in figures.facts:
        known = _FACTS.get(facts.quantity)
        count = known or _rule(facts.quantity)
        ours = {subject: count(subject) for subject in facts.values}
        for subject, fact in zip(ours, fact_rows(facts, ours, figures.bar), strict=True):
            name = f"{subject}.{facts.quantity}"
            name = f"{name}.{facts.source}" if name in named else name
            named.add(name)
            yield replace(fact, id=name, machine=None if known else subject)
    for example in figures.placements:
        yield _placement(example, figures.bar)


def _rule(rule: str) -> Callable[[str], bool]:
    """Return the verdict of an export rule on a shipped part; a rule that cannot decide has failed."""
    return lambda part: next(v.holds for v in verdicts(load_hardware(part)) if v.rule == rule) is True


def _model_fact(count: Callable[[Model], float]) -> Callable[[str], float]:
    return lambda name: float(count(load_model(name)))


def _without_tables(parameters_: int, model: Model) -> int:
    """Parameters without the embedding and the output head, which some publishers leave out."""
    return parameters_ - (1 if model.tied_embeddings else 2) * model.vocab * model.hidden


_LINKS = {"infiniband-50-gb-per-s": 50e9, "nvl72-900-gb-per-s": 900e9}
"""Rates of one GPU in one direction that the published bound is stated for [bytes/s]."""


def _link_fact(read: Callable[[TpotBound], float]) -> Callable[[str], float]:
    return lambda link: read(tpot_bound(_LINKS[link]))


_FACTS: dict[str, Callable[[str], float]] = {
    "parameters.total": _model_fact(lambda m: parameters(m).total),
    "parameters.active": _model_fact(lambda m: parameters(m).active),
    "parameters.matmul": _model_fact(lambda m: parameters(m).matmul),
    "parameters.total_without_tables": _model_fact(lambda m: _without_tables(parameters(m).total, m)),
    "parameters.active_without_tables": _model_fact(lambda m: _without_tables(parameters(m).active, m)),
    "parameters.attention": _model_fact(lambda m: parameters(m).attention),
    "parameters.expert": _model_fact(lambda m: parameters(m).expert),
    "kv_bytes_per_token": _model_fact(kv_bytes_per_token),
    "cache_bytes.131072": _model_fact(lambda m: cache_bytes(m, 131072)),
    "training_flops_per_token.causal": _model_fact(
        lambda m: training_flops_per_token(m, _SEQUENCE_TOKENS, True)
    ),
    "training_flops_per_token.non_causal": _model_fact(
        lambda m: training_flops_per_token(m, _SEQUENCE_TOKENS, False)
    ),
    "training_flops_per_token.causal_with_mtp": _model_fact(
        lambda m: training_flops_per_token(m, _SEQUENCE_TOKENS, True, include_mtp=True)
    ),
    "tpot_bound.exchange_s": _link_fact(lambda bound: bound.exchange_s),
    "tpot_bound.layer_s": _link_fact(lambda bound: bound.layer_s),
    "tpot_bound.tpot_s": _link_fact(lambda bound: bound.tpot_s),
    "tpot_bound.tokens_per_s": _link_fact(lambda bound: bound.tokens_per_s),
    **failures.FACTS,
}


def _placement(example: PlacementExample, bar: Bar) -> Row:
    """Return the row that counts replicas which are where the published answer has them."""
    published = np.array(example.physical_to_logical)
    ours = eplb(example.loads, len(published), example.num_groups, example.num_nodes, example.num_ranks)
    return row(
        example.name,
        "replicas where the published placement has them",
        "count",
        float(len(published)),
        float(np.sum(ours.physical_to_logical == published)),
        use="validation",
        source=example.source,
        machine=None,
        tolerance=bar.worst,
    )
