"""The fabric map: spines, leaves, NICs and GPUs of a run, coloured by load.

Why this way: up to 64 endpoints every GPU, NIC and cable is drawn; beyond, a cable is thinner than a pixel, so each node
becomes one square for its GPUs and one for its NICs, laid out in rows, and leaves stand above by rail and pod. The map is
drawn from the run's links and its scenario alone.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

from sim.show import style
from sim.show.canvas import Canvas, Picture, absent
from sim.show.views.run import RunsView, RunView
from sim.show.words.headline import headline

_NODE_PX = 56  # of a node with its name
_DETAIL = 64  # endpoints up to which each is drawn
_PER_ROW = 32
_NODES_PER_LEAF = 32  # where the scenario leaves it to the profile
_LEAF = re.compile(r"((?:(?:rail|plane)(\d+)/)?leaf(\d+))(?:/(?:up|down)$|->|$)")
_POOLED = "spines (uplinks pooled)"
_Tiers = dict[str, list["Spot"]]


@dataclass(frozen=True, slots=True)
class Spot:
    """A thing on the map: place, name, load (0..1; None where it carried nothing)."""

    x: float
    y: float
    name: str
    load: float | None


@dataclass(frozen=True, slots=True)
class Wiring:
    """The boxes of a run and the links between them."""

    run: RunView
    loads: Mapping[str, float]
    """Load of each link by name (0..1)."""
    leaves: tuple[str, ...]
    spines: tuple[str, ...]

    def load(self, *links: str) -> float | None:
        """Load of the busiest of some links; None where none carried anything."""
        return max((self.loads[name] for name in links if name in self.loads), default=None)

    def gpu(self, node: int, index: int) -> float | None:
        """Load of a GPU's scale-up link."""
        return self.load(*(f"node{node}/gpu{index}/scale_up/{way}" for way in ("egress", "ingress")))

    def nic(self, node: int, index: int) -> float | None:
        """Load of a NIC."""
        return self.load(*self.ports(node, index))

    def ports(self, node: int, index: int) -> tuple[str, str]:
        """Both links of a NIC."""
        name = nic_name(self.run, self.loads, node, index)
        return f"{name}/tx", f"{name}/rx"

    def leaf(self, leaf: str, *ports: str) -> float | None:
        """Load of a leaf: of its links to spines, and those of some NICs on it."""
        return self.load(*(name for name in self.loads if _touches(name, leaf)), *ports)

    def spine(self, spine: str) -> float | None:
        """Load of a spine; of pooled ones, of all uplinks."""
        if spine == _POOLED:
            return self.load(*(link.name for link in self.run.links if link.kind == "leaf_uplink"))
        return self.load(*(name for name in self.loads if _touches(name, spine)))

    def cable(self, leaf: str, spine: str) -> float | None:
        """Load of the cable between a leaf and a spine."""
        return self.leaf(leaf) if spine == _POOLED else self.load(f"{leaf}->{spine}", f"{spine}->{leaf}")


def _touches(link: str, box: str) -> bool:
    return link.startswith((f"{box}/", f"{box}->")) or link.endswith(f"->{box}")


def nic_name(run: RunView, loads: Mapping[str, float], node: int, index: int) -> str:
    """Name of a NIC; of a bare fabric its host."""
    return (
        f"host{node}"
        if run.is_bare or f"host{node}/tx" in loads
        else f"node{node}/nic{index // run.gpus_per_nic}"
    )


def wiring(run: RunView) -> Wiring:
    """The boxes that the links of a run name, and the leaves on which its busy NICs stand."""
    loads = {link.name: link.load_fraction for link in run.links}
    leaves = {hit[1]: (int(hit[3]), int(hit[2] or 0)) for name in loads for hit in _LEAF.finditer(name)}
    for node, index in _places(run):
        nic = nic_name(run, loads, node, index)
        if f"{nic}/tx" in loads or f"{nic}/rx" in loads:
            leaf, pod = _leaf_of(run, node, index)
            leaves.setdefault(leaf, (pod, index if run.fabric.hosts_per_leaf is None else 0))
    ends = {
        end for name in loads if "->" in name for end in name.split("->") if "spine" in end or "core" in end
    }
    spines = sorted(ends, key=lambda name: [int(number) for number in re.findall(r"\d+", name)])
    if not spines and any(link.kind == "leaf_uplink" for link in run.links):
        spines = [_POOLED]
    return Wiring(run, loads, tuple(sorted(leaves, key=lambda name: leaves[name])), tuple(spines))


def _places(run: RunView) -> list[tuple[int, int]]:
    return [(node, index) for node in run.nodes_in_use for index in range(run.gpus_per_node)]


