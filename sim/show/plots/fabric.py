"""The fabric map: spines, leaves, NICs and GPUs of a run, coloured by load.

Why this way: up to 64 endpoints every GPU, NIC and cable is drawn; beyond, a cable is thinner than a pixel, so each node
becomes one square for its GPUs and one for its NICs, laid out in rows, and leaves stand above by rail and pod. The map is
drawn from the run's `links` and its scenario alone.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from sim.show import style
from sim.show.canvas import Canvas, absent
from sim.show.views.run import Case, Result, cases

_DETAIL = 64  # endpoints up to which each is drawn
_PER_ROW = 32
_NODES_PER_LEAF = 32  # where the scenario leaves it to the profile
_LEAF = re.compile(r"((?:(?:rail|plane)(\d+)/)?leaf(\d+))(?:/(?:up|down)$|->)")
_LEAF_END = re.compile(r"->((?:(?:rail|plane)(\d+)/)?leaf(\d+))$")


@dataclass(frozen=True, slots=True)
class Spot:
    """A thing on the map: place, name, load (0..1; None where it carried nothing)."""

    x: float
    y: float
    name: str
    load: float | None


def fabric_map(result: Result) -> Any:
    """The cluster from GPUs (below) to spines (above), each coloured by its busiest link."""
    case = cases(result)[0]
    if not case.links:
        raise absent("fabric_map", "this run recorded no link (a closed form has none)")
    figure = Canvas()
    detailed = case.num_nodes * case.gpus_per_node <= _DETAIL
    tiers = _detailed(figure, case) if detailed else _condensed(case)
    columns = max(len({spot.x for spot in spots}) for spots in tiers.values())
    size = max(5.0, min(22.0, 720 / columns))
    for tier, spots in tiers.items():
        _draw(figure, tier, spots, size)
    figure.add(
            "scatter",
        x=[None], y=[None], mode="markers", showlegend=False, hoverinfo="skip",
        marker={"color": [0, 100], "cmin": 0, "cmax": 100, "colorscale": style.LOAD, "showscale": True, "colorbar": style.colourbar("load of the busiest link<br>[% of what kernels reach]")},
    )  # fmt: skip
    ys = [spot.y for spots in tiers.values() for spot in spots]
    labels = {name: (min(s.y for s in spots) + max(s.y for s in spots)) / 2 for name, spots in tiers.items()}
    figure.axis("y",
        tickvals=list(labels.values()), ticktext=[f"{name}  " for name in labels], range=[min(ys) - (0.6 if detailed else 0.8), max(ys) + (0.3 if detailed else 0.8)],
        showgrid=False, zeroline=False,
    )  # fmt: skip
    figure.axis("x", visible=False)
    height = 130 + 75 * len(tiers) if detailed else 170 + 27 * round(max(ys) - min(ys))
    return style.finish(
        figure,
        _title(case, tiers),
        height=height + 40,
        top=80,
        bottom=10,
        alt=f"Map of the fabric. {_title(case, tiers)}",
    )


def _title(case: Case, tiers: dict[str, list[Spot]]) -> str:
    lead = f"{case.name}: " if case.variant else ""
    means = []
    for tier, spots in tiers.items():
        loads = [spot.load for spot in spots if spot.load is not None]
        means.append((sum(loads) / len(spots), tier, spots) if loads else (0.0, tier, spots))
    mean, tier, spots = max(means, key=lambda one: one[0])
    hottest = max(spots, key=lambda spot: spot.load or 0.0)
    said = f"{lead}load is highest at the {tier}: {mean:.0%} of what kernels reach on average, {hottest.name} {hottest.load or 0:.0%}"
    return said if lead else said[0].upper() + said[1:]


def _draw(figure: Canvas, tier: str, spots: Sequence[Spot], size: float) -> None:
    figure.add(
            "scatter",
        x=[s.x for s in spots], y=[s.y for s in spots], mode="markers", showlegend=False, name=tier,
        marker={
            "symbol": "square", "size": size, "color": [100 * (s.load or 0.0) for s in spots], "cmin": 0, "cmax": 100,
            "colorscale": style.LOAD, "line": {"width": 1, "color": style.RULE},
        },
        text=[f"{s.name}: {s.load:.0%}" if s.load is not None else f"{s.name}: idle" for s in spots],
        hovertemplate="%{text}<extra></extra>",
    )  # fmt: skip


def _load(case: Case, *names: str) -> float | None:
    used = [case.links[name]["utilisation_fraction"] for name in names if name in case.links]
    return max(used) if used else None


def _nic(case: Case, node: int, index: int) -> str:
    return (
        f"host{node}"
        if f"host{node}/tx" in case.links or case.hardware == "bare fabric"
        else f"node{node}/nic{index}"
    )


def _leaves(case: Case) -> dict[str, tuple[int, int]]:
    """Leaves of the map by name: rail and pod."""
    found = {}
    for resource in case.links:
        for pattern in (_LEAF, _LEAF_END):
            hit = pattern.search(resource)
            if hit:
                found[hit[1]] = (int(hit[2] or 0), int(hit[3]))
    for node in range(case.num_nodes):
        for index in range(case.gpus_per_node):
            name, rail, pod = _leaf_of(case, node, index)
            if _load(case, f"{_nic(case, node, index)}/tx", f"{_nic(case, node, index)}/rx") is not None:
                found.setdefault(name, (rail, pod))
    return dict(sorted(found.items(), key=lambda one: (one[1][1], one[1][0])))


def _leaf_of(case: Case, node: int, index: int) -> tuple[str, int, int]:
    fabric = (case.scenario.get("cluster") or {}).get("fabric") or {}
    if "hosts_per_leaf" in fabric:
        pod = node // int(fabric["hosts_per_leaf"])
        return f"leaf{pod}", 0, pod
    pod = node // int(fabric.get("nodes_per_leaf") or _NODES_PER_LEAF)
    return f"{'plane' if fabric.get('kind') == 'multi_plane' else 'rail'}{index}/leaf{pod}", index, pod


def _leaf_load(case: Case, leaf: str, ports: dict[str, list[str]]) -> float | None:
    mine = [
        name
        for name in case.links
        if name.startswith((f"{leaf}/", f"{leaf}->")) or name.endswith(f"->{leaf}")
    ]
    return _load(case, *mine, *ports.get(leaf, ()))


def _ports(case: Case) -> dict[str, list[str]]:
    """The links of the NICs that stand on each leaf."""
    ports: dict[str, list[str]] = {}
    for node in range(case.num_nodes):
        for index in range(case.gpus_per_node):
            nic = _nic(case, node, index)
            ports.setdefault(_leaf_of(case, node, index)[0], []).extend((f"{nic}/tx", f"{nic}/rx"))
    return ports


def _spines(case: Case) -> list[str]:
    named = {
        part
        for name in case.links
        if "->" in name
        for part in name.split("->")
        if "spine" in part or "core" in part
    }
    if named:
        return sorted(named, key=lambda name: [int(n) for n in re.findall(r"\d+", name)])
    return (
        ["spines (uplinks pooled)"]
        if any(link["class"] == "leaf_uplink" for link in case.links.values())
        else []
    )


def _spine_load(case: Case, spine: str) -> float | None:
    mine = [name for name in case.links if name.startswith(f"{spine}->") or name.endswith(f"->{spine}")]
    if not mine:
        mine = [name for name, link in case.links.items() if link["class"] == "leaf_uplink"]
    return _load(case, *mine)


def _detailed(figure: Canvas, case: Case) -> dict[str, list[Spot]]:
    """Every GPU, NIC, leaf and spine, and the cables between them (drawn into `figure`)."""
    per_node, bare = case.gpus_per_node, case.hardware == "bare fabric"
    gap = 0.0 if per_node == 1 else 1.0
    x_of = {(n, i): n * (per_node + gap) + i for n in range(case.num_nodes) for i in range(per_node)}
    width = max(x_of.values()) + 1
    leaves, ports = _leaves(case), _ports(case)
    leaf_x = {name: (k + 0.5) * width / len(leaves) - 0.5 for k, name in enumerate(leaves)}
    spines = _spines(case)
    spine_x = {name: (k + 0.5) * width / len(spines) - 0.5 for k, name in enumerate(spines)}
    cables: list[tuple[float, float, float, float, float | None]] = []
    gpus, nics = [], []
    for (n, i), x in x_of.items():
        nic = _nic(case, n, i)
        leaf = _leaf_of(case, n, i)[0]
        used = _load(case, f"{nic}/tx", f"{nic}/rx")
        nics.append(Spot(x, 1.0, nic, used))
        if leaf in leaf_x and used is not None:
            cables.append((x, 1.0, leaf_x[leaf], 2.0, used))
        if not bare:
            gpu = f"node{n}/gpu{i}"
            gpus.append(
                Spot(
                    x,
                    0.0,
                    f"{gpu} (NVLink)",
                    _load(case, f"{gpu}/scale_up/egress", f"{gpu}/scale_up/ingress"),
                )
            )
            if used is not None:
                cables.append((x, 0.0, x, 1.0, _load(case, f"{gpu}/pcie/tx", f"{gpu}/pcie/rx")))
    for leaf, lx in leaf_x.items():
        for spine, sx in spine_x.items():
            used = (
                _load(case, f"{leaf}->{spine}", f"{spine}->{leaf}")
                if "pooled" not in spine
                else _leaf_load(case, leaf, {})
            )
            if used is not None:
                cables.append((lx, 2.0, sx, 3.0, used))
    _cables(figure, cables)
    used_nics = [spot for spot in nics if spot.load is not None]
    if not bare and per_node > 1:
        for n in range(case.num_nodes):
            first = x_of[n, 0]
            line = {"width": 1, "color": style.RULE}
            figure.rectangle(
                (first - 0.65, first + per_node - 0.35), (-0.3, 1.3 if used_nics else 0.3), line=line
            )
            figure.note(f"node {n}", first + (per_node - 1) / 2, -0.34, yanchor="top", font={"size": 12})
    tiers = {
        "spines": [Spot(x, 3.0, name, _spine_load(case, name)) for name, x in spine_x.items()],
        "leaves": [Spot(x, 2.0, name, _leaf_load(case, name, ports)) for name, x in leaf_x.items()],
        "hosts" if bare else "NICs": nics,
        "GPUs": gpus,
    }
    if not used_nics:
        tiers = {"GPUs": gpus}
    return {name: spots for name, spots in tiers.items() if spots}


def _cables(figure: Canvas, cables: Sequence[tuple[float, float, float, float, float | None]]) -> None:
    """Lines in five steps of load, so that a thousand cables are five traces."""
    for step, colour in enumerate(style.STEPS):
        xs: list[float | None] = []
        ys: list[float | None] = []
        for x0, y0, x1, y1, load in cables:
            if min(4, int(5 * (load or 0.0))) == step:
                xs += [x0, x1, None]
                ys += [y0, y1, None]
        if xs:
            figure.add(
                "scatter",
                x=xs,
                y=ys,
                mode="lines",
                line={"color": colour, "width": 1 + 0.35 * step},
                hoverinfo="skip",
                showlegend=False,
            )


def _condensed(case: Case) -> dict[str, list[Spot]]:
    """One square a node for its GPUs and one for its NICs, in rows; leaves and spines above."""
    bare, per_node = case.hardware == "bare fabric", case.gpus_per_node
    nodes = range(case.num_nodes)
    rows = -(-case.num_nodes // _PER_ROW)

    def place(k: int, base: float) -> tuple[float, float]:
        return k % _PER_ROW, base - k // _PER_ROW

    def mean(loads: list[float | None]) -> float | None:
        used = [load for load in loads if load is not None]
        return sum(used) / len(used) if used else None

    gpus = [
        Spot(*place(n, rows - 1), f"node{n}: NVLink of {per_node} GPUs, mean",
             mean([_load(case, f"node{n}/gpu{i}/scale_up/egress", f"node{n}/gpu{i}/scale_up/ingress") for i in range(per_node)]))
        for n in nodes
    ]  # fmt: skip
    base = 0.0 if bare else rows + 0.6
    nics = [
        Spot(*place(n, base + rows - 1), f"host{n}" if bare else f"node{n}: {per_node} NICs, mean",
             mean([_load(case, f"{_nic(case, n, i)}/tx", f"{_nic(case, n, i)}/rx") for i in range(per_node)]))
        for n in nodes
    ]  # fmt: skip
    leaves, ports = _leaves(case), _ports(case)
    base += rows + 0.6
    leaf_rows = -(-len(leaves) // _PER_ROW)
    above = [
        Spot(*place(k, base + leaf_rows - 1), name, _leaf_load(case, name, ports))
        for k, name in enumerate(leaves)
    ]
    base += leaf_rows + 0.6
    spines = _spines(case)
    spine_rows = -(-len(spines) // _PER_ROW)
    top = [
        Spot(*place(k, base + spine_rows - 1), name, _spine_load(case, name)) for k, name in enumerate(spines)
    ]
    tiers = {"spines": top, "leaves": above, "hosts" if bare else "NICs": nics, "GPUs": [] if bare else gpus}
    if all(spot.load is None for spot in nics):
        tiers = {"GPUs": gpus}
    return {name: spots for name, spots in tiers.items() if spots}
