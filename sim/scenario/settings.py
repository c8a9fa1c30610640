"""Scenarios as documents: read, with `--set` settings laid over them, split into variants."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from pydantic import BaseModel

from sim import documents, limits, metrics
from sim.documents import Document
from sim.errors import InputError, Mark, Problem, nearest
from sim.scenario import specification
from sim.workload import model_files


def read(spec: str | Path | Mapping[str, Any] | BaseModel, settings: Sequence[str] = ()) -> Document:
    """Read a scenario (path, shipped name, tree or specification) as a document, with settings `key.path=value` laid over it.

    InputError where there is no such file, it holds a sweep or ladder, or a setting has problems.
    """
    if isinstance(spec, BaseModel):
        spec = spec.model_dump(mode="json", exclude_unset=True, by_alias=True)
    if isinstance(spec, Mapping):
        document = Document(dict(spec), "scenario").copy()
    else:
        document = documents.load(documents.find(str(spec), "scenarios", "scenario"))
        for key, command in (
            ("axes", "sweep"),
            ("rungs", "ladder"),
            ("exchange", "ladder"),
            ("search", "ladder"),
        ):
            if key in document.tree and "workload" not in document.tree:
                wanted = f"a scenario; it goes with `moesim {command} {spec}`"
                raise InputError(Problem(Mark(document.name), "", f"a {command}", wanted))
    apply(document, settings)
    return document


def with_whole_paths(tree: Any, folder: Path | None) -> Any:
    """Write files that a scenario's tree names relative to `folder` with their whole paths, so that it runs from anywhere."""
    if isinstance(tree, list):
        return [with_whole_paths(item, folder) for item in tree]
    if not isinstance(tree, dict):
        return tree
    whole = {key: with_whole_paths(value, folder) for key, value in tree.items()}
    for key, value in whole.items():
        names_file = folder is not None and key.rpartition(".")[2] == "file" and isinstance(value, str)
        if names_file and folder is not None and (folder / value).is_file():
            whole[key] = str(folder / value)
    return whole


_UNTITLED = (
    "expect",
    "title",
    "name",
    "variants",
    "seed",
)  # settings that a title leaves out: they make no other scenario


_TITLED = 3  # settings that a title has room for
_SPELT_OUT = 60  # characters of a setting that a title spells out


def apply(document: Document, settings: Iterable[str]) -> None:
    """Lay `key.path=value` settings over a document; they win over variants too, and the title names them.

    InputError where a setting is no `key.path=value`.
    """
    settings = tuple(settings)
    for setting in settings:
        key, equals, text = setting.partition("=")
        mark = Mark(f"--set {setting}")
        if not equals or not key.strip():
            raise InputError(Problem(mark, "", f"'{setting}'", "key.path=value"))
        value = documents.parse_scalar(text, str(mark))
        path = documents.split(key.strip())
        put(document, path, value, mark)
        declared = document.get(("variants",))
        for name, overrides in declared.items() if isinstance(declared, dict) else ():
            if isinstance(overrides, dict):
                _win_over(document, ("variants", name), overrides, path, value, mark)
    document.settings += settings
    changed = [
        setting if len(setting) <= _SPELT_OUT else f"another {setting.partition('=')[0].strip()}"
        for setting in settings
        if setting.partition("=")[0].partition(".")[0].strip() not in _UNTITLED
    ]
    if changed:
        named = ", ".join(changed[:_TITLED]) + (
            f" and {len(changed) - _TITLED} more" if len(changed) > _TITLED else ""
        )
        title = document.get(("title",)) or document.get(("name",))
        document.put(("title",), f"{title}, with {named}", Mark("--set"))
        if asked := document.get(("question", "ask")):
            document.put(("question", "ask"), f"{str(asked).removesuffix('?')}, with {named}?", Mark("--set"))


def _win_over(
    document: Document,
    at: documents.Path_,
    overrides: dict[str, Any],
    path: documents.Path_,
    value: Any,
    mark: Mark,
) -> None:
    """Make a setting of `path` win over a variant's: drop what lies below it, write into what lies above it."""
    for dotted in list(overrides):
        theirs = documents.split(dotted)
        if theirs[: len(path)] == path:
            del overrides[dotted]
        elif path[: len(theirs)] == theirs and isinstance(overrides[dotted], dict):
            document.put((*at, dotted, *path[len(theirs) :]), value, mark)


