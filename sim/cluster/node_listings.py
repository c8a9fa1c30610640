"""Nodes as tools list them: `nvidia-smi topo -m`, and NCCL's topology XML, read into a file of `hardware/nodes/`.

A listing says how many GPUs a node has, whether NVLink joins them, and which NICs are near which GPUs; XML also how fast these
are. Latencies, the fabric and, without XML, the rate of a NIC are those of the nodes that are shipped, graded as assumed.

NICs count that are behind a PCIe switch with a GPU; where none is, all count. Others are there for storage or the host.

References
----------
Connection types (NV#, PIX, PXB, PHB, NODE, SYS): legend of `nvidia-smi topo -m`. XML: src/graph/xml.cc of NCCL (NCCL_TOPO_DUMP_FILE).
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

from sim import documents
from sim.errors import InputError, Mark, Problem
from sim.files import text

_BEHIND_SWITCH = ("PIX", "PXB")
_SUMMING_LINKS = 18
"""NVLinks of a GPU from which on its switches add up: Hopper's; export parts with fewer cannot be told from an A100."""
_SUMMING_SM = 90


@dataclass(frozen=True, slots=True)
class Listing:
    """GPUs, links and NICs of a node as a tool lists them.

    Parameters
    ----------
    tool : str
    num_gpus : int [count]
    num_links : int [count]
        NVLinks of a GPU; 0 where bytes of peers take PCIe.
    near : mapping of str to set of int
        NIC -> GPUs behind the same PCIe switch.
    rates_bit_per_s : mapping of str to float
        NIC -> line rate, where the tool says it.
    sums : bool
        Switches between GPUs add up what passes.
    """

    tool: str
    num_gpus: int
    num_links: int
    near: dict[str, set[int]]
    rates_bit_per_s: dict[str, float]
    sums: bool


def is_listing(file: str) -> bool:
    """True for the name of a file that is neither YAML nor JSON and is there."""
    return Path(file).suffix not in (".json", ".yaml", ".yml") and Path(file).is_file()


