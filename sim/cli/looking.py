"""Commands that draw results, and read, show and write files; they run nothing."""

from __future__ import annotations

import difflib
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import click

from sim.cli.shared import console_of, json_option, out_option, tell
from sim.errors import InfeasibleError, InputError, Mark, Problem, nearest

_RUNNABLE = ("scenarios", "scenarios/sweeps", "scenarios/ladders")
"""Folders of what `run`, `sweep` and `ladder` take."""
_IDENTIFYING = (
    "cluster",
    "workload",
    "axes",
    "objectives",
    "rungs",
    "exchange",
    "search",
    "gpu",
    "attention",
    "hidden",
    "latency",
    "schema",
)
"""Keys by which the kind of a file is known."""
_ALIKE = 0.8  # of two keys, where neither is known to belong


@click.command(short_help="Draw one kind of figure of results.")
@click.argument("results", nargs=-1, type=click.Path(path_type=Path))
@click.option("--kind", help="What to draw; see --list.")
@click.option(
    "--format", "formats", default="html", show_default=True, help="Comma-separated: html,png,svg,pdf."
)
@click.option("--list", "list_kinds", is_flag=True, help="The kinds, a sentence each.")
@out_option
def plot(results: Sequence[Path], kind: str | None, formats: str, list_kinds: bool, out: Path | None) -> None:
    """Draw one kind of figure from result.json files; `h800 --kind roofline` needs no run."""
    from sim.show.files import folder as folders
    from sim.show.files import partial
    from sim.show.pages import images
    from sim.show.plots import kinds as plots

    if list_kinds:
        width = max(map(len, plots.KINDS))
        for name, (sentence, _) in plots.KINDS.items():
            click.echo(f"{name:{width}}  {sentence}")
        return
    if not results or kind is None:
        wanted = "RESULT... --kind KIND (kinds: moesim plot --list)"
        raise InputError(Problem(None, "plot", "no result" if not results else "no kind", wanted))
    asked = images.check_formats(word.strip() for word in formats.split(","))
    read = [(path, result) for path in results for result in folders.read_each(path)]
    plots.check_kind(kind)
    for path, result in read:
        if part := partial.words(result):
            tell(f"note: {path} is partial: it holds {part}")
    figures: dict[str, Any] = {}
    for number, (path, result) in enumerate(read, 1):
        with folders.blame(path):
            drawn = plots.pictures(kind, result)
        prefix = f"{result.get('name', 'validation')}-" if len(read) > 1 else ""
        if any(prefix + name in figures for name in drawn):  # of two runs of one scenario
            prefix += f"{number}-"
        figures |= {prefix + name: figure for name, figure in drawn.items()}
    folder = out or (results[0] if results[0].is_dir() else results[0].parent)
    for written in images.write(figures, folder, asked):
        click.echo(str(written))


@click.command()
@click.argument("files", nargs=-1, required=True)
def check(files: Sequence[str]) -> None:
    """Read and cross-check YAML files; run nothing."""
    problems: list[Problem] = []
    impossible: list[str] = []
    for file in files:
        try:
            kind = _check(file)
            click.echo(f"{file}: a valid {kind}", err=True)
        except InputError as error:
            problems += error.problems
        except InfeasibleError as error:
            impossible.append(f"{file}: {error}")
    if problems:
        raise InputError(problems)
    if impossible:
        raise InfeasibleError("\n".join(impossible))


