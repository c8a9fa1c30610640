"""One's own flows: a CSV becomes flows on the hosts of a fabric, or on the GPUs of a cluster.

Columns: `flow_id,src,dst,bytes,start_us[,after_flow_id][,links]`. `bytes` is payload. A flow with `after_flow_id` (0 or
empty = none) is released when that flow's last byte has come and word of it is back, one idle latency later. `links`
(static routing) lists the switch-to-switch links, as `LS6->US3` (leaf 6 to spine 3) and `US3->LS_3` (spine 3 to leaf 3).
Flows are independent connections: each has share 1.
"""

from __future__ import annotations

import csv
import io
import math
import re
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from sim.cluster import paths
from sim.cluster.topology import NONE, Cluster, Floats, Ints, LeafSpine
from sim.errors import Fault, InputError, Mark, nearest
from sim.schedule.flows import Columns, Flows

_NEEDED = ("flow_id", "src", "dst", "bytes", "start_us")
_KNOWN = (*_NEEDED, "after_flow_id", "links")
_LINK = re.compile(r"LS_?(\d+)->US_?(\d+)|US_?(\d+)->LS_?(\d+)")
_MAX_FAULTS = 20
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


def read(file: Path, num_hosts: int, *, static: bool) -> FlowTable:
    """Read and check a flow CSV. Raises `InputError` with the faults, each at its line."""
    try:
        text = file.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        reason = getattr(error, "strerror", None) or "text that is not UTF-8"
        raise InputError(Fault(Mark(str(file)), "", str(reason).lower(), "a readable CSV of flows")) from None
    try:
        numbered = _rows(text)
    except csv.Error as error:
        raise InputError(Fault(Mark(str(file)), "", str(error), "a readable CSV of flows")) from None
    header = numbered[0][1] if numbered else []
    faults = [
        Fault(Mark(str(file), 1), name, "no such column", f"the columns {', '.join(_NEEDED)}")
        for name in _NEEDED
        if name not in header
    ]
    faults += [
        Fault(
            Mark(str(file), 1),
            name,
            f"the unknown column '{name}'",
            f"one of: {', '.join(_KNOWN)}",
            nearest(name, _KNOWN),
        )
        for name in header
        if name not in _KNOWN
    ]
    if faults:
        raise InputError(faults)
    at = {name: i for i, name in enumerate(header)}
    cells = numbered[1:]
    reader = _Reader(file, at, num_hosts, static)
    parsed = [reader.row(line, row) for line, row in cells]
    if not parsed:
        reader.faults.append(Fault(Mark(str(file), 1), "", "no flow", "one row or more"))
    idx = {row[0]: i for i, row in enumerate(parsed)}
    after = np.array([idx.get(row[5], NONE) if row[5] else NONE for row in parsed], dtype=np.int64)
    for (line, _), row, before in zip(cells, parsed, after, strict=True):
        if row[5] and before == NONE:
            reader.fault(line, "after_flow_id", str(row[5]), "the flow_id of another row, or 0")
    reader.cycles(after, [line for line, _ in cells])
    if reader.faults:
        more = len(reader.faults) - _MAX_FAULTS
        tail = [Fault(Mark(str(file)), "", f"{more} more faults", "none")] if more > 0 else []
        raise InputError([*reader.faults[:_MAX_FAULTS], *tail])
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


def _rows(text: str) -> list[tuple[int, list[str]]]:
    """The rows that hold anything, each with its line."""
    rows = csv.reader(io.StringIO(text))
    return [
        (rows.line_num, [cell.strip() for cell in row]) for row in rows if any(cell.strip() for cell in row)
    ]


