"""Commands that ask many runs one question: sweeps, ladders and the explorer."""

from __future__ import annotations

from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

import click

from sim.cli.shared import (
    console_of,
    figure_notes,
    folder_of,
    json_option,
    out_option,
    progress,
    tell,
)
from sim.errors import InfeasibleError, InputError, Problem

if TYPE_CHECKING:
    from sim.sweeps.file import Sweep


@click.command(short_help="Run every point of a sweep and rank them.")
@click.argument("spec", metavar="SWEEP")
@click.option("--jobs", type=click.IntRange(1, 1024), help="Processes on this machine [one a core].")
@click.option("--dask", metavar="ADDRESS", help="A running Dask scheduler, instead: tcp://10.0.0.1:8786.")
@out_option
@click.option("--fresh", is_flag=True, help="Compute everything again.")
@click.option("--export", metavar="csv|parquet", help="Write the points as a table too.")
@json_option
def sweep(
    spec: str,
    jobs: int | None,
    dask: str | None,
    out: Path | None,
    fresh: bool,
    export: str | None,
    as_json: bool,
) -> None:
    """Run every point of a sweep; rank them, report what cannot run and why. Goes on where it was stopped."""
    from sim.answers import cube
    from sim.show.files import export as exporting
    from sim.show.files import folder as folders
    from sim.show.files.partial import Keeper
    from sim.show.pages.explorer import explorer_html
    from sim.show.tables import console as tables
    from sim.show.tables.progress import SweepBar
    from sim.show.views.labels import values_text
    from sim.show.views.sweep import sweep_view
    from sim.show.words import sweep as sweep_words
    from sim.sweeps import file as sweep_file
    from sim.sweeps import run as exploring
    from sim.sweeps.workers import start

    kind = exporting.check_format(export) if export else None
    if jobs is not None and dask is not None:
        raise InputError(Problem(None, "sweep", "--jobs and --dask", "one of them"))
    asked = sweep_file.read(spec)
    folder = folder_of(out, asked.name)
    names = [axis.name for axis in asked.space.axes if len(axis.values) > 1]
    objective = next(iter(asked.objectives))
    for hint in () if as_json else sweep_file.hints(asked):
        click.echo(f"note: {hint}", err=True)
    with folders.occupied(folder, tell):
        with SweepBar(console_of(), len(asked.space), objective, quiet=as_json) as bar:

            def watch(now: exploring.Progress) -> None:
                number, metrics = now.best or (0, None)
                bar.show(now.settled, metrics, now.what, values_text(asked.space.values(number), names))

            with Keeper(folder, "sweep.json", tell) as keep:
                document = exploring.run_on(
                    asked,
                    start(jobs, dask),
                    folder / "sweep.sqlite",
                    watch,
                    fresh=fresh,
                    keep=keep.later,
                )
        table = partial(tables.print_sweep, document, console_of())
        with figure_notes():
            written = folders.save(folder, document, meanwhile=None if as_json else table)
        made = cube.cube_of(asked, document["points"])
        if made is not None:
            folders.write(folder, {"sliders.html": explorer_html(made)})
            written.append(folder / "sliders.html")
        if kind is not None:
            folders.write(folder, {f"points.{kind}": exporting.encode(document, kind)})
            written.append(folder / f"points.{kind}")
    if as_json:
        click.echo(folders.dump(document), nl=False)
    else:
        tables.print_written(written, console_of())
    if not document["ranked"]:
        raise InfeasibleError(sweep_words.finding(sweep_view(document))[0])


@click.command(short_help="Add design choices to a naive design, one by one.")
@click.argument("file", metavar="LADDER")
@out_option
@json_option
def ladder(file: str, out: Path | None, as_json: bool) -> None:
    """Add design choices one by one to a naive design, on several machines; write ladder.json and report.html."""
    from sim.ladders import run as study
    from sim.ladders.spec import read
    from sim.show.files import folder as folders
    from sim.show.files.partial import Keeper
    from sim.show.tables import console as tables

    folder_of(out, "")
    asked = read(file)
    folder = folder_of(out, asked.spec.name)
    with folders.occupied(folder, tell):
        with Keeper(folder, "ladder.json", tell) as keep:
            document = study.run(asked, progress(as_json), keep)
        for warning in document["warnings"]:
            click.echo(f"warning: {warning}", err=True)
        table = partial(tables.print_ladder, document, console_of())
        with figure_notes():
            written = folders.save(folder, document, meanwhile=None if as_json else table)
    if as_json:
        click.echo(folders.dump(document), nl=False)
    else:
        tables.print_written(written, console_of())


