"""Commands that answer a question: why a run takes so long, what two results differ in, how many GPUs a model needs."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click

from sim.cli.shared import console_of, json_option, progress
from sim.errors import InfeasibleError, InputError, Mark, Problem, nearest

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
    from sim.show.tables import asked as tables

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
    from sim.show.tables import asked as tables

    results = (_run(first, variant), _run(second, variant))
    document = answers.diff(*results, (str(first), str(second)), progress(as_json))
    if as_json:
        click.echo(folders.dump(document), nl=False)
    else:
        tables.print_difference(document, console_of())


@click.command(short_help="Find the fewest GPUs that serve a model.")
@click.argument("model")
@click.option("--hardware", default="h800,h100,h20", show_default=True, help="Machines, comma-separated.")
@click.option("--context", default="32K", show_default=True, help="Tokens of each user; K is 1,024.")
@click.option("--users", type=click.IntRange(1, 1_000_000), default=1, show_default=True, help="At once.")
@click.option("--tpot", metavar="TIME", help="Longest time per output token: '50 ms' [no limit].")
@json_option
def size(model: str, hardware: str, context: str, users: int, tpot: str | None, as_json: bool) -> None:
    """Find the fewest GPUs of each machine that hold a model and decode for some users at once, and how."""
    from sim.answers import size as answers
    from sim.show.files import folder as folders
    from sim.show.tables import asked as tables

    names = list(dict.fromkeys(name.strip() for name in hardware.split(",") if name.strip()))
    if not names:
        raise InputError(Problem(None, "--hardware", f"'{hardware}'", "machines, like h800,h20"))
    limit = answers.seconds_of(tpot) if tpot is not None else None
    asked = answers.Asked(answers.tokens_of(context), users, limit)
    document = answers.size(model, names, asked, progress(as_json))
    if as_json:
        click.echo(folders.dump(document), nl=False)
    else:
        tables.print_sizes(document, console_of())
    if not any(machine["gpus"] for machine in document["machines"].values()):
        raise InfeasibleError(f"no machine that was asked about serves {document['title']} so")


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
    from sim.show.kinds import kind_of, runs_in

    result = folders.read_each(path)[0]
    if (kind := kind_of(result)) != "run":
        raise InputError(
            Problem(Mark(str(path)), "", f"the document of a {kind}", "the result of `moesim run`")
        )
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
