"""The designs of a ladder: each is resolved before any runs, and equal ones run once, whatever they are called."""

from __future__ import annotations

import json
import math
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from sim.documents import Document, Path_
from sim.errors import InfeasibleError, InputError, Problem, nearest
from sim.ladders.spec import Ladder, parts
from sim.runs.forecast import forecast
from sim.scenario import resolve as scenarios
from sim.scenario.descriptions import Scenario
from sim.trees import flatten

_SILENCE_S = 2.0  # between two reports of progress
_ROUNDING = 1e-12  # a gap below it is none


@dataclass(frozen=True, slots=True)
class Outcome:
    """The outcome of a run: its metrics, or the reason why no machine could do it."""

    metrics: dict[str, Any] | None
    reason: str | None

    def value(self, metric: str, document: Document, at: Path_) -> float | None:
        """Return the metric, its parts added; None of what did not run. Raises `InputError` at `at` for an unknown one."""
        if self.metrics is None:
            return None
        known = flatten(self.metrics)
        for name in parts(metric):
            if name not in known:
                wanted = f"a metric of this run, such as {', '.join(list(known)[:4])}"
                raise InputError(document.problem(at, f"'{name}'", wanted, nearest(name, known)))
        return sum(known[name] for name in parts(metric))


class Designs:
    """Scenarios by what they say; each runs when it is first asked for."""

    def __init__(self, ladder: Ladder, progress: Callable[[str], None]) -> None:
        self.ladder, self.progress = ladder, progress
        self.problems: list[Problem] = []
        self.num_runs, self._reported_s = 0, 0.0
        self._scenarios: dict[str, Scenario] = {}
        self._words: dict[str, str] = {}
        self._outcomes: dict[str, Outcome] = {}

    def add(self, document: Document, words: str) -> str:
        """Resolve a design; returns the key of its run. What is wrong with it joins `problems`."""
        try:
            scenario = scenarios.resolve(document)
        except InputError as error:
            self.problems += error.problems
            return ""
        except InfeasibleError as error:
            key = f"infeasible: {json.dumps(document.tree, sort_keys=True, default=str)}"
            self._outcomes[key] = Outcome(None, str(error))
            return key
        content = {
            key: value
            for key, value in scenario.document.items()
            if key not in ("name", "title", "question", "expect")
        }
        key = json.dumps([content, str(document.folder)], sort_keys=True, default=str)
        if key not in self._scenarios:
            self._scenarios[key], self._words[key] = scenario, words
        return key

    def tried(self, document: Document, words: str) -> str | None:
        """Resolve a design of a search; None where there can be no such design, which is no problem of the ladder."""
        known = len(self.problems)
        key = self.add(document, words)
        if len(self.problems) == known:
            return key
        del self.problems[known:]
        return None

    def scenario(self, key: str) -> Scenario | None:
        """Return the resolved scenario of a key; None where no machine could do it."""
        return self._scenarios.get(key)

    def count(self, words: str) -> None:
        """Count a run that is about to begin; report it, where nothing was for a while."""
        self.num_runs += 1
        if time.monotonic() - self._reported_s >= _SILENCE_S:
            self._reported_s = time.monotonic()
            self.progress(f"{self.ladder.spec.name}: run {self.num_runs}, {words}")

    def run(self, key: str) -> Outcome:
        """Run a design, at most once, and return its outcome."""
        outcome = self._outcomes.get(key)
        if outcome is None:
            self.count(self._words[key])
            try:
                outcome = Outcome(forecast(self._scenarios[key]).run(), None)
            except InfeasibleError as error:
                outcome = Outcome(None, str(error))
            self._outcomes[key] = outcome
        return outcome


def cost_of(value: float, more_is_better: bool) -> float:
    """Return what is the less the better: the value itself, or its reciprocal where more of it is better."""
    if not more_is_better:
        return value
    return 1 / value if value else math.inf


def gap(reference: float | None, other: float | None, more_is_better: bool) -> float | None:
    """How much more the reference takes than another machine [fraction]; None where one did not run, or takes nothing."""
    if reference is None or other is None:
        return None
    if reference == other:
        return 0.0
    ours, theirs = cost_of(reference, more_is_better), cost_of(other, more_is_better)
    if not theirs or math.inf in (ours, theirs):
        return None
    more = ours / theirs - 1
    return 0.0 if abs(more) < _ROUNDING else more
