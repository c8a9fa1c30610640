"""Tables for people at a terminal, printed with rich; every table reads in 100 columns."""

from __future__ import annotations

import textwrap
from collections.abc import Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from sim.show.grid import Grid
from sim.units import show

if TYPE_CHECKING:
    from pathlib import Path

    from rich.console import Console

    from sim.cluster.datasheet import Datasheet
    from sim.workload.model import Model, Parameters

Document = Mapping[str, Any]

_LONG = (
    "variant", "metric", "source", "quantity", "row", "verdict", "citation", "point", "goes with it", "reason", "one of them",
    "most of it", "what", "what would give it", "setting", "choice, added in this order", "choice",
)  # fmt: skip
"""Heads of columns that may wrap."""
_WORST = 3
"""Rows of a group that a terminal shows of a whole validation."""
_GRADE = {"assumed": "yellow", "override": "magenta", "derived": "cyan"}


def print_result(document: Document, console: Console) -> None:
    """Print times next to bounds, bandwidths, published values, and the findings of a run."""
    from sim.show.tables import run as grids
    from sim.show.views.run import views_of
    from sim.show.words import run as findings

    runs = views_of(document)
    sentences = (*findings.finding(runs), findings.expectations(runs))
    facts = runs.runs[0].facts if len(runs.runs) == 1 else ()
    print_all(runs.title, grids.grids(runs, wide=False), sentences, console, facts)


def print_sweep(document: Document, console: Console) -> None:
    """Print the best points of a sweep, what each choice costs, what cannot be, and the findings."""
    from sim.show.tables import sweep as sweep_grids
    from sim.show.views.sweep import sweep_view
    from sim.show.words import sweep as sweep_words

    view = sweep_view(document)
    tables = sweep_grids.grids(view, wide=False)
    print_all(view.title, tables, sweep_words.finding(view), console)


def print_ladder(document: Document, console: Console) -> None:
    """Print every rung, what does not fit, how much is enough, prices and rules, and the findings."""
    from sim.show.tables import ladder as ladder_grids
    from sim.show.views.ladder import ladder_view
    from sim.show.words import ladder as ladders

    view = ladder_view(document)
    title = view.ask or view.title
    print_all(title, ladder_grids.grids(view), ladders.finding(view), console)


def print_validation(document: Document, console: Console) -> None:
    """Print the worst rows of each group (every row of one asked for alone), then all groups in one table."""
    from sim.show.tables import validation as validation_tables
    from sim.show.views.validation import validation_view
    from sim.show.words import validation

    view = validation_view(document)
    groups = view.groups if len(view.groups) == 1 else [group.shortened(_WORST) for group in view.groups]
    tables = [*map(validation_tables.group_grid, groups), validation_tables.summary_grid(view)]
    if view.machines:
        tables.append(validation_tables.machine_grid(view).without(7))
    print_all("", tables, validation.finding(view), console)


def print_all(
    title: str,
    tables: Iterable[Grid],
    sentences: Iterable[str | None],
    console: Console,
    facts: Iterable[tuple[str, str]] = (),
) -> None:
    """Print a title with facts, tables, and sentences."""
    from rich.markup import escape

    if title:
        _title(console, title)
    if asked := ", ".join(f"[dim]{key}[/] {escape(value)}" for key, value in facts):
        console.print(asked, highlight=False)
    for grid in tables:
        print_grid(grid, console)
    console.print()
    for sentence in filter(None, sentences):
        console.print(sentence, highlight=False, markup=False)


def print_written(files: Iterable[Path], console: Console) -> None:
    """Print the paths of the files that a command wrote."""
    written = f"Written: {', '.join(map(str, files))}"
    console.print(written, style="dim", markup=False, highlight=False, soft_wrap=True)


