"""The result of a run in Python: the document itself, which draws, tabulates and saves itself when asked.

    result = sim.run("deepep-ep16-h800")
    result.figure("bars").show()
    result.to_polars()

Why this way: everything that reads `result.json` reads a `Result` too, since it is that mapping and nothing more; each
variant in it is one again. What a method needs is imported when it is called.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from sim.show.kinds import kind_of, runs_in
from sim.trees import dotted


class Metrics(dict[str, Any]):
    """Metrics of a run by name, as attributes too: `metrics.dispatch.time_s`, a float in SI units, or a word."""

    def __getattr__(self, name: str) -> Any:
        if name not in self:
            from sim.errors import nearest

            near = nearest(name, self)
            hint = f"; did you mean {near}?" if near else ""
            raise AttributeError(f"no metric '{name}': there are {', '.join(self)}{hint}")
        value = self[name]
        return Metrics(value) if isinstance(value, Mapping) else value

    def __dir__(self) -> list[str]:
        return [*super().__dir__(), *self]


class Result(dict[str, Any]):
    """The document of a run, sweep or ladder (docs/results.md) with its figures, report and tables."""

    def __init__(self, document: Mapping[str, Any]) -> None:
        super().__init__(document)
        if isinstance(self.get("variants"), Mapping):
            self["variants"] = {name: Result(run) for name, run in self["variants"].items()}

    # --- what came out ---------------------------------------------------------------------------------------------

    @property
    def metrics(self) -> Metrics:
        """Metrics as attributes; of a result with variants, those of each by its name. Units are in the names."""
        runs = runs_in(self)
        return Metrics(
            self["metrics"] if "metrics" in self else {name: run["metrics"] for name, run in runs.items()}
        )

    @property
    def links(self) -> dict[str, Any]:
        """Load of each link by name: bytes, busy seconds, utilisation; of a result with variants the first's."""
        return dict(self._first["links"])

    @property
    def timeline(self) -> Any:
        """The timeline as result.json has it, None of a kind without one; of a result with variants the first's."""
        return self._first.get("timeline")

    @property
    def _first(self) -> Mapping[str, Any]:
        return self if "metrics" in self else next(iter(runs_in(self).values()))

    # --- figures ---------------------------------------------------------------------------------------------------

    def kinds(self) -> list[str]:
        """Kinds of figures that this result has the data for."""
        from sim.show.plots import kinds as plots

        return list(plots.drawable(self))

    def figure(self, kind: str, variant: str | None = None) -> Any:
        """Draw one figure.

        Parameters
        ----------
        kind : str
            `moesim plot --list` describes each.
        variant : str or None
            For kinds that show a single run; the first by default.

        Returns
        -------
        plotly.graph_objects.Figure

        Raises
        ------
        InputError
            For an unknown kind or variant, and for a kind that this result has no data for.
        """
        from sim.show.plots import kinds as plots

        return plots.figure(
            kind, self if variant is None else {"variants": {variant: self._variant(variant)}}
        )

    def _variant(self, name: str) -> Any:
        from sim.errors import InputError, Problem, nearest

        known = self.get("variants") or {}
        if name not in known:
            wanted = f"one of: {', '.join(known)}" if known else "no name: this result has no variants"
            raise InputError(Problem(None, "variant", f"'{name}'", wanted, nearest(name, known)))
        return known[name]

    # --- files -----------------------------------------------------------------------------------------------------

    def report(self, path: str | Path) -> Path:
        """Write the report as one HTML file, whole or not at all; returns its path."""
        from sim.show.files import folder
        from sim.show.pages import report

        file = Path(path)
        folder.write(file.parent, {file.name: report.report_html(self)})
        return file

    def save(self, folder: str | Path) -> list[Path]:
        """Write what the command leaves: the document, report.html, a run's trace.json.gz and CSVs; returns the paths."""
        from sim.show.files import folder as folders

        return folders.save(Path(folder), self)

    # --- tables ----------------------------------------------------------------------------------------------------

    def finding(self) -> list[str]:
        """Return the findings, a sentence each, the most important first."""
        from sim.show.views.ladder import ladder_view
        from sim.show.views.run import views_of
        from sim.show.views.sweep import sweep_view
        from sim.show.words import ladder, run, sweep

        kind = kind_of(self)
        if kind == "sweep":
            return sweep.finding(sweep_view(self))
        return ladder.finding(ladder_view(self)) if kind == "ladder" else run.finding(views_of(self))

    @property
    def _is_run(self) -> bool:
        return kind_of(self) == "run"

    def table(self) -> list[dict[str, Any]]:
        """Rows of metrics by dotted name, the same in every row; None where a row does not have one.

        Of a run a row for each variant (one without any), after `name` and `variant`; of a sweep a row a point, as exported;
        of a ladder a row for each rung, way of reading it and machine.
        """
        kind = kind_of(self)
        if kind == "sweep":
            from sim.show.files import export

            columns = export.table(self)
            return [dict(zip(columns, row, strict=True)) for row in zip(*columns.values(), strict=True)]
        if kind == "ladder":
            rows = [
                {"rung": rung["name"], "read": way, "machine": machine, **dotted(metrics or {})}
                for rung in self["rungs"]
                for way in ("cumulative", "added_first", "removed_last")
                for machine, metrics in rung[way].items()
            ]
        else:
            rows = [
                {"name": self.get("name"), "variant": variant or None, **dotted(run.get("metrics") or {})}
                for variant, run in runs_in(self).items()
            ]
        names = dict.fromkeys(key for row in rows for key in row)
        return [{key: row.get(key) for key in names} for row in rows]

    def to_pandas(self) -> Any:
        """`table` as a `pandas.DataFrame`. Raises `ImportError` where pandas is not installed."""
        try:
            import pandas
        except ImportError:
            raise ImportError("to_pandas needs pandas: pip install pandas") from None
        return pandas.DataFrame(self.table())

    def to_polars(self) -> Any:
        """`table` as a `polars.DataFrame`. Raises `ImportError` where polars is not installed."""
        try:
            import polars
        except ImportError:
            raise ImportError("to_polars needs polars: pip install 'moesim[tables]'") from None
        return polars.DataFrame(self.table(), infer_schema_length=None)

    def __repr__(self) -> str:
        """Title and findings, for a console; `dict(result)` shows all there is, which may be megabytes."""
        if "schema" not in self:  # a part, or something made by hand
            return super().__repr__()
        return "\n".join([self._title, *self.finding()])

    def _repr_html_(self) -> str:
        """Title, findings and the first metrics, for a notebook."""
        from sim.show.pages import notebook

        if self._is_run:
            return notebook.runs_html(self._title, self.finding(), self.table())
        return notebook.study_html(self._title, self.finding())

    @property
    def _title(self) -> str:
        return str(self.get("title") or self.get("name") or "Result")
