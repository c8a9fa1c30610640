"""Files of models: of this package, a user's own, and publishers' `config.json`."""

from __future__ import annotations

from pathlib import Path

from sim import documents
from sim.errors import InputError, Mark

FOLDER = "scenarios/models"
_ENDINGS = (".yaml", ".yml", ".json")


def model_document(
    file: str | Path, *, near: Path | None = None, mark: Mark | None = None
) -> documents.Document:
    """Read the file of a model, a shipped one or a path, unchecked; a publisher's `config.json` as a model file would say it.

    InputError for no such file, and with every key of a configuration that is missing, that contradicts
    another, or that cannot be modelled, and its meaning.
    """
    path = documents.find(str(file), FOLDER, "model", near=near, mark=mark, endings=_ENDINGS)
    return _configuration(path) if path.suffix == ".json" else documents.load(path)


def published(document: documents.Document, near: Path | None = None) -> documents.Document:
    """Read the publisher's configuration that a document `{huggingface: path}` names, from its own folder or `near`.

    InputError for further keys, no path, and as of `model_document`.
    """
    for key in document.tree:
        if key != "huggingface":
            raise InputError(document.problem((key,), f"the key '{key}'", "huggingface alone", key=True))
    file, mark = document.get(("huggingface",)), document.mark(("huggingface",))
    if not isinstance(file, str):
        raise InputError(document.problem(("huggingface",), file, "the path of a config.json"))
    path = documents.find(file, FOLDER, "model", near=near or document.folder, mark=mark, endings=_ENDINGS)
    return _configuration(path)


def _configuration(path: Path) -> documents.Document:
    from sim.workload import huggingface  # few models are read from one

    return huggingface.load(path)
