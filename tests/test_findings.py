"""Tables of shipped ladders and sweeps say what these find: each of their figures is in what the command prints."""

from __future__ import annotations

import io
import re
from pathlib import Path

import pytest

from sim import files

DOCS = Path(__file__).resolve().parents[1] / "docs"
_ROW = re.compile(r"^\| (`[\w-]+`(?:, `[\w-]+`)*) \| (.+) \|$", re.MULTILINE)
_FIGURE = re.compile(r"(?<![\w.-])(\d[\d,]*(?:\.\d+)?)(?= (?:%|s|ms|GB/s|times)\b| %|(?<=\.\d)|(?<=\.\d\d))")
_NUMBER = re.compile(r"(?<![\w.])[-+x]?(\d[\d,]*(?:\.\d+)?)")


def rows(kind: str) -> dict[str, str]:
    """Name of each ladder or sweep in the table of its page -> what the table says of it."""
    text = (DOCS / f"{kind}s.md").read_text(encoding="utf-8").partition(f"| {kind} | what it finds |\n")[2]
    table = text.partition("\n\n")[0] + "\n"
    return {name: found[2] for found in _ROW.finditer(table) for name in re.findall(r"`([\w-]+)`", found[1])}


FINDINGS = {
    (kind, name): words
    for kind in ("ladder", "sweep")
    for name, words in rows(kind).items()
    if _FIGURE.search(words)
}


def missing(words: str, printed: str) -> list[str]:
    """The figures of a text that round no number of another: those with a unit, and those with decimals."""
    numbers = [float(number.replace(",", "")) for number in _NUMBER.findall(printed)]

    def is_there(figure: str) -> bool:
        half = 0.5 * 10 ** -len(figure.partition(".")[2]) * 1.001
        return any(abs(float(figure.replace(",", "")) - number) <= half for number in numbers)

    return [figure for figure in _FIGURE.findall(words) if not is_there(figure)]


@pytest.mark.parametrize("kind", ["ladder", "sweep"])
def test_the_table_has_every_shipped_one(kind: str) -> None:
    assert set(rows(kind)) == set(files.shipped(f"scenarios/{kind}s"))


def test_a_figure_that_nothing_rounds_to_is_missed() -> None:
    printed = "H800 takes 28.2 % longer; NVLink 126 GB/s; 2.17 times; +23.5 %; x4.13"
    assert missing("28 %, 126 GB/s, 2.17 times, 23.5 %, 4.13 times", printed) == []
    assert missing("29 %, 120 GB/s of EP64, 2.2 times, 5.1", printed) == ["29", "120", "5.1"]


def beside(kind: str, name: str) -> pytest.MarkDecorator:
    """Run by the process that runs other tests of the same, which would else wait for it."""
    layouts = {"v3-layouts": "layouts-h800", "v3-layouts-h100": "layouts-h100"}
    return pytest.mark.xdist_group("ladders" if kind == "ladder" else layouts.get(name, f"sweep-{name}"))


@pytest.mark.slow
@pytest.mark.parametrize(("kind", "name"), [pytest.param(*each, marks=beside(*each)) for each in FINDINGS])
def test_what_the_table_finds_is_what_the_command_prints(kind: str, name: str) -> None:
    from rich.console import Console

    import shared
    from sim.show.tables import console as tables

    out = io.StringIO()
    printing = Console(file=out, width=200)
    if kind == "ladder":
        tables.print_ladder(shared.ladder(name), printing)
    else:
        tables.print_sweep(shared.sweep(name), printing)
    others = [other for other, words in rows(kind).items() if words == FINDINGS[kind, name] and other != name]
    for other in others:
        tables.print_sweep(shared.sweep(other), printing)
    assert missing(FINDINGS[kind, name], out.getvalue()) == []
