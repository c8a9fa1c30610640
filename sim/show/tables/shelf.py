"""Shipped things (hardware, models, scenarios, sweeps, ladders, kernels, software) as `moesim show` prints them, and the schemas of their files."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import asdict
from functools import partial
from importlib import import_module
from typing import TYPE_CHECKING, Any

from sim import documents

if TYPE_CHECKING:
    from rich.console import Console

    from sim.cluster.parameters import SourcedFile
from sim.scenario import settings as scenario_settings

FOLDERS = {
    "hardware": "hardware",
    "model": "scenarios/models",
    "scenario": "scenarios",
    "sweep": "scenarios/sweeps",
    "ladder": "scenarios/ladders",
    "kernel": "hardware/kernels",
    "software": "hardware/software",
}
"""Kind of thing -> the folder that ships it."""

Shown = Any  # the document, where no console was given


def hardware(name: str, console: Console | None) -> Shown:
    """A hardware profile beside the H100's."""
    from sim.cluster.datasheet import describe
    from sim.cluster.hardware import load_hardware
    from sim.runs.validated import compared_on, error_sentence, errors_on
    from sim.show.tables import console as tables

    profile = load_hardware(name)
    sheet = describe(profile, load_hardware("h100") if profile.name != "h100" else None)
    compared = compared_on(profile.name)
    if console is None:
        return asdict(sheet) | {"compared": compared, "errors": errors_on(profile.name)}
    return tables.print_sheet(sheet, compared, error_sentence(profile.name), console)


def model(name: str, console: Console | None) -> Shown:
    """A model and what follows from its shape."""
    from sim.show.tables import console as tables
    from sim.workload import model as models

    shape = models.load_model(name)
    counted, kv_bytes = models.parameters(shape), models.kv_bytes_per_token(shape)
    if console is None:
        return {"model": asdict(shape), "parameters": asdict(counted), "kv_bytes_per_token": kv_bytes}
    return tables.print_model(shape, counted, kv_bytes, console)


def scenario(name: str, console: Console | None) -> Shown:
    """A scenario as it is written; as a document, resolved."""
    from sim.scenario import resolve as reading

    path = documents.find(name, "scenarios", "scenario")
    if console is None:
        variants = scenario_settings.variants(scenario_settings.read(path))
        resolved = {key: reading.resolve(variant).document for key, variant in variants.items()}
        return resolved if len(resolved) > 1 else next(iter(resolved.values()))
    return console.file.write(path.read_text(encoding="utf-8"))


def study(what: str, name: str, console: Console | None) -> Shown:
    """A sweep or ladder as it is written; as a document, as it is read."""
    path = documents.find(name, FOLDERS[what], what)
    if console is None:
        return documents.load(path).tree
    return console.file.write(path.read_text(encoding="utf-8"))


def kernel(name: str, console: Console | None) -> Shown:
    """The figures of a kernel generation, with grade and source."""
    from sim.cluster.kernels import load_kernel

    file = load_kernel(name)
    return _figures(f"{file.title} (generation {file.name} of {file.kind})", file, console)


def software(name: str, console: Console | None) -> Shown:
    """The figures of a software profile, with grade and source."""
    from sim.cluster.software import load_software

    file = load_software(name)
    return _figures(f"{file.title} (graphs: {file.graphs})", file, console)


def _figures(head: str, file: SourcedFile, console: Console | None) -> Shown:
    if console is None:
        return [asdict(row) for row in file.parameters]
    lines = [f"  {row.path:42} {row.shown:>12}  {row.grade:9} {row.citation}" for row in file.parameters]
    return console.file.write("\n".join([head, *lines]) + "\n")


SHOW: dict[str, Callable[[str, Console | None], Shown]] = {
    "hardware": hardware,
    "model": model,
    "scenario": scenario,
    "sweep": partial(study, "sweep"),
    "ladder": partial(study, "ladder"),
    "kernel": kernel,
    "software": software,
}
"""Kind of thing -> what shows one: on a console, or as a document."""


def schema(what: str) -> Any:
    """The pydantic model of a kind of file: one of `SCHEMAS`."""
    module, name = SCHEMAS[what]
    return getattr(import_module(module), name)


SCHEMAS = {
    "scenario": ("sim.scenario.schema", "SCENARIO"),
    "sweep": ("sim.sweeps.spec", "SweepSpec"),
    "ladder": ("sim.ladders.spec", "LadderSpec"),
    "hardware": ("sim.cluster.hardware", "Hardware"),
    "model": ("sim.workload.model", "Model"),
    "kernel": ("sim.cluster.kernels", "Kernel"),
    "software": ("sim.cluster.software", "Software"),
    "size": ("sim.answers.size_document", "SizesSpec"),
    "explain": ("sim.answers.explain_document", "ExplanationSpec"),
    "diff": ("sim.answers.diff_document", "DifferenceSpec"),
    "explore": ("sim.answers.cube_document", "CubeSpec"),
}
"""Kind of file -> the module and name of its pydantic model."""