def _leaf_of(run: RunView, node: int, index: int) -> tuple[str, int]:
    """The leaf on which a NIC stands, and its pod."""
    if run.fabric.hosts_per_leaf is not None:
        pod = node // run.fabric.hosts_per_leaf
        return f"leaf{pod}", pod
    if run.fabric.kind == "fat_tree":
        nics = run.gpus_per_node // run.gpus_per_nic
        pod = node // (run.fabric.nodes_per_leaf or max(1, _NODES_PER_LEAF // nics))
        return f"leaf{pod}", pod
    pod = node // (run.fabric.nodes_per_leaf or _NODES_PER_LEAF)
    plane = "plane" if run.fabric.kind == "multi_plane" else "rail"
    return f"{plane}{index // run.gpus_per_nic}/leaf{pod}", pod


def fabric_map(runs: RunsView) -> Picture:
    """The cluster from GPUs (below) to spines (above), each coloured by its busiest link."""
    run = runs.runs[0]
    if not run.links:
        raise absent("fabric_map", "this run recorded no link (a closed form has none)")
    figure, wires = Canvas(), wiring(run)
    detailed = len(run.nodes_in_use) * run.gpus_per_node <= _DETAIL
    tiers = _detailed(figure, wires) if detailed else _condensed(wires)
    columns = max(len({spot.x for spot in spots}) for spots in tiers.values())
    for tier, spots in tiers.items():
        _draw(figure, tier, spots, max(5.0, min(22.0, 720 / columns)))
    scale = {"cmin": 0, "cmax": 100, "colorscale": style.LOAD, "showscale": True}
    key = style.colourbar("load of the busiest link<br>[% of what kernels reach]")
    figure.add(
        "scatter", x=[None], y=[None], mode="markers", showlegend=False, hoverinfo="skip",
        marker={"color": [0, 100], **scale, "colorbar": key},
    )  # fmt: skip
    ys = [spot.y for spots in tiers.values() for spot in spots]
    heights = {
        f"{name}  ": (min(s.y for s in spots) + max(s.y for s in spots)) / 2 for name, spots in tiers.items()
    }
    below, above = (0.6, 0.3) if detailed else (0.8, 0.8)
    figure.axis(
        "y", tickvals=list(heights.values()), ticktext=list(heights), range=[min(ys) - below, max(ys) + above], showgrid=False, zeroline=False
    )  # fmt: skip
    figure.axis("x", visible=False)
    height = 130 + 75 * len(tiers) if detailed else 170 + 27 * round(max(ys) - min(ys))
    title = headline(run, _title(tiers))
    least = 90 + _NODE_PX * len(run.nodes_in_use) if detailed else 0
    return style.finish(
        figure, title, height=height + 40, top=80, bottom=10, alt=f"Map of the fabric. {title}", least=least
    )


def _title(tiers: _Tiers) -> str:
    means = {}
    for tier, spots in tiers.items():
        loads = [spot.load for spot in spots if spot.load is not None]
        means[tier] = sum(loads) / len(spots) if loads else 0.0
    tier = max(means, key=lambda name: means[name])
    hottest = max(tiers[tier], key=lambda spot: spot.load or 0.0)
    return f"load is highest at the {tier}: {means[tier]:.0%} of what kernels reach on average, {hottest.name} {hottest.load or 0:.0%}"


def _draw(figure: Canvas, tier: str, spots: Sequence[Spot], size: float) -> None:
    figure.add(
        "scatter", x=[spot.x for spot in spots], y=[spot.y for spot in spots], mode="markers", showlegend=False, name=tier,
        marker={
            "symbol": "square", "size": size, "color": [100 * (spot.load or 0.0) for spot in spots], "cmin": 0, "cmax": 100,
            "colorscale": style.LOAD, "line": {"width": 1, "color": style.RULE},
        },
        text=[f"{spot.name}: {'idle' if spot.load is None else f'{spot.load:.0%}'}" for spot in spots],
        hovertemplate="%{text}<extra></extra>",
    )  # fmt: skip


