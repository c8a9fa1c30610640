"""Answers to questions about results, printed at a terminal: what a time is made of, what differs, what is enough."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from sim.show.tables import answers as answer_grids
from sim.show.tables.console import print_all
from sim.show.views.answers import difference_view, explanation_view, sizes_view, spans_view
from sim.show.words import answers

if TYPE_CHECKING:
    from rich.console import Console

Document = Mapping[str, Any]


def print_explanation(document: Document, console: Console) -> None:
    """Print what a time is made of, and what would give a measured value."""
    view = explanation_view(document)
    print_all(view.title, answer_grids.explanation_grids(view), answers.explanation(view), console)


def print_difference(document: Document, console: Console) -> None:
    """Print the settings and metrics in which two results differ."""
    view = difference_view(document)
    print_all("", answer_grids.difference_grids(view), answers.difference(view), console)


def print_spans(document: Document, console: Console) -> None:
    """Print what assumed parameters make of the headline of each run."""
    for view in spans_view(document):
        grids = [grid for grid in [answer_grids.span_grid(view)] if grid.rows]
        print_all("", grids, answers.span(view), console)


def print_sizes(document: Document, console: Console) -> None:
    """Print the fewest GPUs of each machine, and how."""
    view = sizes_view(document)
    print_all("", [answer_grids.size_grid(view)], answers.sizes(view), console)
