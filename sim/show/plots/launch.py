"""Plot of launches: how much of what the data sheet allows each reaches."""

from __future__ import annotations

from sim.show import style
from sim.show.canvas import Canvas, Picture
from sim.show.views.launch import LaunchView
from sim.show.views.names import label
from sim.show.views.run import RunsView
from sim.units import show

ALONE = ()


def bars(runs: RunsView) -> Picture:
    """The lower bound of each launch over its time, coloured by what binds."""
    launches = runs.select(LaunchView)
    reached = {run.name: run.lower_bound_s / run.time_s for run in launches}
    figure = Canvas()
    colours = style.distinct({run.binding: style.COLOUR.get(run.binding, style.NEUTRAL) for run in launches})
    for binding, colour in colours.items():
        bound = [run for run in launches if run.binding == binding]
        figure.add(
            "bar", x=[100 * reached[run.name] for run in bound], y=[run.name for run in bound], orientation="h", name=f"{label(binding)} binds",
            marker=style.fill(colour), text=[show(run.time_s, "s", 3) for run in bound],
            textposition="outside", cliponaxis=False, customdata=[_rate(run) for run in bound],
            hovertemplate="%{y}: %{x:.1f} %, %{text}, %{customdata}<extra></extra>",
        )  # fmt: skip
    figure.axis("x", title="lower bound over time [%]", range=[0, 120], tickvals=list(range(0, 101, 20)))
    figure.categories(type="category", categoryorder="array", categoryarray=list(reached))
    figure.layout |= {"barmode": "overlay", "bargap": 0.35}
    least, most = min(reached, key=reached.__getitem__), max(reached, key=reached.__getitem__)
    title = f"reaches {reached[most]:.0%} of what the data sheet allows"
    if len(reached) > 1:
        title += f", {least} {reached[least]:.0%}"
    words = "; ".join(f"{name} {share:.0%}" for name, share in reached.items())
    height = 120 + 34 * len(reached)
    return style.finish(
        figure, f"{most} {title}", height=height, alt=f"Bars of the bound over the time: {words}"
    )


def _rate(run: LaunchView) -> str:
    """What it computes in a second, else what it moves."""
    return (
        show(run.flops / run.time_s, "flop/s", 3) if run.flops else show(run.bytes / run.time_s, "bytes/s", 3)
    )
