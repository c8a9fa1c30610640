"""Flows on bare links beside an independent solver of max-min sharing: the end of every flow."""

from __future__ import annotations

import csv
import gzip
import io
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np

from sim.cluster.topology import NONE, Floats, Ints
from sim.documents import data_folder
from sim.engine import fluid
from sim.runs.kinds import Progress
from sim.scenario.values import Branch
from sim.schedule.flows import Flows
from sim.validation.published import Published, Row, Weighed, row

_DATA = "published/simgrid"


class SolverCase(Branch):
    """One set of flows; its files lie in the group's folder: NAME.csv.gz and NAME-links.csv."""

    name: str
    source: str
    about: str


class SolverFigures(Published):
    """A file of flows that another solver has solved."""

    cases: list[SolverCase]


@dataclass(frozen=True, slots=True)
class SolverResult:
    """Flows with the end that another solver found.

    Parameters
    ----------
    flows : Flows
    capacity : float, [num_links] [bytes/s]
    end_s : float, [num_flows] [s]
    """

    flows: Flows
    capacity: Floats
    end_s: Floats


def rows(figures: SolverFigures, progress: Progress) -> Iterator[Row]:
    """The last flow of each case, and the one whose end differs most."""
    for case in figures.cases:
        progress(f"{figures.group}: {case.name}")
        theirs = read(case.name)
        ours_s = fluid.drained(theirs.flows, theirs.capacity)
        differs = np.abs(ours_s - theirs.end_s) / theirs.end_s
        for what, flow in (("last", int(theirs.end_s.argmax())), ("worst", int(differs.argmax()))):
            yield row(
                f"{case.name}.{what}",
                "completion_s",
                "s",
                float(theirs.end_s[flow]),
                float(ours_s[flow]),
                use="validation",
                source=case.source,
                machine=None,
                tolerance=None,
                weighed=Weighed(note=f"{case.about}; flow {flow + 1}"),
            )


def read(name: str) -> SolverResult:
    """A case by its name."""
    folder = data_folder("scenarios") / _DATA
    flows = _table(gzip.decompress((folder / f"{name}.csv.gz").read_bytes()).decode())
    links = _table((folder / f"{name}-links.csv").read_text(encoding="utf-8"))
    crossed: list[Ints] = [np.array(line["links"].split(), dtype=np.int64) for line in flows]
    num, every = len(flows), np.concatenate(crossed)

    def column(key: str) -> Floats:
        return np.array([float(line[key]) for line in flows])

    return SolverResult(
        Flows(
            payload_bytes=column("bytes"),
            share=np.ones(num),
            release_s=column("start_us") * 1e-6,
            latency_s=np.zeros(num),
            after=np.full(num, NONE),
            start=np.cumsum([0, *map(len, crossed)]),
            resource=every.astype(np.int32),
            wire=np.ones(len(every)),
            line=np.ones(len(every)),
            party_flow=np.arange(num),
            party_rank=np.zeros(num, dtype=np.int64),
        ),
        np.array([float(line["bytes_per_s"]) for line in links]),
        column("finish_us") * 1e-6,
    )


def _table(text: str) -> list[dict[str, str]]:
    return list(csv.DictReader(io.StringIO(text)))
