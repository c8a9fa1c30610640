"""Plots of inference: what a deployment delivers against what a user sees."""

from __future__ import annotations

from typing import Any

from sim.show import style
from sim.show.canvas import Canvas
from sim.show.cases import Result, cases
from sim.show.plot_times import absent


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
    best = [i for i in range(len(points)) if gpus[i] >= max(gpus[i:])]  # no other is better for both
    figure.add(
        "scatter",
            x=[users[i] for i in best], y=[gpus[i] for i in best], mode="lines", showlegend=False, hoverinfo="skip",
            line={"color": style.COLOUR["nic"], "width": 2},
    )  # fmt: skip
    figure.add(
        "scatter",
            x=users, y=gpus, text=names, mode="markers+text" if len(points) <= 12 else "markers", showlegend=False,
            textposition=["top center" if i in best else "bottom center" for i in range(len(points))],
            marker={"size": 9, "color": style.COLOUR["nic"], "opacity": [1.0 if i in best else 0.45 for i in range(len(points))]},
            hovertemplate="%{text}: %{y:,.0f} tokens/s a GPU at %{x:.1f} tokens/s a user<extra></extra>",
    )  # fmt: skip
    figure.axis("x", title="tokens/s of a user", range=[0, 1.15 * users[-1]])
    figure.axis("y", title="tokens/s of a GPU", range=[0, 1.15 * max(gpus)])
    most = max(range(len(points)), key=lambda i: gpus[i])
    title = (
        f"{names[most]} delivers most, {gpus[most]:,.0f} tokens/s a GPU, at {users[most]:.1f} tokens/s a user"
    )
    if names[-1] != names[most]:
        title += f"; {names[-1]} is quickest, {users[-1]:.1f}, at {gpus[-1]:,.0f}"
    alt = "; ".join(f"{n}: {u:.1f} a user, {g:.0f} a GPU" for u, g, n in points)
    return style.finish(figure, title, height=420, alt=f"Throughput against interactivity. {alt}")
