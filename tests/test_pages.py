"""README and the pages of docs are run: their commands, examples, and the output, tables, pictures and numbers that they show.

`python tests/test_pages.py` writes outputs, pictures, and the tables of keys, metrics and validation again.
"""

from __future__ import annotations

import contextlib
import doctest
import io
import json
import os
import re
import shlex
import shutil
import subprocess
import sys
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

sys.path.insert(0, str(Path(__file__).with_name("support")))  # where this file is run by itself

import browser
import keys
from colour import confusable
from sim.errors import InputError

ROOT = Path(__file__).resolve().parents[1]
README = ROOT / "README.md"
PAGES = (README, *sorted((ROOT / "docs").glob("*.md")))
FIRST = "moesim run h800-vs-h100"

_FENCE = re.compile(r"^```(\w+)\n(.*?)^```$", re.MULTILINE | re.DOTALL)
_PROGRESS = re.compile(r"^ +\d+\.\d s  .*\n", re.MULTILINE)
_NUMBER = re.compile(r"(?<![\w.])[-+±]?\d[\d,]*(?:\.\d+)?(?:e[-+]?\d+)?")
_KEYS = re.compile(r"(<!-- keys[^>]*-->\n)(.*?)(<!-- end -->)", re.DOTALL)
_METRICS = re.compile(r"(<!-- metrics -->\n)(.*?)(<!-- end -->)", re.DOTALL)
_MACHINES = re.compile(r"(<!-- machines[^>]*-->\n)(.*?)(<!-- end -->)", re.DOTALL)
_TABLE = re.compile(r"(<!-- validation[^>]*-->\n)(.*?)(<!-- end -->)", re.DOTALL)


@dataclass(frozen=True)
class Block:
    """A fenced block: its language, its text, its page, and the heading it stands under."""

    language: str
    text: str
    page: Path
    heading: str

    @property
    def commands(self) -> list[str]:
        """The commands of a block of `sh` or `console`."""
        lines = self.text.splitlines()
        return [line[2:] for line in lines if line.startswith("$ ")] if self.language == "console" else lines

    @property
    def sets_up(self) -> bool:
        return ".venv/bin/" in self.text


def blocks(page: Path) -> Iterator[Block]:
    text = page.read_text(encoding="utf-8")
    for found in _FENCE.finditer(text):
        headings = re.findall(r"^#+ (.*)$", _FENCE.sub("", text[: found.start()]), re.MULTILINE)
        yield Block(found[1], found[2], page, headings[-1])


BLOCKS = [block for page in PAGES for block in blocks(page)]
YAML = [block for block in BLOCKS if block.language == "yaml"]
RUN = [block for block in BLOCKS if block.language in ("sh", "console") and not block.sets_up]
HEADINGS = list(dict.fromkeys((block.page.stem, block.heading) for block in RUN))


def environment(folder: Path) -> dict[str, str]:
    """An environment in which `moesim` and `python` are this interpreter's, on a terminal of 100 columns."""
    bin_folder = folder / ".bin"
    bin_folder.mkdir(exist_ok=True)
    for name, module in (("moesim", "-m sim "), ("python", "")):
        shim = bin_folder / name
        shim.write_text(f'#!/bin/sh\nexec {shlex.quote(sys.executable)} {module}"$@"\n', encoding="utf-8")
        shim.chmod(0o755)
    plain = {
        key: value for key, value in os.environ.items() if key not in ("NO_COLOR", "FORCE_COLOR", "TERM")
    }
    path = f"{bin_folder}{os.pathsep}{os.environ['PATH']}"
    return plain | {"PATH": path, "PYTHONPATH": str(ROOT), "COLUMNS": "100", "LC_ALL": "C.UTF-8"}


def named(block: Block) -> str:
    """The name that a file in YAML gives itself."""
    found = re.search(r"^name: ([\w-]+)", block.text, re.MULTILINE)
    assert found
    return found[1]


