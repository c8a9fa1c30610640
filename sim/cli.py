"""The command `moesim`: thin verbs over the house.

People's tables and progress go to standard error, so that `--json` leaves one document on standard output. Heavy imports
stand inside the commands: `--help` touches none of them.
"""

from __future__ import annotations

import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from sim import __version__
from sim.errors import EXIT_BAD_INPUT, EXIT_MISSED, Fault, InputError, Mark, MoesimError, nearest

if TYPE_CHECKING:
    from rich.console import Console

_WHAT = ("hardware", "model", "scenario", "kernel")
_WIDTH = 110  # columns, where the output is no terminal
_SLOW_S = 2.0  # what takes longer says what it is doing


class _Group(click.Group):
    """Suggests the nearest command for an unknown one, and keeps the order of the house."""

    def resolve_command(
        self, ctx: click.Context, args: list[str]
    ) -> tuple[str | None, click.Command | None, list[str]]:
        name = args[0]
        if name not in self.commands and not name.startswith("-"):
            near = nearest(name, self.commands)
            hint = f"; did you mean {near}?" if near else ""
            ctx.fail(f"got the unknown command '{name}'; wanted one of: {', '.join(self.commands)}{hint}")
        return super().resolve_command(ctx, args)

    def list_commands(self, ctx: click.Context) -> list[str]:
        return list(self.commands)