def print_grid(grid: Grid, console: Console) -> None:
    """Print a grid as a table: numbers right, words left, missed rows in red and marked in words too."""
    from rich.text import Text

    heads = grid.heads if _width(grid.heads, grid.rows) <= console.width else _folded(grid.heads, grid.rows)
    table = _table(heads, grid.words, cut=_width(heads, grid.rows) <= console.width)
    console.print()
    console.print(Text(grid.title, style="bold"))
    for i, row in enumerate(grid.rows):
        if i in grid.breaks:
            table.add_section()
        table.add_row(*(Text(cell) for cell in row), style="red" if i in grid.bad else None)
    console.print(table)
    if grid.note:
        console.print(Text(grid.note, style="dim"))


def _width(heads: Iterable[str], rows: Iterable[Iterable[str]]) -> int:
    """Width of a table [characters]; columns that may wrap count as narrow as they can be."""
    columns = list(zip(*rows, strict=True)) or [() for _ in heads]
    return sum(2 + _widest(head, cells) for head, cells in zip(heads, columns, strict=True))


def _widest(head: str, cells: Iterable[str]) -> int:
    lines = [
        line for text in (head, *cells) for line in (text.split() if head in _LONG else text.split("\n"))
    ]
    return max(map(len, lines), default=0)


def _folded(heads: Iterable[str], rows: Iterable[Iterable[str]]) -> tuple[str, ...]:
    """Break heads between words where they are wider than the cells below them."""
    columns = list(zip(*rows, strict=True))
    broken = []
    for head, cells in zip(heads, columns, strict=True):
        room = max(1, *map(len, (*cells, *head.split())))
        broken.append(head if head in _LONG or "\n" in head else "\n".join(textwrap.wrap(head, room)))
    return tuple(broken)


def print_sheet(sheet: Datasheet, compared: Sequence[str], error: str, console: Console) -> None:
    """A hardware profile: figures with grade and source, what of it was compared, what kernels reach, export rules."""
    from rich.text import Text

    hardware, reference = sheet.hardware, sheet.reference
    _title(console, f"{hardware.title} ({hardware.name})")
    beside = reference is not None and reference.name != hardware.name
    sources = list(
        dict.fromkeys(
            row.parameter.citation for row in sheet.parameters if row.parameter and row.parameter.citation
        )
    )
    heads = (
        "figure",
        "value",
        *((f"{reference.name}", "ratio") if beside and reference else ()),
        "grade",
        "source",
    )
    table = _table(heads, frozenset({0, len(heads) - 2, len(heads) - 1}))
    for row in sheet.parameters:
        own, other = row.parameter, row.reference
        grade = own.grade if own else ""
        source = f"[{sources.index(own.citation) + 1}]" if own and own.citation else ""
        cells = [Text(row.path), Text(_figure(own))]
        if beside:
            cells += [
                Text(_figure(other)),
                Text(f"{row.ratio:.3g}" if row.ratio is not None and row.differs else ""),
            ]
        cells += [Text(grade, style=_GRADE.get(grade, "")), Text(source)]
        table.add_row(*cells, style="bold" if beside and row.differs else None)
    console.print(table)
    for number, citation in enumerate(sources, start=1):
        console.print(Text(f"[{number}] {citation}", style="dim"))
    _reasons(sheet, console)
    if sheet.unread:
        console.print(Text(f"\nRead by no kind of workload: {', '.join(sheet.unread)}"))
    with_what = (
        f"Compared with measurements: {'; '.join(compared)}\n{error}".rstrip()
        if compared
        else "Never compared with measurements"
    )
    console.print(Text(f"\n{with_what}"))
    if sheet.achieved:
        console.print(
            Text("\nWhat kernels reach of a link (peak is the datasheet's, of one direction)", style="bold")
        )
        table = _table(
            ("kernel", "direction", "link", "peak", "achieved", "fraction", "grade"), frozenset({0, 1, 2, 6})
        )
        for one in sheet.achieved:
            table.add_row(
                one.kernel, one.direction, one.link, show(one.peak_bytes_per_s, "bytes/s"), show(one.achieved_bytes_per_s, "bytes/s", 5),
                show(one.fraction, "fraction", 3), Text(one.grade, style=_GRADE.get(one.grade, "")),
            )  # fmt: skip
        console.print(table)
    _rules(sheet, console)