def run(command: str, folder: Path) -> str:
    """What a person sees of a command, without progress."""
    done = subprocess.run(
        ["bash", "-c", command], cwd=folder, env=environment(folder), stdout=subprocess.PIPE, stderr=subprocess.STDOUT, check=False
    )  # fmt: skip
    seen = done.stdout.decode()
    assert done.returncode == 0, f"{command}: exit {done.returncode}\n{seen}"
    lines = "".join(line.rstrip() + "\n" for line in seen.splitlines())
    return _PROGRESS.sub("", lines).strip("\n") + "\n"


def outputs(block: Block) -> Iterator[tuple[str, str]]:
    """Each command of a `console` block with the output shown below it."""
    for part in re.split(r"^\$ ", block.text, flags=re.MULTILINE)[1:]:
        command, _, shown = part.partition("\n")
        yield command, shown


_LEFT_OUT = "..."
"""Line of an excerpt in the place of some that are left out."""


def excerpt(shown: str, seen: str) -> str:
    """The lines of an output that an excerpt shows, told by their words, with the marks of what it leaves out."""
    if _LEFT_OUT not in shown.splitlines():
        return seen
    fresh, lines = iter(seen.splitlines()), []
    for line in shown.splitlines():
        kept = (
            line
            if line in ("", _LEFT_OUT)
            else next((one for one in fresh if _words_of(one) == _words_of(line)), "")
        )
        lines.append(f"{kept}\n")
    return "".join(lines)


def _words_of(line: str) -> list[str]:
    return _NUMBER.sub("#", line).split()


def same(shown: str, seen: str) -> None:
    """Assert that two texts are the same but for the last digit of their numbers."""
    seen = excerpt(shown, seen)
    assert _NUMBER.sub("#", shown).split() == _NUMBER.sub("#", seen).split()
    ours, theirs = (
        [float(n.replace(",", "").lstrip("±")) for n in _NUMBER.findall(text)] for text in (shown, seen)
    )
    assert ours == pytest.approx(theirs, rel=2e-3, abs=1e-9)


def session(blocks: Sequence[Block], folder: Path) -> Iterator[list[tuple[doctest.Example, str]]]:
    """What a Python session that runs all blocks, one after the other, prints for each of their lines."""
    names: dict[str, Any] = {}
    for block in blocks:
        said = []
        for example in doctest.DocTestParser().get_examples(block.text):
            out = io.StringIO()
            with contextlib.redirect_stdout(out), contextlib.chdir(folder):
                exec(compile(example.source, "README.md", "single"), names)
            said.append((example, out.getvalue()))
        yield said


# --- commands ------------------------------------------------------------------------------------------------------


def test_two_commands_set_everything_up() -> None:
    lines = [
        line
        for line in README.read_text(encoding="utf-8").splitlines()
        if re.search(r"(^|&& )\.venv/bin/", line)
    ]
    assert [line for block in BLOCKS if block.sets_up for line in block.commands] == lines
    assert len(lines) == 2
    assert lines[0].startswith("python3 -m venv .venv && ")
    assert lines[0].endswith(FIRST)
    assert "pytest" in lines[1]


@pytest.fixture(scope="module")
def first_run(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, str]:
    """A folder in which the first command has run, and what it printed."""
    folder = tmp_path_factory.mktemp("first")
    return folder, run(FIRST, folder)


@pytest.mark.slow
@pytest.mark.parametrize("place", HEADINGS, ids=" ".join)
def test_commands_run_and_print_what_is_shown(
    place: tuple[str, str], tmp_path: Path, request: pytest.FixtureRequest
) -> None:
    mine = [block for block in RUN if (block.page.stem, block.heading) == place]
    first_printed = ""
    for block in YAML:
        (tmp_path / f"{named(block)}.yaml").write_text(block.text, encoding="utf-8")
    if any("h800-vs-h100" in command for block in mine for command in block.commands):
        folder, first_printed = request.getfixturevalue("first_run")
        shutil.copytree(folder, tmp_path, dirs_exist_ok=True)
    for block in mine:
        if block.language == "console":
            for command, shown in outputs(block):
                same(shown, first_printed if command == FIRST else run(command, tmp_path))
        else:
            for command in block.commands:
                run(command, tmp_path)


