"""Commands that answer a question about a result: why it takes so long, and what two results differ in."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click

from sim.cli.shared import console_of, json_option, progress
from sim.errors import InputError, Problem, nearest

_variant_option = click.option(
    "--variant", metavar="NAME", help="The variant that is asked about [the first]."
)


@click.command(short_help="Take a time apart, and find what would give a measured one.")
@click.argument("asked", metavar="RESULT|SCENARIO")
@click.option("--set", "settings", multiple=True, metavar="KEY=VALUE", help="Override a key of a scenario.")
@click.option(
    "--measured",
    multiple=True,
    metavar="[METRIC=]VALUE",
    help="A value that was measured: 43 GB/s, combine=2.5 ms. Several count together.",
)
@_variant_option
@json_option
def explain(
    asked: str, settings: tuple[str, ...], measured: tuple[str, ...], variant: str | None, as_json: bool
) -> None:
    """Take the time of a run apart; simulate which change of machine or software would give a measured value."""
    from sim.answers import explain as answers
    from sim.show.files import folder as folders
    from sim.show.tables import console as tables

    document = answers.explain(_scenario(asked, settings, variant), measured, progress(as_json))
    if as_json:
        click.echo(folders.dump(document), nl=False)
    else:
        tables.print_explanation(document, console_of())


@click.command(short_help="Tell what two results differ in, and which setting did it.")
@click.argument("first", type=click.Path(path_type=Path))
@click.argument("second", type=click.Path(path_type=Path))
@_variant_option
@json_option
def diff(first: Path, second: Path, variant: str | None, as_json: bool) -> None:
    """Compare two results: settings and metrics that differ, and what each setting moves alone."""
    from sim.answers import diff as answers
    from sim.show.files import folder as folders
    from sim.show.tables import console as tables

    document = answers.diff(
        _run(first, variant), _run(second, variant), (str(first), str(second)), progress(as_json)
    )
    if as_json:
        click.echo(folders.dump(document), nl=False)
    else:
        tables.print_difference(document, console_of())


def _scenario(asked: str, settings: tuple[str, ...], variant: str | None) -> Any:
    """Return the scenario of a result's path or of a scenario, one of its variants, with settings laid over it."""
    from sim.scenario import settings as scenario_settings

    path = Path(asked)
    if path.is_dir() or path.suffix == ".json":
        return scenario_settings.read(_run(path, variant)["scenario"], settings)
    document = scenario_settings.read(asked, settings)
    if not document.get(("variants",)):
        _chosen(variant, [""], asked)
        return document
    variants = scenario_settings.variants(document)
    return variants[_chosen(variant, list(variants), asked)]


def _run(path: Path, variant: str | None) -> Any:
    """Return one run of a result's file or folder."""
    from sim.show.files import folder as folders
    from sim.show.kinds import runs_in

    result = folders.read_each(path)[0]
    with folders.blame(path):
        runs = {name: run for name, run in runs_in(result).items() if run["scenario"] and run["metrics"]}
    return runs[_chosen(variant, list(runs), str(path))]


def _chosen(variant: str | None, names: list[str], where: str) -> str:
    if variant is not None and variant not in names:
        wanted = f"one of: {', '.join(names)}" if names != [""] else "nothing: there are no variants"
        raise InputError(
            Problem(None, "--variant", f"'{variant}' of {where}", wanted, nearest(variant, names))
        )
    return variant if variant is not None else names[0]