@click.group(cls=_Group, context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(__version__, prog_name="moesim")
def cli() -> None:
    """Simulate GPU clusters that run mixture-of-experts models.

    Start with: moesim run h800-vs-h100
    """


_out = click.option(
    "--out", type=click.Path(path_type=Path), help="Folder for what is written [results/NAME]."
)
_json = click.option("--json", "as_json", is_flag=True, help="Print one JSON document and nothing else.")


@cli.command()
@click.argument("scenarios", nargs=-1, required=True)
@click.option(
    "--set", "settings", multiple=True, metavar="KEY=VALUE", help="Override a key: cluster.nodes=4."
)
@_out
@_json
@click.option("--no-report", is_flag=True, help="Write result.json only.")
def run(
    scenarios: Sequence[str], settings: tuple[str, ...], out: Path | None, as_json: bool, no_report: bool
) -> None:
    """Run scenarios (paths or shipped names); write result.json, report.html and trace.json.gz."""
    from sim.show import folder as folders
    from sim.show import tables
    from sim.study import run as study
    from sim.study import scenario as reading

    documents: dict[str, Any] = {}
    for spec in scenarios:  # every fault of every file before any of them runs
        document = reading.read(spec, settings)
        for one in reading.variants(document).values():
            reading.resolve(one)
        name = str(document.get(("name",)))
        if name in documents:
            raise InputError(
                Fault(Mark(str(spec)), "name", f"'{name}' a second time", "scenarios of different names")
            )
        documents[name] = document
    results: dict[str, study.Result] = {}
    with _progress(as_json) as say:
        for name, document in documents.items():
            result = results[name] = study.run_document(document, say)
            folder = _folder(out, name, several=len(documents) > 1)
            files = folders.of_run(result, with_report=not no_report)
            folders.write(folder, files)
            if not as_json:
                console = _console()
                tables.print_result(result, console)
                written = ", ".join(str(folder / file) for file in files)
                console.print(f"[dim]Written: {written}[/dim]", soft_wrap=True)
    if as_json:
        printed = {name: folders.kept(result) for name, result in results.items()}
        several = {"schema": "moesim.results/1", "results": printed}
        click.echo(folders.dump(several if len(printed) > 1 else next(iter(printed.values()))), nl=False)
    missed = [line for result in results.values() for line in study.missed(result)]
    if missed:
        raise _Missed("missed expectations:\n" + "\n".join(missed))


@cli.command()
@click.argument("spec", metavar="SWEEP")
@click.option("--jobs", type=click.IntRange(1, 1024), help="Processes on this machine [one a core].")
@click.option("--dask", metavar="ADDRESS", help="A running Dask scheduler, instead: tcp://10.0.0.1:8786.")
@_out
@click.option("--fresh", is_flag=True, help="Compute everything again.")
@click.option("--export", metavar="csv|parquet", help="Write the points as a table too.")
@_json
def sweep(
    spec: str,
    jobs: int | None,
    dask: str | None,
    out: Path | None,
    fresh: bool,
    export: str | None,
    as_json: bool,
) -> None:
    """Run every point of a sweep; rank them, say what cannot be and why. Goes on where it was stopped."""
    from sim.explore import sweep as exploring
    from sim.explore import sweep_file
    from sim.explore.store import Store
    from sim.show import export as exporting
    from sim.show import folder as folders
    from sim.show import sweep_page, sweeps, tables
    from sim.show.progress import SweepBar

    kind = exporting.check_format(export) if export else None
    if jobs is not None and dask is not None:
        raise InputError(Fault(None, "sweep", "--jobs and --dask", "one of them"))
    asked = sweep_file.read(spec)
    folder = _folder(out, asked.name, several=False)
    workers = _workers(dask, jobs)
    names, objective = sweeps.names_of(asked.space.axes), next(iter(asked.objectives))
    try:
        with (
            Store(folder / "sweep.sqlite", fresh=fresh) as store,
            SweepBar(_console(), len(asked.space), objective, quiet=as_json) as bar,
        ):

            def watch(now: exploring.Progress) -> None:
                metrics, number = (now.best[1], now.best[0]) if now.best else (None, 0)
                bar.show(
                    now.settled,
                    metrics,
                    now.what,
                    lambda: sweeps.values_text({"values": asked.space.values(number)}, names),
                )

            document = exploring.run(asked, workers, store, watch)
    except BaseException:
        workers.close(now=True)
        raise
    workers.close()
    files: dict[str, str | bytes] = {
        "sweep.json": folders.dump(document), "report.html": sweep_page.sweep_html(document)
    }  # fmt: skip
    if kind is not None:
        files[f"points.{kind}"] = exporting.encode(document, kind)
    folders.write(folder, files)
    if as_json:
        click.echo(folders.dump(document), nl=False)
        return
    tables.print_sweep(document, _console(), [folder / name for name in files])


def _workers(dask: str | None, jobs: int | None) -> Any:
    import os

    from sim.explore.workers import Dask, Processes

    return Dask(dask) if dask is not None else Processes(jobs or len(os.sched_getaffinity(0)))


@cli.command()
@click.argument("file", metavar="LADDER")
@_out
@_json
def ladder(file: str, out: Path | None, as_json: bool) -> None:
    """Add design choices one by one to a naive design, on several machines; write ladder.json and report.html."""
    from sim.explore import ladder as study
    from sim.show import folder as folders
    from sim.show import tables

    with _progress(as_json) as say:
        found = study.run_file(file, say)
    folder = _folder(out, found["name"], several=False)
    folders.write(folder, files := folders.of_ladder(found))
    for warning in found["warnings"]:
        click.echo(f"warning: {warning}", err=True)
    if as_json:
        click.echo(folders.dump(found), nl=False)
    else:
        tables.print_ladder(found, _console(), [folder / name for name in files])


@cli.command()
@click.argument("results", nargs=-1, type=click.Path(path_type=Path))
@click.option("--kind", help="What to draw; see --list.")
@click.option(
    "--format", "formats", default="html", show_default=True, help="Comma-separated: html,png,svg,pdf."
)
@click.option("--list", "list_kinds", is_flag=True, help="The kinds, a sentence each.")
@_out
def plot(results: Sequence[Path], kind: str | None, formats: str, list_kinds: bool, out: Path | None) -> None:
    """Draw one kind of figure from result.json files; `h800 --kind roofline` needs no run."""
    from sim.show import folder as folders
    from sim.show import images, plots

    if list_kinds:
        width = max(map(len, plots.KINDS))
        for name, (sentence, _) in plots.KINDS.items():
            click.echo(f"{name:{width}}  {sentence}")
        return
    if not results or kind is None:
        wanted = "RESULT... --kind KIND (kinds: moesim plot --list)"
        raise InputError(Fault(None, "plot", "no result" if not results else "no kind", wanted))
    asked = images.check_formats(word.strip() for word in formats.split(","))
    read = [folders.read(path) for path in results]
    figures: dict[str, Any] = {}
    for result in read:
        prefix = f"{result.get('name', 'validation')}-" if len(read) > 1 else ""
        figures |= {prefix + name: drawn for name, drawn in plots.figures(kind, result).items()}
    folder = out or (results[0] if results[0].is_dir() else results[0].parent)
    for written in images.write(figures, folder, asked):
        click.echo(str(written))


@cli.command()
@click.option("--group", "groups", multiple=True, help="Only this group; may be given several times.")
@_out
@_json
def validate(groups: tuple[str, ...], out: Path | None, as_json: bool) -> None:
    """Compare with published measurements; exit 1 where a tolerance is missed."""
    from sim.show import folder as folders
    from sim.show import report, tables
    from sim.study.validate import validate as compare

    with _progress(as_json) as say:
        found = compare(groups or None, say)
    if out is not None:
        folders.write(out, {"validation.json": folders.dump(found), "report.html": report.report_html(found)})
    if as_json:
        click.echo(folders.dump(found), nl=False)
    else:
        tables.print_validation(found, _console())
    missed = [name for name, group in found["groups"].items() if not group["ok"]]
    if missed:
        raise _Missed(f"tolerance missed in: {', '.join(missed)}")


@cli.command()
@click.argument("trace", type=click.Path(path_type=Path))
@click.option("--out", type=click.Path(path_type=Path), help="YAML file for the measured compute profile.")
def calibrate(trace: Path, out: Path | None) -> None:
    """Time the kernels of a PyTorch profiler trace; write a profile for 'compute: measured'."""
    from sim.show import calibrated, folder, tables
    from sim.study import calibrate as study
    from sim.study.profile import profile_text

    with _progress(False) as say:
        say(f"reading {trace}")
        found = study.calibrate(trace)
    text = profile_text(found, out.stem) if out is not None else ""
    console = _console()
    for grid in calibrated.of_calibration(found):
        tables.print_grid(grid, console)
    console.print()
    for sentence in calibrated.summary(found):
        console.print(sentence, highlight=False, markup=False)
    if out is not None:
        folder.write(out.parent, {out.name: text})
        console.print(
            f"[dim]Written: {out}; in a scenario: compute: measured, profile: {out}[/dim]", soft_wrap=True
        )


@cli.command()
@click.argument("files", nargs=-1, required=True)
def check(files: Sequence[str]) -> None:
    """Read and cross-check YAML files; run nothing."""
    faults: list[Fault] = []
    for file in files:
        try:
            kind = _check(file)
            click.echo(f"{file}: a valid {kind}", err=True)
        except InputError as error:
            faults += error.faults
    if faults:
        raise InputError(faults)


def _check(file: str) -> str:
    """Check one file by what it holds; returns its kind."""
    from sim import documents

    folder = "scenarios/ladders" if file in documents.shipped("scenarios/ladders") else "scenarios"
    path = documents.find(file, folder, "scenario")
    tree = documents.load(path).tree
    if "axes" in tree or "objectives" in tree:
        from sim.explore import sweep_file

        sweep_file.sweep_of(documents.load(path))
        return "sweep"
    if "rungs" in tree:
        from sim.explore import ladder

        ladder.check(path)
        return "ladder"
    if "workload" in tree or "cluster" in tree:
        from sim.study import scenario as reading

        for one in reading.variants(reading.read(path)).values():
            reading.resolve(one)
        return "scenario"
    if str(tree.get("schema", "")).startswith("moesim.compute-profile/"):
        from sim.cost.measured import load_profile

        load_profile(path)
        return "measured compute profile"
    if "gpu" in tree:
        from sim.cluster.hardware import load_hardware

        load_hardware(path)
        return "hardware profile"
    if "attention" in tree or "hidden" in tree:
        from sim.workload.model import load_model

        load_model(path)
        return "model"
    if "latency" in tree:
        from sim.cluster.kernels import load_kernel

        load_kernel(path)
        return "kernel generation"
    wanted = "a scenario (cluster, workload), a sweep (axes), a ladder (rungs), a hardware profile (gpu), a model (attention) or a kernel generation"
    raise InputError(
        Fault(Mark(str(path), 1, 1), "", f"the keys {', '.join(map(str, tree)) or 'none'}", wanted)
    )


@cli.command()
@click.argument("what")
@click.argument("name", required=False)
@_json
def show(what: str, name: str | None, as_json: bool) -> None:
    """Show shipped hardware, models, scenarios or kernels: all names, or one whole."""
    from sim import documents
    from sim.show import shelf
    from sim.show.folder import dump

    if what not in _WHAT:
        raise InputError(
            Fault(None, "show", f"'{what}'", f"one of: {', '.join(_WHAT)}", nearest(what, _WHAT))
        )
    if name is None:
        names = list(documents.shipped(shelf.FOLDERS[what]))
        click.echo(dump(names) if as_json else "\n".join(names) + "\n", nl=False)
        return
    shown = shelf.SHOW[what](name, None if as_json else _console(stderr=False))
    if as_json:
        click.echo(dump(shown), nl=False)


@cli.command()
@click.argument("what")
def schema(what: str) -> None:
    """Print the JSON Schema of scenario, sweep, ladder, hardware, model or kernel files, for editors."""
    from sim.show import shelf
    from sim.show.folder import dump

    if what not in shelf.SCHEMAS:
        wanted, near = f"one of: {', '.join(shelf.SCHEMAS)}", nearest(what, shelf.SCHEMAS)
        raise InputError(Fault(None, "schema", f"'{what}'", wanted, near))
    click.echo(dump(shelf.schema(what).model_json_schema(by_alias=True)), nl=False)


@cli.command()
@click.argument("name")
@click.option(
    "--from", "template", default="h800-vs-h100", show_default=True, help="Shipped scenario to start from."
)
def new(name: str, template: str) -> None:
    """Write NAME.yaml here, an editable scenario, with the CSV files that it names."""
    import re

    from sim import documents
    from sim.show import folder

    stem = name.removesuffix(".yaml")
    if not re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9._-]*", stem):
        raise InputError(Fault(None, "new", f"'{name}'", "a name of letters, digits, '.', '_' and '-'"))
    target = Path(f"{stem}.yaml")
    if target.exists():
        raise InputError(Fault(Mark(str(target)), "", "a file that is already there", "a new name"))
    source = documents.find(template, "scenarios", "scenario")
    text = source.read_text(encoding="utf-8")
    beside = [source.parent / name for name in re.findall(r"\bfile: ([\w.-]+\.csv)\b", text)]
    files = {
        one.name: one.read_text(encoding="utf-8")
        for one in beside
        if one.exists() and not Path(one.name).exists()
    }
    folder.write(Path(), {**files, target.name: re.sub(r"(?m)^name:.*$", f"name: {stem}", text, count=1)})
    click.echo(f"{target}: edit it, then: moesim run {target}", err=True)