@click.command(short_help="Move sliders over a scenario or a sweep, in one page.")
@click.argument("spec", metavar="[SCENARIO|SWEEP]", required=False)
@click.option(
    "--export",
    type=click.Path(path_type=Path, dir_okay=False),
    metavar="PAGE.html",
    help="Write one page that needs no server.",
)
@click.option(
    "--motion",
    is_flag=True,
    help="Of an all-to-all: its bytes on every link over time, two machines side by side.",
)
@click.option("--notches", type=click.IntRange(1, 1000), help="At most so many of each slider [all].")
@click.option("--port", type=click.IntRange(0, 65535), default=0, help="Of the live page [a free one].")
@click.option(
    "--out",
    type=click.Path(path_type=Path, file_okay=False),
    default=Path("."),
    help="Folder for scenarios saved [here].",
)
@json_option
def explore(
    spec: str | None,
    export: Path | None,
    motion: bool,
    notches: int | None,
    port: int,
    out: Path,
    as_json: bool,
) -> None:
    """Serve a page on this machine whose sliders simulate anew at every notch, or write one with every point computed."""
    from sim.answers import cube as answers
    from sim.answers import sliders
    from sim.show.files import folder as folders
    from sim.show.files.partial import words as partial_words

    if motion:
        return _play(spec, export, as_json)
    is_live = export is None and not as_json
    asked = sliders.sweep_of(spec, live=is_live)
    if notches is not None:
        asked = answers.thinned(asked, notches)
    if is_live:
        return _serve(asked, folders.check(out), port)
    if export is not None:
        folders.check(export.parent)
    made = answers.cube(asked, progress(as_json))
    if not any("values" in point for row in made["points"] for point in row):
        reason = made["points"][0][0]["reason"]
        raise InfeasibleError(f"no point of {made['name']} can be; the first: {reason}")
    if export is not None:
        from sim.show.pages.explorer import explorer_html

        folders.write(export.parent, {export.name: explorer_html(made)})
    if as_json:
        click.echo(folders.dump(made), nl=False)
    else:
        tell(f"Written: {export}")
    if part := partial_words(made):
        tell(f"note: it is partial: it holds {part}")
        raise KeyboardInterrupt


def _play(spec: str | None, export: Path | None, as_json: bool) -> None:
    """Record an all-to-all in motion and write its page."""
    from sim.answers import motion as answers
    from sim.scenario import settings as scenario_settings
    from sim.show.files import folder as folders
    from sim.show.pages.motion import motion_html

    if export is None and not as_json:
        raise InputError(Problem(None, "--motion", "no --export", "--export PAGE.html, or --json"))
    if export is not None:
        folders.check(export.parent)
    made = answers.motion(scenario_settings.read(spec or answers.DEFAULT), progress(as_json))
    if export is not None:
        folders.write(export.parent, {export.name: motion_html(made)})
    if as_json:
        click.echo(folders.dump(made), nl=False)
    else:
        tell(f"Written: {export}")


def _serve(sweep: Sweep, out: Path, port: int) -> None:
    from threading import Thread

    from sim.cli.live import HOST, LiveExplorer
    from sim.engine import fluid

    try:
        explorer = LiveExplorer(sweep, out, port)
    except OSError as error:
        wanted = "a port that is free, or none for any that is"
        problem = f"{port}: {(error.strerror or str(error)).lower()}"
        raise InputError(Problem(None, "--port", problem, wanted)) from None
    tell(f"{explorer.url}\nOn {HOST} alone; Ctrl-C ends it.")
    Thread(target=fluid.prepare, daemon=True).start()  # a notch is many small problems
    try:
        explorer.server.serve_forever()
    except KeyboardInterrupt:
        tell("ended")
    finally:
        explorer.end_exact()
        explorer.server.server_close()
