"""Machines put together: a chip in a node, and links over PCIe where nothing else joins the GPUs of a node.

A profile of `hardware/` is a chip and a node in one file. `{chip: h20, node: dgx-4nic}` takes the GPU of one file and the links
between GPUs, NICs and fabric of another: files of `hardware/chips/` and `hardware/nodes/`, or the parts of a profile.

Why this way: the same chip is sold in nodes with four NICs, eight or none, with and without NVLink; what differs is said once.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from sim import documents
from sim.documents import Document
from sim.errors import InputError, Mark, Problem

KEYS = ("chip", "node")
_OF_LINKS = ("latency", "domain", "reduces_in_switch")
"""Keys of `gpu.scale_up` that are the node's; the bandwidth is the chip's."""


def profile_document(
    name: str | Path | Mapping[str, Any], *, near: Path | None = None, mark: Mark | None = None
) -> Document:
    """Find a profile, by name or path, and put it together where it is `{chip: NAME, node: NAME}`."""
    if isinstance(name, Mapping):
        return machine_document(name, near=near, mark=mark)
    profile = documents.load(documents.find(str(name), "hardware", "hardware", near=near, mark=mark))
    parts = {key: profile.tree[key] for key in KEYS if key in profile.tree}
    if not parts:
        return profile
    made = machine_document(parts, near=profile.folder, mark=profile.mark(KEYS[:1]))
    for key, value in profile.tree.items():
        if key not in KEYS:
            made.put((key,), value, profile.mark((key,)))
    return made


def machine_document(
    parts: Mapping[str, Any], *, near: Path | None = None, mark: Mark | None = None
) -> Document:
    """Put a chip into a node, both names of files or paths, as a profile of `hardware/` would be written.

    InputError for an unknown name, and for a node with scale-up around a chip that has no such links.
    """
    if sorted(parts) != sorted(KEYS) or not all(isinstance(part, str) for part in parts.values()):
        wanted = "the name of a profile, or {chip: NAME, node: NAME}"
        raise InputError(Problem(mark, "cluster.hardware", str(dict(parts)), wanted))
    chip, node = (_part(parts[key], key, near, mark) for key in KEYS)
    made = chip.copy()
    links = dict(node.get(("gpu", "scale_up")) or {})
    own = dict(chip.get(("gpu", "scale_up")) or {})
    if links and "bandwidth" not in own:
        wanted = f"a node whose GPUs send over PCIe: {parts['chip']} has no scale-up links"
        raise InputError(Problem(mark, "cluster.hardware.node", f"'{parts['node']}'", wanted))
    gpu = {key: value for key, value in made.tree.get("gpu", {}).items() if key != "scale_up"}
    if links:
        gpu["scale_up"] = {**own, **{key: links[key] for key in _OF_LINKS if key in links}}
    elif of_node := node.get(("gpu", "pcie")):
        gpu["pcie"] = {**gpu.get("pcie", {}), **of_node}
    for key in ("nic", "fabric"):
        made.tree.pop(key, None)
        if key in node.tree:
            made.tree[key] = node.tree[key]
    made.tree |= {
        "name": f"{chip.tree.get('name')}-{node.tree.get('name')}",
        "title": f"{str(chip.tree.get('title')).partition(',')[0]}; {node.tree.get('title')}",
        "gpu": gpu,
        "sources": {**node.tree.get("sources", {}), **chip.tree.get("sources", {})},
    }
    for marks, theirs in ((made.keys, node.keys), (made.values, node.values)):
        marks.update({path: at for path, at in theirs.items() if path[:1] in (("nic",), ("fabric",))})
    return made


def _part(name: str, kind: str, near: Path | None, mark: Mark | None) -> Document:
    """The file of a chip or a node; without one of that name, a profile that has it."""
    folder = f"hardware/{kind}s"
    if name not in documents.shipped(folder) and name in documents.shipped("hardware"):
        folder = "hardware"
    part = documents.load(documents.find(name, folder, kind, near=near, mark=mark))
    return _part(part.tree[kind], kind, part.folder, part.mark((kind,))) if kind in part.tree else part


def join_over_pcie(document: Document) -> None:
    """Let GPUs without scale-up send to one another over their PCIe links, as `gpu.scale_up` of the profile.

    InputError without the keys that this takes, and for those keys next to scale-up links.
    """
    pcie = document.get(("gpu", "pcie")) or {}
    if document.get(("gpu", "scale_up")) is not None:
        for key in ("latency", "domain"):
            if key in pcie:
                wanted = "no such key: GPUs send to one another over scale-up"
                problem = document.problem(("gpu", "pcie", key), f"'{key}'", wanted, key=True)
                raise InputError(problem)
        return
    if lacking := [f"gpu.pcie.{key}" for key in ("bandwidth", "latency", "domain") if key not in pcie]:
        wanted = f"gpu.scale_up, or for a node that sends over PCIe {', '.join(lacking)}"
        raise InputError(document.problem(("gpu",), "no scale_up", wanted))
    document.put(("gpu", "scale_up"), {**pcie, "over_pcie": True}, document.mark(("gpu", "pcie")))