def test_the_first_command_writes_the_files_it_names(first_run: tuple[Path, str]) -> None:
    folder, printed = first_run
    for name in ("result.json", "report.html"):
        assert f"results/h800-vs-h100/{name}" in printed
        assert (folder / "results" / "h800-vs-h100" / name).stat().st_size > 1000


# --- examples and tables -------------------------------------------------------------------------------------------


[SWEEP] = [block for block in YAML if block.page.stem == "sweeps"]
[LADDER, EXCHANGE, SEARCH] = [block for block in YAML if block.page.stem == "ladders"]
[SCENARIO] = [block for block in YAML if block not in (SWEEP, LADDER, EXCHANGE, SEARCH)]


def test_the_example_scenario_runs_as_it_stands(tmp_path: Path) -> None:
    (tmp_path / "example.yaml").write_text(SCENARIO.text, encoding="utf-8")
    assert "popular-experts" in run("moesim run example.yaml", tmp_path)


@pytest.mark.slow
def test_the_example_sweep_runs_as_it_stands_and_finds_what_it_expects(tmp_path: Path) -> None:
    (tmp_path / "example.yaml").write_text(SWEEP.text, encoding="utf-8")
    run("moesim sweep example.yaml --jobs 1", tmp_path)
    found = json.loads((tmp_path / "results" / "my-sweep" / "sweep.json").read_text(encoding="utf-8"))
    assert len(found["points"]) == 18
    ran = [point for point in found["points"] if point["status"] == "ok"]
    assert 6 <= len(ran) < 18  # the limit bites, on the slower part first
    assert all(point["metrics"]["tpot_s"] <= 0.04 for point in ran)
    for machine in found["axes"]["machine"]:
        mine = [point for point in ran if point["values"]["machine"] == machine]
        rates = [point["metrics"]["tokens_per_s_per_gpu"] for point in mine]
        assert rates == sorted(rates)


@pytest.mark.slow
def test_the_example_ladder_runs_as_it_stands_and_finds_what_it_expects(tmp_path: Path) -> None:
    (tmp_path / "example.yaml").write_text(LADDER.text, encoding="utf-8")
    assert "Two hops" in run("moesim ladder example.yaml", tmp_path)
    found = json.loads((tmp_path / "results" / "my-ladder" / "ladder.json").read_text(encoding="utf-8"))
    two_hop, fp8 = (rung["values"]["cumulative"]["h800"] for rung in found["rungs"][1:])
    assert fp8 == pytest.approx(two_hop * 7472 / 14416, rel=0.04)  # bytes of a record, but for the fixed time
    assert found["enough"]["nvlink"]["needed"][-1]["value"] > 200e9


@pytest.mark.slow
def test_the_example_exchange_runs_as_it_stands_and_finds_what_it_expects(tmp_path: Path) -> None:
    (tmp_path / "example.yaml").write_text(EXCHANGE.text, encoding="utf-8")
    assert "Up to 6.0 NVLink bytes" in run("moesim ladder example.yaml", tmp_path)
    found = json.loads((tmp_path / "results" / "my-exchange" / "ladder.json").read_text(encoding="utf-8"))
    asked = [(one["x"], one["ratio"]) for one in found["exchange"]["points"]]
    assert len(asked) == 9
    assert all((ratio <= 1.01) == (x <= 6.0) for x, ratio in asked if x is not None)