def node_tree(file: str, name: str) -> dict[str, Any]:
    """Read the output of `nvidia-smi topo -m`, or NCCL's XML, as the tree of a file of `hardware/nodes/`.

    InputError for a file that is neither, that lists no GPU, and for NICs that GPUs do not share evenly.
    """
    written = text(Path(file), "a listing of a node")
    listing = _xml(written, file) if written.lstrip().startswith("<") else _matrix(written, file)
    used = {nic: gpus for nic, gpus in listing.near.items() if gpus} or listing.near
    gpus, nics = listing.num_gpus, len(used)
    shared = {len(own) for own in used.values()}
    if nics and ((gpus % nics and nics % gpus) or (nics < gpus and shared not in ({0}, {gpus // nics}))):
        wanted = f"NICs that the {gpus} GPUs share evenly: a multiple or a divisor of them, each behind a switch with as many"
        got = ", ".join(f"{nic} with {len(own)} GPUs" for nic, own in used.items())
        raise InputError(Problem(Mark(file), "", got, wanted))
    rates = {listing.rates_bit_per_s[nic] for nic in used if nic in listing.rates_bit_per_s}
    if len(rates) > 1:
        got = ", ".join(f"{rate / 1e9:g} Gb/s" for rate in sorted(rates))
        raise InputError(Problem(Mark(file), "", f"NICs of {got}", "NICs of one rate"))
    return _tree(listing, name, file, used, rates.pop() if rates else None)


def _tree(
    listing: Listing, name: str, file: str, used: dict[str, set[int]], rate: float | None
) -> dict[str, Any]:
    like = documents.load(documents.shipped("hardware/nodes")["hgx-8nic" if listing.num_links else "pcie-8"])
    links: dict[str, Any] = like.tree["gpu"]["scale_up" if listing.num_links else "pcie"]
    own = {
        "latency": links["latency"],
        "domain": {"value": listing.num_gpus, "grade": "measured", "source": "listing"},
    }
    if listing.sums:
        own["reduces_in_switch"] = {**links["reduces_in_switch"], "value": listing.num_gpus}
    tree: dict[str, Any] = {
        "name": name,
        "title": f"{listing.num_gpus} GPUs a node, {len(used)} NICs"
        + (f" of {rate / 1e9:g} Gb/s" if rate else ""),
        "gpu": {"scale_up" if listing.num_links else "pcie": own},
    }
    if used:
        near = "; ".join(
            f"{nic}: GPUs {', '.join(map(str, sorted(own)))}" for nic, own in used.items() if own
        )
        count = {"value": len(used), "grade": "measured", "source": "listing"}
        known = {"grade": "measured", "source": "listing"}
        assumed = {
            "grade": "assumed",
            "why": "the listing gives no rates; the NIC of the Hopper nodes is kept",
        }
        tree["nic"] = {
            "per_node": {**count, "from": near or "no NIC is behind a switch with a GPU"},
            "bandwidth": {
                "value": f"{(rate or 400e9) / 1e9:g} Gb/s", "per": "direction", **(known if rate else assumed),
            },
        }  # fmt: skip
    tree["fabric"] = like.tree["fabric"]
    cited = {part["source"] for part in [*own.values(), *_parts(tree["fabric"])] if "source" in part}
    tree["sources"] = {
        "listing": f"{listing.tool}, {Path(file).name}",
        **{key: title for key, title in like.tree["sources"].items() if key in cited},
    }
    return tree


def _parts(branch: dict[str, Any]) -> list[dict[str, Any]]:
    return [part for part in branch.values() if isinstance(part, dict)]


def _matrix(written: str, file: str) -> Listing:
    """Read the table of `nvidia-smi topo -m`, which some terminals underline."""
    lines = [re.sub(r"\x1b\[[0-9;]*m", "", line).split() for line in written.splitlines()]
    head = next((line for line in lines if line[:1] == ["GPU0"] and line[1:2] != ["X"]), None)
    if head is None:
        wanted = "the table of `nvidia-smi topo -m`, NCCL's topology XML, or a config.json"
        raise InputError(Problem(Mark(file), "", "no line of GPUs", wanted))
    columns = head[: head.index("CPU")] if "CPU" in head else head
    rows = {
        line[0]: dict(zip(columns, line[1:], strict=False)) for line in lines if line and line[0] in columns
    }
    gpus = [name for name in columns if re.fullmatch(r"GPU\d+", name)]
    if missing := [name for name in gpus if len(rows.get(name, {})) < len(columns)]:
        wanted = f"a row with {len(columns)} connections"
        raise InputError(Problem(Mark(file), "", f"no whole row of {missing[0]}", wanted))
    between = [rows[a][b] for a in gpus for b in gpus if a != b]
    links = [int(kind[2:]) for kind in between if re.fullmatch(r"NV\d+", kind)]
    _require_joined(len(links), len(gpus), file)
    near = {
        nic: {i for i, gpu in enumerate(gpus) if rows[gpu][nic] in _BEHIND_SWITCH}
        for nic in columns
        if nic not in gpus
    }
    num = max(links, default=0)
    return Listing("nvidia-smi topo -m", len(gpus), num, near, {}, num >= _SUMMING_LINKS)


def _xml(written: str, file: str) -> Listing:
    """Read NCCL's tree of CPUs, PCIe switches, GPUs and NICs."""
    try:
        root = ElementTree.fromstring(written)
    except ElementTree.ParseError as error:
        raise InputError(Problem(Mark(file), "", f"broken XML: {error}", "NCCL's topology XML")) from None
    gpus = list(root.iter("gpu"))
    if root.tag != "system" or not gpus:
        wanted = "NCCL's topology XML: <system> with <gpu>"
        raise InputError(Problem(Mark(file), "", f"<{root.tag}> with {len(gpus)} <gpu>", wanted))
    number = {id(gpu): i for i, gpu in enumerate(gpus)}
    rates, near = dict[str, float](), dict[str, set[int]]()
    for net in root.iter("net"):
        if (speed := net.get("speed")) and net.get("name"):
            rates[str(net.get("name"))] = float(speed) * 1e6
    for cpu in root.iter("cpu"):
        for nic in (net for net in cpu.iter("net") if net.get("name")):
            near.setdefault(str(nic.get("name")), set())
        for switch in cpu.findall("pci"):
            for nic in (net for net in switch.iter("net") if net.get("name")):
                near[str(nic.get("name"))] |= _closest(switch, nic, number)
    links = [sum(int(link.get("count", 1)) for link in gpu.findall("nvlink")) for gpu in gpus]
    _require_joined(sum(map(bool, links)) * (len(gpus) - 1), len(gpus), file)
    sums = any(links) and all(int(gpu.get("sm", 0)) >= _SUMMING_SM for gpu in gpus)
    return Listing("NCCL topology XML", len(gpus), max(links), near, rates, sums)


def _closest(switch: ElementTree.Element, nic: ElementTree.Element, number: dict[int, int]) -> set[int]:
    """GPUs below the lowest switch that a NIC is below too; none where no switch has both."""
    lowest = set[int]()
    for inner in switch.iter("pci"):  # those above come first
        gpus = {number[id(gpu)] for gpu in inner.iter("gpu")}
        if gpus and any(net is nic for net in inner.iter("net")):
            lowest = gpus
    return lowest


def _require_joined(num_links: int, num_gpus: int, file: str) -> None:
    """Raise `InputError` where NVLink joins some pairs of GPUs and not others."""
    if num_links not in (0, num_gpus * (num_gpus - 1)):
        wanted = "NVLink between all pairs of GPUs, or none"
        raise InputError(Problem(Mark(file), "", "NVLink between some pairs of GPUs", wanted))
