"""Flows from a file: a CSV becomes flows on the hosts of a fabric, or on the GPUs of a cluster.

Columns: `flow_id,src,dst,bytes,start_us[,after_flow_id][,links]`. `bytes` is payload. A flow with `after_flow_id` (0 or
empty = none) is released when that flow's last byte has come and word of it is back, one idle latency later. `links`
(static routing) lists the switch-to-switch links, as `LS6->US3` (leaf 6 to spine 3) and `US3->LS_3` (spine 3 to leaf 3).
Flows are independent connections: each has share 1.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from sim import cells, files
from sim.cluster import paths
from sim.cluster.topology import NONE, Cluster, Floats, Ints, LeafSpine
from sim.errors import Mark
from sim.schedule.flows import Columns, Flows

_NEEDED = ("flow_id", "src", "dst", "bytes", "start_us")
_OTHERS = ("after_flow_id", "links")
_WHAT = "a readable CSV of flows"
_LINK = re.compile(r"LS_?(\d+)->US_?(\d+)|US_?(\d+)->LS_?(\d+)")
_NOWHERE = (NONE, NONE)
_MOST = 2**62  # of any number; ids are held in 64 bits


@dataclass(frozen=True, slots=True)
class FlowTable:
    """The rows of a flow CSV, as arrays [num_flows]."""

    flow_id: Ints
    src: Ints
    dst: Ints
    payload_bytes: Floats
    start_s: Floats
    after: Ints  # row of the flow waited for, or -1
    up: tuple[tuple[int, int], ...]  # (leaf, spine) of each flow's uplink; (-1, -1) where it has none
    down: tuple[tuple[int, int], ...]  # (spine, leaf)


def read(
    file: Path,
    num_hosts: int,
    fabric: LeafSpine | None = None,
    *,
    where: Mark | None = None,
    key: str = "",
) -> FlowTable:
    """Read and check a flow CSV.

    Parameters
    ----------
    file : Path
    num_hosts : int
        Hosts of the fabric, or GPUs of the cluster [count].
    fabric : LeafSpine, optional
        The bare fabric; None on a cluster.
    where : Mark, optional
        Place in a document that names the file.
    key : str
        Key in that document.

    Returns
    -------
    FlowTable

    Raises
    ------
    InputError
        With all problems of the file, each at its line and column.
    """
    with files.uncollected():
        sheet = cells.sheet(file, _WHAT, _NEEDED, _OTHERS, where, key)
        reader = _FlowReader(sheet, num_hosts, fabric if fabric and fabric.routing == "static" else None)
        parsed = [reader.row(line, row) for line, row in sheet.rows]
    if not parsed:
        sheet.problem(1, 0, "no flow", "one row or more")
    idx = {row[0]: i for i, row in enumerate(parsed)}
    after = np.array([idx.get(row[5], NONE) if row[5] else NONE for row in parsed], dtype=np.int64)
    for (line, _), row, before in zip(sheet.rows, parsed, after, strict=True):
        if row[5] and before == NONE:
            sheet.problem(line, "after_flow_id", str(row[5]), "the flow_id of another row, or 0")
    reader.cycles(after, [line for line, _ in sheet.rows])
    sheet.raise_problems()
    columns = list(zip(*parsed, strict=True))
    return FlowTable(
        flow_id=np.array(columns[0], dtype=np.int64),
        src=np.array(columns[1], dtype=np.int64),
        dst=np.array(columns[2], dtype=np.int64),
        payload_bytes=np.array(columns[3], dtype=float),
        start_s=np.array(columns[4], dtype=float) * 1e-6,
        after=after,
        up=columns[6],
        down=columns[7],
    )


class _FlowReader:
    """Parses rows; their problems are the sheet's."""

    def __init__(self, sheet: cells.Sheet, num_hosts: int, static: LeafSpine | None) -> None:
        self.at, self.problem, self.num_hosts, self.static = sheet.at, sheet.problem, num_hosts, static
        self.seen: dict[int, int] = {}
        self.places = [self.at.get(name, len(self.at)) for name in (*_NEEDED, *_OTHERS)]

    def row(
        self, line: int, row: list[str]
    ) -> tuple[int, int, int, float, float, int, tuple[int, int], tuple[int, int]]:
        width = len(self.at)
        if len(row) > width:
            self.problem(line, width, f"{len(row)} cells", f"{width}, as in the header")
            del row[width:]
        row += [""] * (width + 1 - len(row))  # one more: the cell of a column that is not there
        own, source, target, num_bytes, begin, before, links = [row[place] for place in self.places]
        flow_id = int(self.number(line, "flow_id", own, whole=True))
        if flow_id in self.seen:
            self.problem(
                line, "flow_id", str(flow_id), f"a new id; the first stands in line {self.seen[flow_id]}"
            )
        self.seen[flow_id] = line
        src = int(self.number(line, "src", source, whole=True))
        dst = int(self.number(line, "dst", target, whole=True))
        for name, host in (("src", src), ("dst", dst)):
            if host >= self.num_hosts:
                self.problem(line, name, f"host {host}", f"a host from 0 to {self.num_hosts - 1}")
        if src == dst:
            self.problem(line, "dst", f"host {dst}", "another host than src")
        size = self.number(line, "bytes", num_bytes)
        start = self.number(line, "start_us", begin)
        after = int(self.number(line, "after_flow_id", before, whole=True)) if before else 0
        up, down = self.links(line, links, src, dst)
        return flow_id, src, dst, size, start, after, up, down

    def number(self, line: int, column: str, text: str, *, whole: bool = False) -> float:
        try:
            value = int(text) if whole else float(text)
            if 0 <= value < _MOST:  # which no NaN and no infinity is
                return value
            got = text
        except ValueError:
            got = repr(text)
        self.problem(line, column, got, f"a {'whole ' if whole else ''}number of 0 or more")
        return 0

    def links(self, line: int, text: str, src: int, dst: int) -> tuple[tuple[int, int], tuple[int, int]]:
        up, down = _NOWHERE, _NOWHERE
        if self.static is None:
            if text:
                self.problem(line, "links", repr(text), "no links, or a fabric with routing: static")
            return up, down
        for word in text.split():
            match = _LINK.fullmatch(word)
            if not match:
                self.problem(line, "links", repr(word), "links like LS6->US3 and US3->LS_3")
                return up, down
            if match[1] is not None:
                up = int(match[1]), int(match[2])
            else:
                down = int(match[3]), int(match[4])
        a, b = (host // self.static.hosts_per_leaf for host in (src, dst))
        crosses = (up, down) == ((a, up[1]), (up[1], b)) and 0 <= up[1] < self.static.spines
        if max(src, dst) < self.num_hosts and (text != "" if a == b else not crosses):
            way = f"LS{a}->US<s> US<s>->LS_{b}, s from 0 to {self.static.spines - 1}"
            wanted = f"no links: hosts {src} and {dst} are on leaf {a}" if a == b else way
            self.problem(line, "links", repr(text), wanted)
        return up, down

    def cycles(self, after: Ints, lines: list[int]) -> None:
        """A flow that waits for itself, through others, never starts."""
        state = bytearray(len(after))  # 1 = on the way, 2 = ends well
        follows: list[int] = after.tolist()
        for first in np.flatnonzero(after != NONE).tolist():
            trail, flow = [], first
            while flow != NONE and state[flow] == 0:
                state[flow] = 1
                trail.append(flow)
                flow = follows[flow]
            if flow != NONE and state[flow] == 1:
                self.problem(
                    lines[flow], "after_flow_id", "a flow that waits for itself", "an order without circles"
                )
            for flow in trail:
                state[flow] = 2


def plan(table: FlowTable, cluster: Cluster, fabric: LeafSpine | None) -> Flows:
    """Turn a table into flows: on a bare fabric with its headers and idle latencies, on a cluster from NIC to NIC.

    Parameters
    ----------
    table : FlowTable
    cluster : Cluster
        The cables, of a bare fabric too.
    fabric : LeafSpine, optional
        The bare fabric; None on a cluster.

    Returns
    -------
    Flows
        Row i of the table is flow i; parties are all senders, then all receivers.
    """
    line = fabric.line_per_payload if fabric else 1.0
    src, dst, num = table.src, table.dst, len(table.src)
    columns = Columns(num)
    columns.add(cluster.nic_tx[src], 1.0, line)
    same_leaf = cluster.leaf[src] == cluster.leaf[dst]
    if fabric is not None and fabric.routing == "static":
        for rows in _given_links(table, cluster, same_leaf):
            columns.add(rows, 1.0, line)
    else:
        for resource, fraction in paths.uplinks(cluster, src, dst):
            columns.add(resource, fraction, fraction * line)
    columns.add(cluster.nic_rx[dst], 1.0, line)
    if fabric is not None:
        latency = np.asarray(fabric.idle_latency_s(same_leaf), dtype=float)
    else:
        latency = cluster.same_leaf_latency_s + paths.extra_latency_s(cluster, src, dst)
    flow = np.arange(num)
    return columns.pack(
        table.payload_bytes,
        share=np.ones(num),
        latency_s=latency,
        party_flow=np.concatenate([flow, flow]),
        party_rank=np.concatenate([src, dst]),
        release_s=table.start_s,
        after=table.after,
    )


def _given_links(table: FlowTable, cluster: Cluster, same_leaf: np.ndarray) -> tuple[Ints, Ints]:
    """Resource rows of each flow's uplink and downlink in its `links`, which `read` has checked."""
    up, down = np.array(table.up), np.array(table.down)
    spine = np.maximum(up[:, 1], 0)
    rows = cluster.up[up[:, 0], spine], cluster.down[down[:, 1], spine]
    return np.where(same_leaf, NONE, rows[0]), np.where(same_leaf, NONE, rows[1])