@pytest.mark.slow
def test_the_example_search_runs_as_it_stands_and_finds_what_it_expects(tmp_path: Path) -> None:
    (tmp_path / "example.yaml").write_text(SEARCH.text, encoding="utf-8")
    assert "With the best design for each" in run("moesim ladder example.yaml", tmp_path)
    found = json.loads((tmp_path / "results" / "my-search" / "ladder.json").read_text(encoding="utf-8"))
    h800 = found["search"]["machines"]["h800"]
    assert found["search"]["best"]["values"]["layout.ep"] == 16
    assert 0 <= h800["held"]["ep32"]["gap_fraction"] < h800["gap_fraction"]


@pytest.mark.parametrize(
    "block", [b for b in BLOCKS if b.language == "python"], ids=lambda block: block.page.stem
)
def test_the_python_example_runs(block: Block, tmp_path: Path) -> None:
    (tmp_path / "example.py").write_text(block.text, encoding="utf-8")
    assert 1e-3 < float(run("python example.py", tmp_path)) < 1e-2


def test_the_python_session_prints_what_is_shown(tmp_path: Path) -> None:
    walk = [block for block in BLOCKS if block.language == "pycon"]
    assert len(walk) > 2
    for said in session(walk, tmp_path):
        for example, seen in said:
            same(example.want, seen)
    assert (tmp_path / "mine" / "report.html").stat().st_size > 1e6


def test_every_block_is_of_a_kind_that_is_tested() -> None:
    assert {block.language for block in BLOCKS} <= {"sh", "console", "yaml", "python", "pycon", "text"}
    for block in BLOCKS:
        if block.language == "text":
            assert all(
                line.startswith(("moesim ", "dask ", "pip install ")) for line in block.text.splitlines()
            )


RESULTS = ROOT / "docs" / "results.md"


def metrics_table() -> str:
    """The table of metrics: what each is of, its unit, which way is better, and what it means."""
    from sim.metrics import TABLE

    better = {"lower": "less", "higher": "more", None: ""}
    lines = ["| metric | of | unit | better | meaning |", "|---|---|---|---|---|"]
    for row in TABLE:
        lines.append(
            f"| `{row.name}` | {', '.join(row.kinds)} | {row.unit} | {better[row.better]} | {row.meaning} |"
        )
    return "\n".join(lines) + "\n"


def test_the_table_of_metrics_is_the_one_that_the_code_has() -> None:
    found = _METRICS.search(RESULTS.read_text(encoding="utf-8"))
    assert found
    assert found[2] == metrics_table()


def test_the_page_of_keys_has_every_key_that_a_file_may_have() -> None:
    found = _KEYS.search((ROOT / "docs" / "keys.md").read_text(encoding="utf-8"))
    assert found
    assert found[2] == keys.tables()


def test_every_key_of_a_result_is_explained() -> None:
    import sim

    text = RESULTS.read_text(encoding="utf-8").partition("<!-- metrics -->")[0]
    settings = ("workload.tokens_per_rank=16", "workload.gate.sampling=expected")
    document = sim.run("h800-450", settings=settings)
    for key in {*document, *document["variants"]["h800"]}:
        assert f"`{key}`" in text


@pytest.mark.slow
@pytest.mark.parametrize(
    "name",
    ["v3-training-h800", "v3-prefill-ep32", "serving-example", "serving-beside-training", "flows-example"],
)
def test_every_key_of_every_kind_of_result_is_explained(name: str) -> None:
    import shared

    text = RESULTS.read_text(encoding="utf-8").partition("<!-- metrics -->")[0]
    document = shared.scenario(name)
    for result in (document, *document.get("variants", {}).values()):
        assert [key for key in result if f"`{key}`" not in text] == []


@pytest.mark.parametrize("kind", ["gate", "kernel", "fabric"])
def test_every_kind_a_scenario_may_name_is_named(kind: str) -> None:
    schema = json.dumps(_schema())
    kinds = {
        "gate": (
            "uniform",
            "group_limited",
            "balanced",
            "deepep_benchmark",
            "zipf",
            "dirichlet",
            "loads",
            "trace",
        ),
        "kernel": ("two_hop", "low_latency", "flat", "nccl"),
        "fabric": ("rail_optimized", "multi_plane", "three_tier", "rail_only", "scale_up"),
    }[kind]
    for name in kinds:
        assert f'"{name}"' in schema
        assert name in SCENARIO.text


