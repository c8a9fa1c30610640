"""The progress of a sweep at a terminal: a bar with rate, time left and the best so far; plain lines where there is none."""

from __future__ import annotations

import time
from collections.abc import Mapping
from types import TracebackType
from typing import TYPE_CHECKING, Any

from sim.metrics import dimension_of
from sim.show.views.sweep import number
from sim.units import show

if TYPE_CHECKING:
    from rich.console import Console

_LINE_S = 10.0  # between two lines where the output is no terminal


def _span(seconds: float) -> str:
    """Write a time to the part of it that matters: `37 s`, `53 min`, `3.2 h`."""
    if seconds < 100:
        return f"{seconds:.0f} s"
    return f"{seconds / 60:.0f} min" if seconds < 6000 else f"{seconds / 3600:,.1f} h"


class SweepBar:
    """Shows how far a sweep is; a context manager, silent where `quiet`."""

    def __init__(self, console: Console, total: int, objective: str, *, quiet: bool) -> None:
        self.console, self.total, self.objective, self.quiet = console, total, objective, quiet
        self.begun = self.printed = time.monotonic()
        self.bar: Any = None

    def __enter__(self) -> SweepBar:
        if not self.quiet and self.console.is_terminal:
            from rich import progress

            self.bar = progress.Progress(
                progress.TextColumn("{task.description}", markup=False),
                progress.BarColumn(),
                progress.MofNCompleteColumn(),
                progress.TextColumn("{task.fields[rate]}"),
                progress.TimeRemainingColumn(),
                progress.TextColumn("{task.fields[best]}", markup=False),
                console=self.console,
                transient=True,
            )
            self.bar.start()
            self.task = self.bar.add_task("points", total=self.total, rate="", best="")
        return self

    def __exit__(self, *_: type[BaseException] | BaseException | TracebackType | None) -> None:
        if self.bar is not None:
            self.bar.stop()

    def show(self, settled: int, best: Mapping[str, Any] | None, what: str, where: str) -> None:
        """Show `settled` points of all, the metrics of the best so far, and `where` it is."""
        if self.quiet:
            return
        now = time.monotonic()
        rate = settled / max(now - self.begun, 1e-9)
        leader = f"best {self._value(best)} {where}" if best is not None else ""
        if self.bar is not None:
            self.bar.update(
                self.task,
                completed=settled,
                description=what or "points",
                rate=f"{60 * rate:,.0f}/min",
                best=leader,
            )
        elif now - self.printed > _LINE_S:
            self.printed = now
            ahead = (
                f", {60 * rate:,.0f} a minute, {_span((self.total - settled) / rate)} left" if settled else ""
            )
            line = f"  {now - self.begun:5.1f} s  {settled:,} of {self.total:,} points{ahead}"
            self.console.print(f"{line}{'; ' + leader if leader else ''}", highlight=False, markup=False)

    def _value(self, metrics: Mapping[str, Any]) -> str:
        value = number(metrics, self.objective)
        return "" if value is None else show(value, dimension_of(self.objective))