def _check(file: str) -> str:
    """Check one file by what it holds; returns its kind."""
    from sim import documents

    path = documents.find(file, _RUNNABLE, "YAML", endings=(".yaml", ".yml", ".json"))
    if path.suffix == ".json":
        from sim.workload.model import load_model

        load_model(path)
        return "model"
    document = documents.load(path)
    tree = document.tree
    if "axes" in tree or "objectives" in tree:
        from sim.sweeps import file as sweep_file

        sweep_file.sweep_of(document)
        return "sweep"
    if {"rungs", "exchange", "search"} & tree.keys():
        from sim.ladders import run as ladder

        ladder.check(path)
        return "ladder"
    if "workload" in tree or "cluster" in tree:
        from sim.scenario import resolve as reading
        from sim.scenario import settings as scenario_settings

        variants = scenario_settings.variants(scenario_settings.read(path)).values()
        scenarios = [reading.resolve(variant) for variant in variants]
        if problems := [problem for scenario in scenarios for problem in reading.unreported(scenario)]:
            raise InputError(dict.fromkeys(problems))
        return "scenario"
    if str(tree.get("schema", "")).startswith("moesim.compute-profile/"):
        from sim.cost.measured import load_profile

        load_profile(path)
        return "measured compute profile"
    if "gpu" in tree:
        from sim.cluster.hardware import load_hardware

        unread = ", ".join(load_hardware(path).unread)
        return "hardware profile" + (f"; no kind of workload reads {unread}" if unread else "")
    if "attention" in tree or "hidden" in tree:
        from sim.workload.model import load_model

        load_model(path)
        return "model"
    if "latency" in tree:
        from sim.cluster.kernels import load_kernel

        load_kernel(path)
        return "kernel generation"
    if "launch" in tree and "cluster" not in tree:
        from sim.cluster.software import load_software

        load_software(path)
        return "software profile"
    wanted = (
        "a scenario (cluster, workload), a sweep (axes), a ladder (rungs), a hardware profile (gpu), a model (attention), "
        "a kernel generation (latency), a software profile (launch) or a measured compute profile (schema)"
    )
    for key in tree:
        if near := difflib.get_close_matches(key, _IDENTIFYING, 1, _ALIKE):
            raise InputError(document.problem((key,), f"the key '{key}'", wanted, near[0], key=True))
    raise InputError(
        Problem(Mark(str(path), 1, 1), "", f"the keys {', '.join(map(str, tree)) or 'none'}", wanted)
    )


@click.command(short_help="Show shipped hardware, models, scenarios and the like.")
@click.argument("what")
@click.argument("name", required=False)
@json_option
def show(what: str, name: str | None, as_json: bool) -> None:
    """Show shipped hardware, models, scenarios, sweeps, ladders, kernels or software: all names, or one whole."""
    from sim import documents
    from sim.show.files.folder import dump
    from sim.show.tables import shelf

    if what not in shelf.SHOW:
        wanted = f"one of: {', '.join(shelf.SHOW)}"
        raise InputError(Problem(None, "show", f"'{what}'", wanted, nearest(what, shelf.SHOW)))
    if name is None:
        names = list(documents.shipped(shelf.FOLDERS[what]))
        click.echo(dump(names) if as_json else "\n".join(names) + "\n", nl=False)
        return
    shown = shelf.SHOW[what](name, None if as_json else console_of(stderr=False))
    if as_json:
        click.echo(dump(shown), nl=False)


@click.command(short_help="Print the JSON Schema of a kind of file, for editors.")
@click.argument("what")
def schema(what: str) -> None:
    """Print the JSON Schema of scenario, sweep, ladder, hardware, model, kernel or software files, or of what
    `size`, `explain`, `diff` and `explore` print as JSON.
    """
    from sim.show.files.folder import dump
    from sim.show.tables import shelf

    if what not in shelf.SCHEMAS:
        wanted, near = f"one of: {', '.join(shelf.SCHEMAS)}", nearest(what, shelf.SCHEMAS)
        raise InputError(Problem(None, "schema", f"'{what}'", wanted, near))
    from sim.descriptions import json_schema

    click.echo(dump(json_schema(shelf.schema(what))), nl=False)