def _schema() -> dict[str, Any]:
    from sim.scenario.schema import SCENARIO

    return SCENARIO.model_json_schema()


# --- validation ----------------------------------------------------------------------------------------------------


def validation_table() -> str:
    """The table of `moesim validate`: counted figures, those that calibrated, mean and worst error, and the bar."""
    from shared import group as compared
    from sim.validation.validate import GROUPS

    lines = [
        "| group | figures | calibrated | mean error | of predictions | worst | bar |",
        "|---|---|---|---|---|---|---|",
    ]
    for name, group in ((name, compared(name)) for name in GROUPS):
        for bar in group["bars"]:
            mine = [row for row in group["rows"] if row["bar"] == bar["name"]]
            fitted = sum(row["use"] == "calibration" for row in mine)
            errors = [abs(row["error_fraction"]) for row in mine if row["use"] != "calibration"]
            held = f"mean {bar['mean_bar_fraction']:.1%}"
            if bar["worst_bar_fraction"] is not None:
                held += f", worst {bar['worst_bar_fraction']:.1%}"
            if not bar["mean_bar_fraction"]:
                held = "exact"
            if not mine:
                held = "printed only"
            predicted = f"{sum(errors) / len(errors):.2%}" if errors else "-"
            mean, worst = (
                f"{bar[key]:.2%}" if mine else "-"
                for key in ("mean_abs_error_fraction", "worst_error_fraction")
            )
            title = name if bar["name"] == "main" else f"{name}, single {bar['name']}"
            lines.append(
                f"| {title} | {len(mine)} | {fitted} | {mean} | {predicted} | {worst} | {held.replace('.0%', '%')} |"
            )
    return "\n".join(lines) + "\n"


def _machines() -> dict[str, dict[str, Any]]:
    """Errors of each machine, over all groups."""
    from shared import group as compared
    from sim.validation.machines import by_machine
    from sim.validation.validate import GROUPS

    return by_machine({name: compared(name) for name in GROUPS}, whole=True)


def machine_table() -> str:
    """The table of `moesim validate` by machine; those that were never compared in one line."""
    lines = [
        "| machine | figures | predicted | mean error | of predictions | worst | by group |",
        "|---|---|---|---|---|---|---|",
    ]
    found = sorted(_machines().items(), key=lambda each: -each[1]["rows"])
    for name, errors in found:
        if not errors["rows"]:
            continue
        keys = ("mean_abs_error_fraction", "predicted_mean_abs_error_fraction", "worst_error_fraction")
        cells = [name, errors["rows"], errors["predicted"]]
        cells += ["-" if errors[key] is None else f"{errors[key]:.2%}" for key in keys]
        cells.append(", ".join(f"{group} {error:.1%}" for group, error in errors["groups"].items()))
        lines.append(f"| {' | '.join(map(str, cells))} |")
    never = [
        f"{name} ({errors['printed']} printed only)" if errors["printed"] else name
        for name, errors in found
        if not errors["rows"]
    ]
    return "\n".join(lines) + f"\n\nNever compared: {', '.join(never)}.\n"


def machine_file() -> str:
    """The file that `moesim show hardware NAME` reads the errors of a machine from."""
    lines = ["# How far counted figures are off on each machine; `python tests/test_pages.py` writes it."]
    for name, errors in _machines().items():
        if errors["rows"]:
            predicted = errors["predicted_mean_abs_error_fraction"]
            lines += [
                f"{name}:",
                f"  figures: {errors['rows']}",
                f"  predicted: {errors['predicted']}",
                f"  mean: {errors['mean_abs_error_fraction']:.2%}",
                *([] if predicted is None else [f"  of_predictions: {predicted:.2%}"]),
                f"  worst: {errors['worst_error_fraction']:.2%}",
                f"  row: {errors['worst_row']}",
            ]
    return "\n".join(lines) + "\n"