# --- what the commands share ---------------------------------------------------------------------------------------


class _Missed(MoesimError):
    """A tolerance was missed: exit 1."""

    exit_code = EXIT_MISSED


def _folder(out: Path | None, name: str, *, several: bool) -> Path:
    if out is None:
        return Path("results") / name
    return out / name if several else out


def _console(*, stderr: bool = True) -> Console:
    from rich.console import Console

    stream = sys.stderr if stderr else sys.stdout
    return Console(stderr=stderr, highlight=False, width=None if stream.isatty() else _WIDTH)


class _progress:
    """Says on standard error what takes longer than two seconds; silent with --json."""

    def __init__(self, quiet: bool) -> None:
        self.quiet, self.begun = quiet, time.monotonic()

    def __enter__(self) -> Callable[[str], None]:
        return self.say

    def say(self, what: str) -> None:
        if not self.quiet and time.monotonic() - self.begun > _SLOW_S:
            click.echo(f"  {time.monotonic() - self.begun:5.1f} s  {what}", err=True)

    def __exit__(self, *_: object) -> None:
        return None


def main() -> None:
    """Entry point: our messages without traceback, exit codes as documented."""
    try:
        cli.main(standalone_mode=False)
    except MoesimError as error:
        click.echo(f"moesim: {error}" if not isinstance(error, InputError) else str(error), err=True)
        sys.exit(error.exit_code)
    except click.ClickException as error:
        error.show()
        sys.exit(EXIT_BAD_INPUT)
    except (click.Abort, KeyboardInterrupt):
        click.echo("stopped; finished work is kept", err=True)
        sys.exit(130)
    except BrokenPipeError:
        sys.exit(0)