def _reasons(sheet: Datasheet, console: Console) -> None:
    """Print the origin of each derived, measured or assumed parameter that has one."""
    from rich.text import Text

    explained = [row.parameter for row in sheet.parameters if row.parameter and row.parameter.detail]
    if explained:
        console.print(Text("\nDerived, measured and assumed", style="bold"))
    for figure in explained:
        line = Text(f"{figure.path} ({figure.grade}): ", style=_GRADE.get(figure.grade, ""))
        console.print(line.append(figure.detail, style="default"))


def _rules(sheet: Datasheet, console: Console) -> None:
    from rich.text import Text

    console.print(Text("\nExport rules", style="bold"))
    table = _table(("rule", "in force", "verdict", "citation"), frozenset({0, 1, 2, 3}))
    for verdict in sheet.verdicts:
        days = f"{verdict.effective} to {verdict.until}" if verdict.until else f"from {verdict.effective}"
        table.add_row(verdict.rule, days, Text(verdict.sentence), Text(verdict.citation, style="dim"))
    console.print(table)
    console.print(Text(sheet.note, style="dim"))


def print_model(model: Model, counted: Parameters, kv_bytes_per_token: float, console: Console) -> None:
    """A model's shape and what follows from it: parameters and KV bytes."""
    from sim.workload.model import cache_bytes

    _title(console, model.name)
    shape = [
        ("layers", f"{model.num_layers} ({model.num_moe_layers} with experts)"),
        ("hidden", f"{model.hidden:,}"),
        *[("attention", words) for words in _attentions(model)],
        ("routed experts", f"{model.num_experts}, top-{model.top_k}"),
        ("shared experts", f"{model.shared_width:,} wide together" if model.shared_width else "none"),
        ("groups", f"{model.top_groups} of {model.num_groups}" if model.num_groups > 1 else "none"),
        ("expert hidden", f"{model.expert_hidden:,}"),
        ("vocabulary", f"{model.vocab:,}"),
        ("parameters", show(counted.total, "count")),
        ("active for a token", show(counted.active, "count")),
        ("one expert", show(counted.expert, "count")),
        ("multi-token prediction", show(counted.mtp, "count") if counted.mtp else "none"),
        ("KV cache for a token", show(kv_bytes_per_token, "bytes")),
        ("cache of 131,072 tokens", show(cache_bytes(model, 131072), "bytes")),
    ]
    table = _table(("", ""), frozenset({0}), heads_shown=False)
    for key, value in shape:
        table.add_row(key, value)
    console.print(table)
    console.print(f"source: {model.source}", style="dim", markup=False, highlight=False)


def _attentions(model: Model) -> list[str]:
    """Kinds of attention with their layers, heads, and what bounds their context."""
    lines = []
    for a in model.attentions():
        layers = sum(n for layer, n in model.layers().items() if layer.attention == a)
        limits = [f"{key} {value:,}" for key in ("window", "chunk") if (value := getattr(a, key, None))]
        words = [f"{a.kind}, {a.num_heads} heads", *limits]
        lines.append(", ".join(words) + ("" if layers == model.num_layers else f": {layers} layers"))
    return lines


def _figure(figure: Any) -> str:
    if figure is None:
        return "-"
    per = f" /{figure.per}" if figure.per and figure.per != "direction" else ""
    return f"{figure.shown}{per}"


def _title(console: Console, text: str) -> None:
    from rich.text import Text

    console.print()
    console.print(Text(text, style="bold underline"))


def _table(heads: Iterable[str], words: frozenset[int], *, heads_shown: bool = True, cut: bool = True) -> Any:
    from rich import box
    from rich.table import Table
    from rich.text import Text

    table = Table(
        box=box.SIMPLE_HEAD, show_header=heads_shown, pad_edge=False, padding=(0, 1, 0, 0), header_style="dim"
    )
    for i, head in enumerate(heads):
        table.add_column(
            Text(head),
            justify="left" if i in words else "right",
            no_wrap=cut and head not in _LONG,
            overflow="fold",
        )
    return table
