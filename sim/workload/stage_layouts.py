"""Layouts of pipeline stages as Megatron-LM writes them: `Et|(tt|)*30mL`.

`E` embedding, `t` layer, `m` module of multi-token prediction, `L` loss with the output head; `|` ends a stage, and `(...)*n`
and `t*n` are written out n times. Stages are counted through all chunks of the ranks: stage i is chunk i // ranks of rank i % ranks.

Reference: Megatron-LM, megatron/core/transformer/pipeline_parallel_layer_layout.py (`--pipeline-model-parallel-layout`).
"""

from __future__ import annotations

import re
from dataclasses import dataclass

from sim.errors import InputError, Problem

MOST_BLOCKS = 100_000
_TOKEN = re.compile(r"\(|[EtmL|)](?:\*(\d+))?|\s+")


@dataclass(frozen=True, slots=True)
class StageBlocks:
    """Layers and modules of multi-token prediction of one stage [count]."""

    num_layers: int
    num_mtp: int


def read_stage_layout(text: str, num_stages: int, num_layers: int, num_mtp: int) -> tuple[StageBlocks, ...]:
    """Read a layout, and check that it holds a model.

    Parameters
    ----------
    text : str
    num_stages, num_layers, num_mtp : int [count]
        Stages of the schedule; layers and modules of multi-token prediction of the model.

    Returns
    -------
    tuple of StageBlocks, [num_stages]

    Raises
    ------
    InputError
        For a text that is no layout, and for one of another model or schedule.

    Examples
    --------
    >>> [blocks.num_layers for blocks in read_stage_layout("Ett|(t|)*2tmL", 4, 5, 1)]
    [2, 1, 1, 1]
    """
    written = _written_out(text)
    if not re.fullmatch("Et*m*L", written.replace("|", "")):
        raise _problem(text, "one E, then every t, then every m, then one L")
    parts = written.split("|")
    counts = {"stages": len(parts), "t": written.count("t"), "m": written.count("m")}
    needed = {"stages": num_stages, "t": num_layers, "m": num_mtp}
    if counts != needed or "E" not in parts[0] or "L" not in parts[-1]:
        got, wanted = (", ".join(f"{n} {name}" for name, n in each.items()) for each in (counts, needed))
        raise _problem(text, f"{wanted}, with E in the first and L in the last stage", f" with {got}")
    return tuple(StageBlocks(part.count("t"), part.count("m")) for part in parts)


def _written_out(text: str) -> str:
    """The text without brackets and spaces."""
    open_: list[str] = [""]
    place = 0
    while place < len(text):
        token = _TOKEN.match(text, place)
        if token is None:
            raise _problem(text, f"E, t, t*n, m, L, |, ( and )*n, not '{text[place]}'")
        place = token.end()
        letter, times = token.group()[0], int(token.group(1) or 1)
        if letter == ")" and len(open_) == 1:
            raise _problem(text, "a ( before each )")
        if letter == "(":
            open_.append("")
        elif not letter.isspace():
            inner = open_.pop() if letter == ")" else letter
            if len(inner) * times > MOST_BLOCKS:
                raise _problem(text, f"at most {MOST_BLOCKS:,} blocks")
            open_[-1] += inner * times
    if len(open_) > 1:
        raise _problem(text, "a ) after each (")
    return open_[0]


def _problem(text: str, wanted: str, with_what: str = "") -> InputError:
    return InputError(Problem(None, "stages", f"'{text}'{with_what}", wanted))