def put(document: Document, path: documents.Path_, value: Any, mark: Mark) -> None:
    """Like `Document.put`, with the scenario's branches in view.

    A key below `cluster.override` stays dotted, so that a mapping there is not replaced by chance; a key below a model that
    is named takes the model's file as the mapping that it changes: `model.top_k`.
    """
    if path[:1] == ("model",) and len(path) > 1:
        unfold_model(document)
    if path[:2] == ("cluster", "override") and len(path) > 3:
        path = (*path[:2], documents.dotted(path[2:]))
    document.put(path, value, mark)


def unfold_model(document: Document) -> None:
    """Put the content of its file in the place of a model's name; leaves a document without one as it is."""
    named, at = document.get(("model",)), document.mark(("model",))
    if isinstance(named, str):
        file = model_files.model_document(named, near=document.folder, mark=at)
        document.put(("model",), file.tree, at)
    elif isinstance(named, dict) and "huggingface" in named:
        document.put(("model",), model_files.published(document.branch(("model",))).tree, at)


def kinds(document: Document, overrides: Iterable[Mapping[documents.Path_, Any]] = ()) -> set[str]:
    """Kinds of workload that a scenario's document names, as it is and under any of some overrides by path."""
    named = [document.get(("workload", "kind"))]
    for layer in overrides:
        whole = layer.get(("workload",))
        named += [layer.get(("workload", "kind")), whole.get("kind") if isinstance(whole, dict) else None]
    return {kind for kind in named if isinstance(kind, str)}


def variants(document: Document) -> dict[str, Document]:
    """Split a scenario into the documents of its variants, by name; it alone, by its own name, where it has none.

    InputError with all problems of a document that has variants.
    """
    declared = document.get(("variants",))
    if not declared:
        return {str(document.get(("name",)) or "scenario"): document}
    specification.check(document)
    limits.require(len(declared), limits.VARIANTS, "variants")
    split = {}
    alike = document.copy()
    for key in ("variants", "question"):
        alike.put((key,), None, document.mark((key,)))  # with the marks below it
        del alike.tree[key]
    for name, overrides in declared.items():
        variant = alike.copy()
        variant.tree["name"] = f"{document.get(('name',))}-{name}"
        for dotted, value in overrides.items():
            mark = document.mark(("variants", name, dotted), key=True)
            put(variant, documents.split(dotted), value, mark)
        split[name] = variant
    problems = list(_question_problems(document, split))
    if problems:
        raise InputError(problems)
    return split


def _question_problems(document: Document, split: Mapping[str, Document]) -> Iterator[Problem]:
    """Yield a problem for each key of a question that its variants do not answer."""
    question = document.get(("question",))
    if not question or {"compare", "metric", "over"}.isdisjoint(question):
        return
    for name in ("compare", "metric"):
        if not question.get(name):
            yield document.problem(
                ("question",), f"no '{name}'", "both 'compare' and 'metric', or 'ask' alone"
            )
            return
    keys = {documents.split(key) for overrides in document.get(("variants",)).values() for key in overrides}
    for name in ("compare", "over"):
        path = documents.split(question[name]) if question.get(name) else ()
        values = {str(variant.get(path)) for variant in split.values()} if path else {"", "-"}
        derived = name == "over" and path[:1] == ("layout",)  # sizes follow from the cluster
        if len(values) < 2 and not derived:
            known = sorted(map(documents.dotted, keys))
            wanted = f"a key that the variants set differently, such as {', '.join(known[:3])}"
            at = ("question", name)
            yield document.problem(at, f"'{question[name]}'", wanted, nearest(str(question[name]), known))
    kinds = {str(variant.get(("workload", "kind"))) for variant in split.values()}
    reported = metrics.reported(kinds)
    if reported is not None and metrics.lacks(kinds, question["metric"]):
        near = nearest(str(question["metric"]), reported)
        yield document.problem(
            ("question", "metric"), f"'{question['metric']}'", "a metric of its variants", near
        )
