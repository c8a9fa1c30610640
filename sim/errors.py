"""Errors that a user causes: their exit codes, their parts and their wording.

A problem of the input names *where* it is, *what was got*, *what was wanted* and the *nearest right thing*. All problems of
a document travel in one `InputError`, so that a person mends a file once. Tracebacks are for our own bugs only.
"""

from __future__ import annotations

import difflib
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace

EXIT_DONE = 0
EXIT_MISSED = 1
EXIT_BAD_INPUT = 2
EXIT_INFEASIBLE = 3

_MOST_SHOWN = 200  # characters of what was got
_LONGEST_PLACE = 1000  # a path is there to be copied
_MOST_LISTED = 100  # problems of one message


@dataclass(frozen=True, slots=True)
class Mark:
    """A place in a document: file name, line and column, both counted from 1 (0 = unknown)."""

    file: str
    line: int = 0
    column: int = 0

    def __str__(self) -> str:
        known = [str(number) for number in (self.line, self.column) if number]
        return ":".join([shown(self.file, _LONGEST_PLACE), *known])


@dataclass(frozen=True, slots=True)
class Problem:
    """One thing that is wrong in the input."""

    where: Mark | None
    key: str
    got: str
    wanted: str
    nearest: str | None = None

    def moved(self, places: Mapping[str, str]) -> Problem:
        """The same where a document is a part of another: the longest start of the key that has a place is written as that."""
        steps = self.key.split(".")
        for end in range(len(steps), 0, -1):
            if (start := ".".join(steps[:end])) in places:
                return replace(self, key=".".join([places[start], *steps[end:]]))
        return self

    def __str__(self) -> str:
        place = f"{self.where}: " if self.where else ""
        key = f"{shown(self.key)}: " if self.key else ""
        hint = f"; did you mean {shown(self.nearest)}?" if self.nearest else ""
        return f"{place}{key}got {shown(self.got)}; wanted {printable(self.wanted)}{hint}"


class MoesimError(Exception):
    """Base of errors that a user sees as a message, without a traceback."""

    exit_code = EXIT_MISSED


class InputError(MoesimError):
    """Wrong input; carries every problem, and lists the first hundred."""

    exit_code = EXIT_BAD_INPUT

    def __init__(self, problems: Problem | Iterable[Problem]) -> None:
        self.problems: tuple[Problem, ...] = (problems,) if isinstance(problems, Problem) else tuple(problems)
        lines = [str(problem) for problem in self.problems[:_MOST_LISTED]]
        left = len(self.problems) - len(lines)
        super().__init__("\n".join([*lines, *([f"... and {left:,} more problems"] if left else [])]))

    def __reduce__(self) -> tuple[type[InputError], tuple[tuple[Problem, ...]]]:
        """Pickle the problems, not the text, for travel between processes."""
        return type(self), (self.problems,)


class InfeasibleError(MoesimError):
    """Well-formed input that no machine could carry out; the message says why."""

    exit_code = EXIT_INFEASIBLE


class DoesNotFitError(InfeasibleError):
    """Memory overflow: need and capacity of a GPU and the parts of the need, the biggest first [bytes]."""

    def __init__(
        self, message: str, *, needed_bytes: float, capacity_bytes: float, parts: Mapping[str, float]
    ) -> None:
        self.needed_bytes, self.capacity_bytes, self.parts = needed_bytes, capacity_bytes, dict(parts)
        super().__init__(message)


def printable(text: str) -> str:
    r"""Escape whatever a terminal cannot show, so that text stays one line of text."""
    if text.isprintable():
        return text
    return "".join(char if char.isprintable() else char.encode("unicode_escape").decode() for char in text)


def shown(text: str, most: int = _MOST_SHOWN) -> str:
    """Make a user's text fit for a message: printable, and cut in the middle where it has more than `most` characters."""
    plain = printable(text if len(text) <= 2 * most else text[:most] + text[-most:])
    if len(plain) <= most:
        return plain
    return f"{plain[: most * 2 // 3]}...{plain[-most // 4 :]}"


_ELSEWHERE = {
    "sequence_tokens": ("seq_len", "seq_length", "sequence_length", "max_seq_len"),
    "microbatch_sequences": ("micro_batch_size", "microbatch_size", "mbs", "per_device_batch_size"),
    "global_batch": ("gbs", "global_batch_size", "train_batch_size"),
    "requests_per_gpu": ("batch_size", "batch", "max_num_seqs"),
    "prompt_tokens": ("isl", "input_len", "input_length"),
    "context_tokens": ("context_length", "max_model_len", "isl"),
    "comm_sms": ("sms", "num_sms", "num_comm_sms"),
    "shard": ("zero", "zero_stage", "distributed_optimizer"),
    "num_experts": ("n_routed_experts", "num_local_experts"),
    "num_shared_experts": ("n_shared_experts",),
    "top_k": ("num_experts_per_tok", "moe_router_topk"),
    "tokens_per_step": ("mtp", "num_speculative_tokens", "num_nextn_predict_layers"),
    "chunks": ("vpp", "virtual_pipeline", "num_virtual_stages"),
    "ep": ("expert_parallel_size", "expert_model_parallel_size", "enable_expert_parallel"),
    "tp": ("tensor_parallel_size", "tensor_model_parallel_size"),
    "pp": ("pipeline_parallel_size", "pipeline_model_parallel_size"),
    "zero3": ("fsdp", "fsdp2", "full_shard"),
    "two_hop": ("deepep", "deep_ep", "deepep_normal"),
    "low_latency": ("deepep_ll", "deepep_low_latency", "pplx"),
    "bf16": ("fp16", "float16", "half", "bfloat16"),
    "fp8": ("float8", "fp8_e4m3", "fp8_e5m2"),
}
"""Our word -> what other stacks call it, or use in its place."""


def counterpart(word: str, known: Iterable[str]) -> str | None:
    """Return the known word that is this word in another case, or that another stack calls so; None where none is.

    Examples
    --------
    >>> counterpart("vpp", ["chunks", "pp"])
    'chunks'
    """
    by_case = {candidate.lower(): candidate for candidate in known}
    if word.lower() in by_case:
        return by_case[word.lower()]
    meant = (ours for ours, theirs in _ELSEWHERE.items() if ours in by_case and word.lower() in theirs)
    return by_case.get(next(meant, ""))


def nearest(word: str, known: Iterable[str]) -> str | None:
    """Return the known word closest to a word, or what another stack means by it; None where nothing is close.

    Of several that are equally close, the one that begins alike.

    Examples
    --------
    >>> nearest("bandwith", ["bandwidth", "latency"])
    'bandwidth'
    >>> nearest("micro_batch_size", ["microbatch_sequences", "microbatches"])
    'microbatch_sequences'
    >>> nearest("epp", ["pp", "ep"])
    'ep'
    """
    candidates: Sequence[str] = list(known)
    if ours := counterpart(word, candidates):
        return ours
    by_case = {candidate.lower(): candidate for candidate in candidates}
    close = difflib.get_close_matches(word.lower(), by_case, n=3, cutoff=0.55)
    alike = [name for name in close if _likeness(word, name) == _likeness(word, close[0])]
    best = next((name for name in alike if name[0] == word[0].lower()), next(iter(close), ""))
    return by_case.get(best)


def _likeness(word: str, name: str) -> float:
    return difflib.SequenceMatcher(None, name, word.lower()).ratio()
