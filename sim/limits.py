"""Limits of what is read and built, each with its meaning, in one table.

A single number of a scenario is bounded by its specification. What grows as a *product* of numbers (ranks x ranks,
leaves x spines) is counted where the scenario is resolved, before anything is built, and refused by `require` with the
count, the limit and the keys. Files are counted while they are read, and reading stops at the limit.

The limits of what is built keep a run within some tens of gigabytes; those of what is read keep any file, whatever it
holds, within two seconds of a CPU and half a gigabyte, or show progress.
"""

from __future__ import annotations

from dataclasses import dataclass

from sim.errors import InfeasibleError


@dataclass(frozen=True, slots=True)
class Limit:
    """The most of something that there may be."""

    most: int
    noun: str
    """Name of what is counted, in the plural."""
    reason: str
    """The cost of that many."""


# --- what is read --------------------------------------------------------------------------------------------------

YAML_BYTES = 32 * 2**20
"""Size of one YAML file: text is scanned at some 100 MB/s."""
YAML_VALUES = 200_000
"""Keys and values of one YAML file, aliases expanded: 5 microseconds and a kilobyte each, with their marks."""
YAML_LEVELS = 64
"""Mappings and lists inside one another: composing recurses."""
PROBLEMS = 1000
"""Problems of one document that are put into words: 50 microseconds each."""
FILE_BYTES = 256 * 2**20
"""Size of any other file that is read whole."""
CSV_BYTES = 48 * 2**20
"""Size of one CSV."""
CSV_ROWS = 400_000
"""Rows of one CSV, empty ones too: up to five microseconds each, with their checks."""
CSV_CELLS = 3_000_000
"""Cells of one CSV."""
REQUEST_BYTES = 128 * 2**20
"""Size of a trace of requests that is a CSV: it is held, its rows are not."""
REQUEST_ROWS = 1_500_000
"""Rows of such a trace: one to three microseconds each, with their checks."""
REQUEST_CELLS = 12_000_000
"""Cells of such a trace."""
ARRAY_NUMBERS = 2**24
"""Numbers of one npy or npz: 8 bytes each, held twice while they are checked."""
LOADS = 2**20
"""Layers x experts of recorded loads: each is a number that a gate is known by."""
JSON_ENTRIES = 6_000_000
"""Commas and brackets of a document that is drawn, as many as it has values: 70 bytes each."""
TRACE_BYTES = 512 * 2**20
"""Size of a profiler trace, unpacked; it is read in pieces."""
TRACE_EVENTS = 5_000_000
"""Events of a profiler trace, most of them passed over: two microseconds each."""
TRACE_KEPT = 500_000
"""Kernels, launches and ranges of a profiler trace: about 400 bytes each."""
TRACE_NAMES = 20_000
"""Different kernel names of a profiler trace, of up to 4 kB each."""
TRACE_ENTRY = 4 * 2**20
"""Characters of one event, or of one entry beside the events."""

# --- what is built -------------------------------------------------------------------------------------------------

GPUS = Limit(10_000_000, "GPUs", "there is no such cluster")
BUILT_GPUS = Limit(2**20, "GPUs", "each is built with its NIC and its cables, of some 25 kB in a run")
CABLES = Limit(4_000_000, "cables between switches", "each is two edges of a graph, some 2 kB")
PAIRS = Limit(2**25, "pairs that exchange", "a pair may be a flow, and a flow takes about a kilobyte")
SOLVED_PAIRS = Limit(2**39, "pairs of ranks in all exchanges of a step", "a billion take a minute")
DRAWN = Limit(2**26, "tokens drawn one by one", "ids of eight experts each are two gigabytes")
SCORES = Limit(2**39, "scores of a token and an expert", "a billion take half a minute")
CELLS = Limit(2**28, "cells of one table", "each is 8 bytes, some three times")
OPERATIONS = Limit(20_000_000, "operations of one schedule", "each takes some 500 bytes")
VARIANTS = Limit(256, "variants", "all are resolved before one runs, and their results are held together")
PASSES = Limit(20_000, "passes of one prompt", "each is simulated, a tenth of a second or more")
DOCUMENTS = Limit(2_000_000, "documents of a step", "each is placed, some microseconds")
SAMPLES = Limit(1_000_000, "samples of rollouts", "each ends at an instant of its own: 20 us")
SHARED_FLOWS = Limit(2048, "flows next to other jobs", "each may meet each: their table is a square")
DESIGNS = Limit(4096, "designs of an exchange", "each runs on every machine, some 50 ms")
CUBE = Limit(5000, "points of an explorer", "each is run, some 50 ms, and is in its page")
UNLIKE = Limit(2**26, "microbatches of unlike ranks", "a million take a minute")
POINTS = Limit(10_000_000, "points of a sweep", "each is a row that is kept")
MATRIX_RANKS = 256
"""Ranks of an EP group whose traffic from rank to rank is part of a result: 65,536 numbers each way."""


def require(count: int, limit: Limit, keys: str, advice: str = "") -> None:
    """Refuse more of something than its limit: InfeasibleError with the count, the limit, the keys that make it, and advice.

    Examples
    --------
    >>> require(3, Limit(2, "nodes", "each takes a minute"), "cluster.nodes")
    Traceback (most recent call last):
    sim.errors.InfeasibleError: cluster.nodes = 3 nodes; the limit is 2: each takes a minute
    """
    if count > limit.most:
        most = f"the limit is {limit.most:,}: {limit.reason}"
        raise InfeasibleError("; ".join(filter(None, [f"{keys} = {count:,} {limit.noun}", most, advice])))
