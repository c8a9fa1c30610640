"""Plots of inference: what a deployment delivers against what a user sees."""

from __future__ import annotations

from typing import Any

from sim.show import style
from sim.show.canvas import Canvas
from sim.show.cases import Result, cases
from sim.show.plot_times import absent
from sim.units import show


def interactivity(result: Result) -> Any:
    """Tokens a second of a GPU against tokens a second of a user, one point a decode variant."""
    points = sorted(
        (
            case.result["metrics"]["tokens_per_s_per_user"],
            case.result["metrics"]["tokens_per_s_per_gpu"],
            case.name,
        )
        for case in cases(result)
        if "tokens_per_s_per_user" in case.result.get("metrics", {})
    )
    if not points:
        raise absent("interactivity", "only decode has tokens per user")
    users, gpus, names = (list(column) for column in zip(*points, strict=True))
    figure = Canvas()
    figure.add(
        "scatter",
            x=users, y=gpus, text=names, mode="lines+markers+text" if len(points) <= 12 else "lines+markers", name="decode",
            textposition="top right", line={"color": style.COLOUR["nic"], "width": 2}, marker={"size": 9}, showlegend=False,
            hovertemplate="%{text}: %{y:,.0f} tokens/s a GPU at %{x:.1f} tokens/s a user<extra></extra>",
    )  # fmt: skip
    figure.axis("x", title="tokens/s of a user", rangemode="tozero")
    figure.axis("y", title="tokens/s of a GPU", rangemode="tozero")
    most = max(range(len(points)), key=lambda i: gpus[i])
    title = f"{names[most]} delivers most, {show(gpus[most], 'count', 3)} tokens/s a GPU, at {users[most]:.1f} tokens/s a user"
    if names[-1] != names[most]:
        title += f"; {names[-1]} is quickest, {users[-1]:.1f}, at {show(gpus[-1], 'count', 3)}"
    alt = "; ".join(f"{n}: {u:.1f} a user, {g:.0f} a GPU" for u, g, n in points)
    return style.finish(figure, title, height=420, alt=f"Throughput against interactivity. {alt}")