MACHINE_FILE = ROOT / "hardware" / "compared" / "machines.yaml"


@pytest.mark.slow
@pytest.mark.xdist_group("published")
def test_the_tables_of_validation_are_what_validate_finds() -> None:
    texts = [page.read_text(encoding="utf-8") for page in PAGES]
    shown = [(found[2], validation_table(), 0.02) for text in texts if (found := _TABLE.search(text))]
    shown += [(found[2], machine_table(), 0.11) for text in texts if (found := _MACHINES.search(text))]
    assert len(shown) == 3
    shown.append((MACHINE_FILE.read_text(encoding="utf-8"), machine_file(), 0.02))
    for written, seen, rounding in shown:
        assert _NUMBER.sub("#", written) == _NUMBER.sub("#", seen)
        ours, theirs = ([float(n) for n in _NUMBER.findall(text)] for text in (written, seen))
        assert ours == pytest.approx(theirs, abs=rounding)


# --- pictures ------------------------------------------------------------------------------------------------------


_PICTURE = re.compile(
    r"!\[.*\]\((?:docs/)?((?:gallery/)?[\w-]+)\.svg\)\n\n"
    r"\*(?:`moesim (run|ladder|sweep|validate --group) ([\w-]+)[^`]*` and )?`moesim plot (\S+) --kind (\w+)`"
)
PICTURES = {
    found[1]: found for page in PAGES for found in _PICTURE.finditer(page.read_text(encoding="utf-8"))
}
"""Place of a picture in docs -> where it stands, with the commands below it that draw it."""
GALLERY = ROOT / "docs" / "gallery.md"
MOST_BYTES, MOST_BYTES_TOGETHER = 100_000, 1_000_000


def document_of(found: re.Match[str]) -> Any:
    """The document that a picture is drawn from, as the command below it makes it."""
    import shared
    from sim.show.files import folder
    from sim.validation.validate import validate

    makers = {
        "run": shared.scenario,
        "ladder": shared.ladder,
        "sweep": shared.sweep,
        "validate --group": lambda name: validate([name]),
    }
    return makers[found[2]](found[3]) if found[2] else folder.read(Path(found[4]))


_UID = re.compile(r"(?:(?<=trace)|(?<=cb)|(?<=pfigure-)|(?<=pfigure-legend-))[0-9a-f]{6}(?![0-9a-f])")
"""What plotly calls a trace, another each time."""


def drawn(folder: Path) -> dict[str, str]:
    """Every picture of the pages as its commands draw it, by its place; of several variants the first."""
    from sim.show.pages import images
    from sim.show.plots import kinds

    figures = {}
    for place, found in PICTURES.items():
        first, *_ = kinds.pictures(found[5], document_of(found)).values()
        figures[Path(place).name] = first
    images.write(figures, folder, ["svg"])
    written = {}
    for place in PICTURES:
        svg = (folder / f"{Path(place).name}.svg").read_text(encoding="utf-8")
        [drawing] = re.findall(r'id="defs-(\w+)"', svg)  # plotly's name of it, another each time
        svg = svg.replace(drawing, "figure")
        numbers = {uid: number for number, uid in enumerate(dict.fromkeys(_UID.findall(svg)))}
        written[place] = _UID.sub(lambda found, numbers=numbers: f"{numbers[found[0]]:06}", svg)
    return written


@pytest.mark.slow
@pytest.mark.xdist_group("ladders")
@pytest.mark.parametrize("place", PICTURES)
def test_any_two_series_of_a_picture_can_be_told_apart(place: str) -> None:
    from sim.show.plots import kinds

    document = document_of(PICTURES[place])
    for kind in kinds.KINDS:
        try:
            pictures = kinds.pictures(kind, document)
        except InputError:  # of a kind that this document has no data for
            continue
        for name, picture in pictures.items():
            assert list(confusable(picture.data)) == [], name