def _detailed(figure: Canvas, wires: Wiring) -> _Tiers:
    """Every GPU, NIC, leaf and spine, and the cables between them (drawn into `figure`)."""
    run, per_node = wires.run, wires.run.gpus_per_node
    gap = 0.0 if per_node == 1 else 1.0
    x_of = {(node, i): run.nodes_in_use.index(node) * (per_node + gap) + i for node, i in _places(run)}
    width = max(x_of.values()) + 1
    leaf_x, spine_x = _evenly(wires.leaves, width), _evenly(wires.spines, width)
    ports: dict[str, list[str]] = {}
    cables: list[tuple[float, float, float, float, float]] = []
    gpus, nics = [], []
    for (node, i), x in x_of.items():
        used, leaf = wires.nic(node, i), _leaf_of(run, node, i)[0]
        ports.setdefault(leaf, []).extend(wires.ports(node, i))
        nics.append(Spot(x, 1.0, nic_name(run, wires.loads, node, i), used))
        if leaf in leaf_x and used is not None:
            cables.append((x, 1.0, leaf_x[leaf], 2.0, used))
        if not run.is_bare:
            gpus.append(Spot(x, 0.0, f"node{node}/gpu{i} (NVLink)", wires.gpu(node, i)))
            if used is not None:
                pcie = wires.load(*(f"node{node}/gpu{i}/pcie/{way}" for way in ("tx", "rx")))
                cables.append((x, 0.0, x, 1.0, pcie or 0.0))
    for leaf, lx in leaf_x.items():
        for spine, sx in spine_x.items():
            used = wires.cable(leaf, spine)
            if used is not None:
                cables.append((lx, 2.0, sx, 3.0, used))
    _cables(figure, cables)
    nics_used = any(spot.load is not None for spot in nics)
    if not run.is_bare and per_node > 1:
        for node in run.nodes_in_use:
            x, line = x_of[node, 0], {"width": 1, "color": style.RULE}
            figure.rectangle((x - 0.65, x + per_node - 0.35), (-0.3, 1.3 if nics_used else 0.3), line=line)
            figure.note(f"node {node}", x + (per_node - 1) / 2, -0.34, yanchor="top", font={"size": 12})
    return _used(
        {
            "spines": [Spot(x, 3.0, name, wires.spine(name)) for name, x in spine_x.items()],
            "leaves": [
                Spot(x, 2.0, name, wires.leaf(name, *ports.get(name, ()))) for name, x in leaf_x.items()
            ],
            "hosts" if run.is_bare else "NICs": nics,
            "GPUs": gpus,
        },
        nics_used,
    )


def _evenly(names: Sequence[str], width: float) -> dict[str, float]:
    """Places of boxes spread over a width."""
    return {name: (k + 0.5) * width / len(names) - 0.5 for k, name in enumerate(names)}


def _used(tiers: _Tiers, nics_used: bool) -> _Tiers:
    """The tiers that are there; within a node none but its GPUs."""
    return {name: spots for name, spots in tiers.items() if spots and (nics_used or name == "GPUs")}


def _cables(figure: Canvas, cables: Sequence[tuple[float, float, float, float, float]]) -> None:
    """Lines in five steps of load, so that a thousand cables are five traces."""
    for step, colour in enumerate(style.STEPS):
        xs: list[float | None] = []
        ys: list[float | None] = []
        for x0, y0, x1, y1, load in cables:
            if min(4, int(5 * load)) == step:
                xs += [x0, x1, None]
                ys += [y0, y1, None]
        if xs:
            figure.add(
                "scatter", x=xs, y=ys, mode="lines", line={"color": colour, "width": 1 + 0.35 * step}, hoverinfo="skip", showlegend=False
            )  # fmt: skip


def _condensed(wires: Wiring) -> _Tiers:
    """One square a node for its GPUs and one for its NICs, in rows; leaves and spines above."""
    run, per_node = wires.run, range(wires.run.gpus_per_node)
    bare, num = run.is_bare, len(per_node)
    gpus = {
        f"node{node}: NVLink of {num} GPUs, mean": _mean(wires.gpu(node, i) for i in per_node)
        for node in (() if bare else run.nodes_in_use)
    }
    nics = {
        f"host{node}" if bare else f"node{node}: {num} NICs, mean": _mean(
            wires.nic(node, i) for i in per_node
        )
        for node in run.nodes_in_use
    }
    ports: dict[str, list[str]] = {}
    for node, i in _places(run):
        ports.setdefault(_leaf_of(run, node, i)[0], []).extend(wires.ports(node, i))
    leaves = {name: wires.leaf(name, *ports.get(name, ())) for name in wires.leaves}
    spines = {name: wires.spine(name) for name in wires.spines}
    tiers: _Tiers = {}
    base = 0.0
    for tier, loads in {
        "GPUs": gpus,
        "hosts" if bare else "NICs": nics,
        "leaves": leaves,
        "spines": spines,
    }.items():
        num_rows = -(-len(loads) // _PER_ROW)
        tiers[tier] = [
            Spot(k % _PER_ROW, base + num_rows - 1 - k // _PER_ROW, name, load)
            for k, (name, load) in enumerate(loads.items())
        ]
        base += num_rows + 0.6 if loads else 0.0
    return _used(dict(reversed(tiers.items())), any(load is not None for load in nics.values()))


def _mean(loads: Iterable[float | None]) -> float | None:
    used = [load for load in loads if load is not None]
    return sum(used) / len(used) if used else None