class _Reader:
    """Parses rows and collects their faults."""

    def __init__(self, file: Path, at: dict[str, int], num_hosts: int, static: bool) -> None:
        self.file, self.at, self.num_hosts, self.static = file, at, num_hosts, static
        self.faults: list[Fault] = []
        self.seen: dict[int, int] = {}

    def fault(self, line: int, column: str, got: str, wanted: str) -> None:
        self.faults.append(Fault(Mark(str(self.file), line, self.at.get(column, 0) + 1), column, got, wanted))

    def row(
        self, line: int, row: list[str]
    ) -> tuple[int, int, int, float, float, int, tuple[int, int], tuple[int, int]]:
        def cell(name: str) -> str:
            i = self.at.get(name)
            return row[i] if i is not None and i < len(row) else ""

        if len(row) > len(self.at):
            self.fault(line, "", f"{len(row)} cells", f"{len(self.at)}, as in the header")
        flow_id = int(self.number(line, "flow_id", cell("flow_id"), whole=True))
        if flow_id in self.seen:
            self.fault(
                line, "flow_id", str(flow_id), f"a new id; the first stands in line {self.seen[flow_id]}"
            )
        self.seen[flow_id] = line
        ends = [int(self.number(line, name, cell(name), whole=True)) for name in ("src", "dst")]
        for name, host in zip(("src", "dst"), ends, strict=True):
            if host >= self.num_hosts:
                self.fault(line, name, f"host {host}", f"a host from 0 to {self.num_hosts - 1}")
        if ends[0] == ends[1]:
            self.fault(line, "dst", f"host {ends[1]}", "another host than src")
        size = self.number(line, "bytes", cell("bytes"))
        start = self.number(line, "start_us", cell("start_us"))
        after = int(self.number(line, "after_flow_id", cell("after_flow_id") or "0", whole=True))
        up, down = self.links(line, cell("links"))
        return flow_id, ends[0], ends[1], size, start, after, up, down

    def number(self, line: int, column: str, text: str, *, whole: bool = False) -> float:
        wanted = f"a {'whole ' if whole else ''}number of 0 or more"
        try:
            value = int(text) if whole else float(text)
        except ValueError:
            self.fault(line, column, repr(text), wanted)
            return 0
        if not 0 <= value < _MOST or not math.isfinite(value):
            self.fault(line, column, text, wanted)
            return 0
        return value

    def links(self, line: int, text: str) -> tuple[tuple[int, int], tuple[int, int]]:
        up, down = (NONE, NONE), (NONE, NONE)
        if text and not self.static:
            self.fault(line, "links", repr(text), "no links, or a fabric with routing: static")
            return up, down
        for word in text.split():
            found = _LINK.fullmatch(word)
            if not found:
                self.fault(line, "links", repr(word), "links like LS6->US3 and US3->LS_3")
            elif found[1] is not None:
                up = int(found[1]), int(found[2])
            else:
                down = int(found[3]), int(found[4])
        return up, down

    def cycles(self, after: Ints, lines: list[int]) -> None:
        """A flow that waits for itself, through others, never starts."""
        state = np.zeros(len(after), dtype=np.int8)  # 1 = on the way, 2 = ends well
        for first in range(len(after)):
            trail, flow = [], first
            while flow != NONE and state[flow] == 0:
                state[flow] = 1
                trail.append(flow)
                flow = int(after[flow])
            if flow != NONE and state[flow] == 1:
                self.fault(
                    lines[flow], "after_flow_id", "a flow that waits for itself", "an order without circles"
                )
            state[trail] = 2


def plan(table: FlowTable, cluster: Cluster, fabric: LeafSpine | None) -> Flows:
    """The table as flows. On a bare fabric with its headers and idle latencies; on a cluster from NIC to NIC."""
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
    """Resource rows of each flow's uplink and downlink as its `links` say."""
    up, down = np.array(table.up), np.array(table.down)
    a, b = cluster.leaf[table.src], cluster.leaf[table.dst]
    fits = (up[:, 0] == a) & (down[:, 1] == b) & (up[:, 1] == down[:, 0]) & (up[:, 1] < cluster.up.shape[1])
    bad = ~same_leaf & ~fits | same_leaf & (up[:, 0] != NONE)
    if bad.any():
        raise InputError(
            [
                Fault(
                    None,
                    f"links of flow {table.flow_id[f]}",
                    f"uplink {up[f].tolist()}, downlink {down[f].tolist()}",
                    "no links within a leaf"
                    if same_leaf[f]
                    else f"LS{a[f]}->US<s> US<s>->LS_{b[f]} with one of {cluster.up.shape[1]} spines",
                )
                for f in np.flatnonzero(bad)[:_MAX_FAULTS]
            ]
        )
    spine = np.maximum(up[:, 1], 0)
    return np.where(same_leaf, NONE, cluster.up[a, spine]), np.where(same_leaf, NONE, cluster.down[b, spine])