@click.command(short_help="Write an editable file that starts from a shipped one.")
@click.argument("name")
@click.option(
    "--from",
    "template",
    default="h800-vs-h100",
    show_default=True,
    help="Shipped scenario, sweep, ladder, model, hardware, kernel or software to start from.",
)
def new(name: str, template: str) -> None:
    """Write NAME.yaml here, an editable scenario (or sweep, ladder, model, GPU, kernel or software), with the CSV files it names."""
    import re

    from sim import documents
    from sim.cluster.kernels import DEFAULTS
    from sim.files import text as text_of
    from sim.show.files import folder

    stem = name.removesuffix(".yaml")
    if not re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9._-]{0,79}", stem):
        wanted = "a name of letters, digits, '.', '_' and '-', at most 80"
        raise InputError(Problem(None, "new", f"'{name}'", wanted))
    target = Path(f"{stem}.yaml")
    if target.exists():
        raise InputError(Problem(Mark(str(target)), "", "a file that is already there", "a new name"))
    folders = (*_RUNNABLE, "scenarios/models", "hardware", "hardware/kernels", "hardware/software")
    source = documents.find(template, folders, "YAML", aliases=DEFAULTS)
    text = text_of(source, "a YAML file")
    named = [
        source.parent / name for name in re.findall(r"\bfile: ([\w.-]+\.(?:csv|jsonl|json|npy))\b", text)
    ]
    files = {
        file.name: text_of(file, "a CSV file that the template names")
        for file in named
        if file.exists() and not Path(file.name).exists()
    }
    folder.write(Path(), {**files, target.name: re.sub(r"(?m)^name:.*$", f"name: {stem}", text, count=1)})
    commands = {"sweeps": "moesim sweep", "ladders": "moesim ladder", "scenarios": "moesim run"}
    command = commands.get(source.parent.name)
    use = f"{command} {target}" if command else f"name it in a scenario, '{target}'"
    click.echo(f"{target}: edit it, then: {use}", err=True)


@click.command(
    "import",
    short_help="Write a config.json as a model file, a node's listing as a node.",
)
@click.argument("file")
@click.option("--out", type=click.Path(path_type=Path), help="YAML file to write [standard output].")
def import_(file: str, out: Path | None) -> None:
    """Read a model's config.json (keys as in Hugging Face transformers) and write it as a model file; or the output of
    `nvidia-smi topo -m`, or NCCL's topology XML, as a node for `hardware: {chip: NAME, node: FILE}`.

    What cannot be modelled is refused by its name and meaning.
    """
    from sim import documents
    from sim.cluster.node_listings import is_listing, node_tree
    from sim.show.files import folder
    from sim.units import show as shown
    from sim.workload import model as models
    from sim.workload.model_files import model_document

    if out is not None and out.exists():
        raise InputError(Problem(Mark(str(out)), "", "a file that is already there", "a new name"))
    if file.endswith(".json") and not Path(file).exists():
        raise InputError(Problem(Mark(file), "", "no such file or directory", "a publisher's config.json"))
    if is_listing(file):
        stem = (out or Path(file)).stem
        node = node_tree(file, stem)
        text = f"# {node['title']}.\n{documents.dumps(node)}"
        if out is None:
            click.echo(text, nl=False)
            return
        folder.write(out.parent, {out.name: text})
        click.echo(
            f"{out}: {node['title']}; name it in a scenario, 'hardware: {{chip: h100, node: {out}}}'",
            err=True,
        )
        return
    document = model_document(file)
    model = models.load_model(document)
    count, kept = models.parameters(model), models.kv_bytes_per_token(model)
    size = f"{shown(count.total, 'count')} parameters, {shown(count.active, 'count')} active, "
    size += f"{shown(kept, 'bytes')} of KV cache a token in BF16"
    name = {} if out is None else {"name": out.stem}
    text = f"# {size}.\n{documents.dumps({**document.tree, **name})}"
    if out is None:
        click.echo(text, nl=False)
        return
    folder.write(out.parent, {out.name: text})
    click.echo(f"{out}: {size}; name it in a scenario, 'model: {out}'", err=True)
