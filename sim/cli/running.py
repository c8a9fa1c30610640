"""Commands that run a scenario, compare with published values, or time a trace."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import nullcontext
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from sim.cli.shared import (
    Missed,
    console_of,
    figure_notes,
    folder_of,
    json_option,
    out_option,
    progress,
    tell,
)
from sim.errors import InputError, Mark, Problem

if TYPE_CHECKING:
    from sim.runs.kinds import Result


@click.command(short_help="Run scenarios; write their results and reports.")
@click.argument("scenarios", nargs=-1, required=True)
@click.option(
    "--set", "settings", multiple=True, metavar="KEY=VALUE", help="Override a key: cluster.nodes=4."
)
@out_option
@json_option
@click.option("--no-report", is_flag=True, help="Write result.json only.")
@click.option(
    "--range", "ranged", is_flag=True, help="Move each assumed parameter to its stated ends; print the span."
)
def run(
    scenarios: Sequence[str],
    settings: tuple[str, ...],
    out: Path | None,
    as_json: bool,
    no_report: bool,
    ranged: bool,
) -> None:
    """Run scenarios (paths or shipped names); write result.json, report.html and trace.json.gz."""
    from sim.runs import result as run_results
    from sim.runs import run as study
    from sim.scenario import resolve as reading
    from sim.scenario import settings as scenario_settings
    from sim.show.files import folder as folders
    from sim.show.files.partial import Keeper
    from sim.show.tables import console as tables

    documents: dict[str, Any] = {}
    for spec in scenarios:  # every problem of every file before any of them runs
        document = scenario_settings.read(spec, settings)
        for variant in scenario_settings.variants(document).values():
            reading.resolve(variant)
        name = str(document.get(("name",)))
        if name in documents:
            raise InputError(
                Problem(Mark(str(spec)), "name", f"'{name}' a second time", "scenarios of different names")
            )
        documents[name] = document
    results: dict[str, Result] = {}
    say = progress(as_json)
    places = {name: folder_of(out, name, several=len(documents) > 1) for name in documents}
    for name, document in documents.items():
        with folders.occupied(places[name], tell):
            with Keeper(places[name], "result.json", tell) as keep:
                result = results[name] = study.run_document(document, say, keep)
                if ranged:
                    from sim.answers import span

                    span.add(document, result, say)
            with figure_notes():
                written = folders.save(
                    places[name],
                    result,
                    with_report=not no_report,
                    meanwhile=None if as_json else partial(_print_run, result, ranged),
                )
        if not as_json:
            tables.print_written(written, console_of())
    if as_json:
        printed = {name: folders.without_flows(result) for name, result in results.items()}
        several = {"schema": "moesim.results/1", "results": printed}
        click.echo(folders.dump(several if len(printed) > 1 else next(iter(printed.values()))), nl=False)
    for name, document in documents.items():
        run_results.check_expected(document, results[name])
    missed = [line for result in results.values() for line in run_results.missed(result)]
    if missed:
        raise Missed("missed expectations:\n" + "\n".join(missed))


def _print_run(result: Result, ranged: bool) -> None:
    """Print the tables of a run, and what assumed parameters make of it where that was asked."""
    from sim.show.tables import console as tables

    tables.print_result(result, console_of())
    if ranged:
        from sim.show.tables.asked import print_spans

        print_spans(result, console_of())


@click.command(short_help="Compare with published and measured figures.")
@click.option("--group", "groups", multiple=True, help="Only this group; may be given several times.")
@out_option
@json_option
def validate(groups: tuple[str, ...], out: Path | None, as_json: bool) -> None:
    """Compare with published measurements; exit 1 where a tolerance is missed."""
    from sim.show.files import folder as folders
    from sim.show.files.partial import Keeper
    from sim.show.tables import console as tables
    from sim.validation.validate import validate as compare

    if out is not None:
        folders.check(out)
    with folders.occupied(out, tell) if out is not None else nullcontext():
        with Keeper(out, "validation.json", tell) as keep:
            document = compare(groups or None, progress(as_json), keep)
        if out is not None:
            with figure_notes():
                folders.save(out, document)
    if as_json:
        click.echo(folders.dump(document), nl=False)
    else:
        tables.print_validation(document, console_of())
    missed = [name for name, group in document["groups"].items() if not group["ok"]]
    if missed:
        raise Missed(f"tolerance missed in: {', '.join(missed)}")


@click.command(short_help="Time the kernels of a PyTorch profiler trace.")
@click.argument("trace", type=click.Path(path_type=Path))
@click.option("--out", type=click.Path(path_type=Path), help="YAML file for the measured compute profile.")
def calibrate(trace: Path, out: Path | None) -> None:
    """Time the kernels of a PyTorch profiler trace; write a profile for 'compute: measured'."""
    from sim.calibration import calibrate as study
    from sim.calibration.profile import profile_text
    from sim.show.files import folder
    from sim.show.tables import calibrated
    from sim.show.tables import console as tables

    if out is not None:
        folder.check(out.parent)
    calibration = study.calibrate(trace, progress(False))
    text = profile_text(calibration, out.stem) if out is not None else ""
    console = console_of()
    for grid in calibrated.calibration_grids(calibration):
        tables.print_grid(grid, console)
    console.print()
    for sentence in calibrated.summary(calibration):
        console.print(sentence, highlight=False, markup=False)
    if out is not None:
        folder.write(out.parent, {out.name: text})
        use = f"Written: {out}; in a scenario: compute: measured, profile: {out}"
        console.print(use, style="dim", markup=False, highlight=False, soft_wrap=True)
