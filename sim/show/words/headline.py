"""The sentence above a figure of one run: led by the variant's name where there are several."""

from __future__ import annotations

from sim.show.views.run import RunView


def headline(run: RunView, text: str) -> str:
    """`h800: a step takes ...`, or `A step takes ...` of a run without variants."""
    return f"{run.name}: {text}" if run.variant else f"{text[0].upper()}{text[1:]}"
