"""Recorded loads of experts, layer by layer, in the forms that engines and balancers write.

A recording is a table [layers, experts] or [steps, layers, experts], whose steps are added up; its layers never are: each has
busy experts of its own, and the sum of all is nearly even where no layer is. Layers without any load are dense ones and are left
out. A file of PyTorch is a pickle, which runs whatever it holds, and is refused with the line that makes an npy of it.

References: `logical_count` of SGLang's expert distribution recorder; the load window of vLLM's EPLB; the input of
github.com/deepseek-ai/EPLB.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np

from sim import files, limits
from sim.errors import InputError, Mark, Problem
from sim.workload.recordings import Table, read_table, shape_of

_NAMES = {
    "step": ("step", "step_id", "step_idx", "iteration", "forward_pass_id"),
    "layer": ("layer", "layer_id", "layer_idx", "moe_layer", "moe_layer_id"),
    "expert": ("expert", "expert_id", "expert_idx", "logical_expert", "logical_expert_id"),
    "load": ("load", "count", "tokens", "num_tokens", "token_count", "weight", "logical_count"),
}
"""Columns of a long table, by what they are: of each the names that are known."""
_KEYS = ("logical_count", "expert_load_window", "expert_load", "loads", "load", "weight", "count")
"""Keys of a JSON mapping whose value may be the table."""
_PICKLES = (".pt", ".pth", ".pkl", ".pickle", ".bin")
_WANTED = (
    "a table [layers, experts] or [steps, layers, experts], one number of 0 or more for each expert; "
    "or the columns expert,load or layer,expert,load"
)


def load_loads(path: str | Path, where: Mark | None = None, key: str = "") -> tuple[tuple[float, ...], ...]:
    """Read a relative load of each expert in each layer.

    Parameters
    ----------
    path : str or Path
        A CSV with a row a layer, with the columns ``expert,load`` or ``layer,expert,load`` (or other names of these), or a single
        column; an npy or npz with one array; JSON with lists.
    where : Mark, optional
        Place in a document that names the file.
    key : str
        Key of that place.

    Returns
    -------
    tuple of tuples of float, [num_layers, num_experts]

    Raises
    ------
    InputError
        For cells that are no number of 0 or more, for experts that are left out or given twice, and for a pickle.
    """
    file = Path(path)
    if file.suffix in _PICKLES:
        raise InputError(_pickle(file, where, key))
    if file.suffix == ".json":
        table, names = _json(file, where, key), list[str]()
    else:
        table, names = read_table(file, f"a file with {_WANTED}", where, key, whole=False)
    kinds = [_kind(name) for name in names]
    if set(kinds) >= {"expert", "load"}:
        table = _from_long(file, table, kinds)
    elif kinds[:1] == ["layer"]:
        table = table[:, 1:]
    elif table.ndim == 2 and table.shape[1] == 1:
        table = table.T
    if table.ndim == 3:
        table = table.sum(axis=0)
    table = np.atleast_2d(table)
    if table.ndim == 2:
        table = table[table.sum(axis=1) > 0]
    if table.ndim != 2 or table.size == 0:
        raise InputError(Problem(Mark(str(path)), "loads", shape_of(table), _WANTED))
    if table.size > limits.LOADS:
        got = f"{shape_of(table)}, more than {limits.LOADS:,} numbers"
        raise InputError(Problem(Mark(str(path)), "loads", got, "fewer layers or experts"))
    return tuple(map(tuple, table.tolist()))


def _kind(name: str) -> str:
    plain = name.strip().lower().replace(" ", "_")
    return next((kind for kind, names in _NAMES.items() if plain in names), "")


def _from_long(path: Path, table: Table, kinds: Sequence[str]) -> Table:
    """[steps, layers, experts] of a table with a row for each of them."""
    axes = [
        np.unique(table[:, kinds.index(kind)], return_inverse=True)
        if kind in kinds
        else (np.zeros(1), np.zeros(len(table), np.int64))
        for kind in ("step", "layer", "expert")
    ]
    shape = tuple(len(values) for values, _ in axes)
    experts = axes[2][0]
    place = np.ravel_multi_index(tuple(which for _, which in axes), shape)
    if (
        len(place) != np.prod(shape)
        or len(np.unique(place)) != len(place)
        or not np.array_equal(experts, np.arange(len(experts)))
    ):
        most = -(-len(place) // (shape[0] * shape[1])) - 1
        got, wanted = "experts left out or given twice", f"each of the experts 0 to {most} once"
        wanted += " in each layer" if "layer" in kinds else ""
        raise InputError(Problem(Mark(str(path)), "expert", got, wanted))
    dense = np.empty(len(place))
    dense[place] = table[:, kinds.index("load")]
    return dense.reshape(shape)


def _json(path: Path, where: Mark | None, key: str) -> Table:
    """Read nested lists, or a mapping that has them at one of `_KEYS`; entries are counted before any is decoded."""
    text = files.text(path, f"JSON with {_WANTED}", where, key, limits.CSV_BYTES)
    entries = text.count(",") + text.count("[") + text.count("{")
    problem = Problem(Mark(str(path)), "loads", f"more than {limits.CSV_CELLS:,} entries", _WANTED)
    if entries > limits.CSV_CELLS:
        raise InputError(problem)
    try:
        value = json.loads(text)
    except (ValueError, RecursionError):
        raise InputError(replace(problem, got="text that is not JSON")) from None
    if isinstance(value, dict):
        value = next((value[name] for name in _KEYS if name in value), None)
    try:
        table = np.array(value, dtype=np.float64)
        if np.all((table >= 0) & (table < np.inf)):
            return table
    except (ValueError, TypeError):
        pass
    got = "no lists of equal lengths with numbers of 0 or more"
    raise InputError(replace(problem, got=got, wanted=f"{_WANTED}; in a mapping at {' or '.join(_KEYS)}"))


def _pickle(file: Path, where: Mark | None, key: str) -> Problem:
    made = file.with_suffix(".npy")
    line = (
        f"import numpy, torch; d = torch.load('{file.name}', weights_only=True); "
        f"numpy.save('{made.name}', (d['logical_count'] if isinstance(d, dict) else d).cpu().numpy())"
    )
    got = f"'{file}', a pickle: reading one runs what it holds"
    return Problem(where or Mark(str(file)), key, got, f'an npy of it: python -c "{line}"', made.name)