@pytest.fixture(scope="module")
def drawings(tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    return drawn(tmp_path_factory.mktemp("pictures"))


def _words(svg: str) -> list[str]:
    return re.findall(r"<text[^>]*>([^<]+)", svg)


def test_every_picture_stands_above_the_commands_that_draw_it() -> None:
    there = (ROOT / "docs").rglob("*.svg")
    assert {str(path.relative_to(ROOT / "docs").with_suffix("")) for path in there} == set(PICTURES)


def test_the_gallery_has_every_kind_of_plot_with_what_one_reads_from_it() -> None:
    from sim.show.plots.kinds import KINDS

    text = GALLERY.read_text(encoding="utf-8")
    shown = [found[5] for found in _PICTURE.finditer(text)]
    assert sorted(shown) == sorted(KINDS)
    read = re.findall(r"--kind \w+`\*: ([^!#]+)", text)
    assert len(read) == len(shown)
    assert all(len(words.split()) >= 10 and words.strip().endswith(".") for words in read)


def test_pictures_of_the_pages_stay_small() -> None:
    sizes = {place: (ROOT / "docs" / f"{place}.svg").stat().st_size for place in PICTURES}
    assert max(sizes.values()) <= MOST_BYTES
    assert sum(sizes.values()) <= MOST_BYTES_TOGETHER


@pytest.mark.slow
@pytest.mark.xdist_group("ladders")
@pytest.mark.skipif(browser.find() is None, reason="no Chromium here")
@pytest.mark.parametrize("place", PICTURES)
def test_the_picture_says_what_its_command_draws(place: str, drawings: dict[str, str]) -> None:
    shown = (ROOT / "docs" / f"{place}.svg").read_text(encoding="utf-8")
    assert _words(shown)
    same(" ".join(_words(shown)), " ".join(_words(drawings[place])))


# --- writing it again ----------------------------------------------------------------------------------------------


def refresh() -> None:
    """Write outputs, the tables of keys, metrics and validation, and the pictures."""
    import tempfile

    table, machines = validation_table(), machine_table()
    MACHINE_FILE.write_text(machine_file(), encoding="utf-8")
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        for page in PAGES:
            text = page.read_text(encoding="utf-8")
            mine = [block for block in BLOCKS if block.page == page]
            for block in mine:
                if block.language == "console":
                    fresh = "".join(
                        f"$ {command}\n{excerpt(shown, run(command, folder))}"
                        for command, shown in outputs(block)
                    )
                    text = text.replace(f"```console\n{block.text}```", f"```console\n{fresh}```")
            walk = [block for block in mine if block.language == "pycon"]
            for block, said in zip(walk, session(walk, folder), strict=True):
                lines = [
                    "".join(
                        f"{'... ' if i else '>>> '}{line}\n"
                        for i, line in enumerate(example.source.splitlines())
                    )
                    + seen
                    for example, seen in said
                ]
                text = text.replace(f"```pycon\n{block.text}```", f"```pycon\n{''.join(lines)}```")
            text = _KEYS.sub(lambda found: found[1] + keys.tables() + found[3], text)
            text = _METRICS.sub(lambda found: found[1] + metrics_table() + found[3], text)
            text = _TABLE.sub(lambda found: found[1] + table + found[3], text)
            text = _MACHINES.sub(lambda found: found[1] + machines + found[3], text)
            page.write_text(text, encoding="utf-8")
        for place, svg in drawn(folder).items() if browser.find() is not None else ():
            (ROOT / "docs" / f"{place}.svg").write_text(svg, encoding="utf-8")


if __name__ == "__main__":
    sys.path.insert(0, str(ROOT))
    refresh()
