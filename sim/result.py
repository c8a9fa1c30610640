"""The result of a run in Python: the document itself, which draws, tabulates and saves itself when asked.

    result = sim.run("deepep-ep16-h800")
    result.figure("bars").show()
    result.to_polars()

Why this way: everything that reads `result.json` reads a `Result` too, since it is that mapping and nothing beside it; each
variant in it is one again. What a method needs is imported when it is called.
"""

from __future__ import annotations

import html
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from sim.show.views import names as names_views
from sim.show.words import sweep as sweep_words

_SHOWN = 12  # metrics of a notebook's table


class Result(dict[str, Any]):
    """The document of a run, sweep or ladder (README, "result.json") with its figures, report and tables."""

    def __init__(self, document: Mapping[str, Any]) -> None:
        super().__init__(document)
        if isinstance(self.get("variants"), Mapping):
            self["variants"] = {name: Result(one) for name, one in self["variants"].items()}

    # --- figures ---------------------------------------------------------------------------------------------------

    def kinds(self) -> list[str]:
        """The kinds of figures that this result has the data for."""
        from sim.show.plots import kinds as plots

        return list(plots.drawable(self))

    def figure(self, kind: str, variant: str | None = None) -> Any:
        """One figure, a `plotly.graph_objects.Figure`; `moesim plot --list` says what each kind shows.

        Kinds of a single run show the first variant, or the one that is named. Raises `InputError` for an unknown kind
        or variant, and for a kind without data here.
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
        """What the result says, a sentence each, the most important first."""
        from sim.show.views import sweep as sweeps
        from sim.show.words import ladder as ladders
        from sim.show.words import run as findings

        if self._is_run:
            return findings.finding(self)
        return sweep_words.finding(self) if sweeps.is_sweep(self) else ladders.finding(self)

    @property
    def _is_run(self) -> bool:
        return "rungs" not in self and "points" not in self

    def table(self) -> list[dict[str, Any]]:
        """Rows of metrics by dotted name, the same in every row; None where a row does not have one.

        Of a run a row for each variant (one without any), after `name` and `variant`; of a sweep a row a point, as exported;
        of a ladder a row for each rung, way of reading it and machine.
        """
        if "points" in self:
            from sim.show.files import export

            columns = export.table(self)
            return [dict(zip(columns, row, strict=True)) for row in zip(*columns.values(), strict=True)]
        if "rungs" in self:
            rows = [
                {"rung": rung["name"], "read": way, "machine": machine, **dict(_flat(metrics or {}))}
                for rung in self["rungs"]
                for way in ("cumulative", "added_first", "removed_last")
                for machine, metrics in rung[way].items()
            ]
        else:
            rows = [
                {"name": self.get("name"), "variant": variant, **dict(_flat(one.get("metrics") or {}))}
                for variant, one in (self.get("variants") or {None: self}).items()
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
        """What a console shows: title and findings; `dict(result)` shows all there is, which may be megabytes."""
        if "schema" not in self:  # a part, or something made by hand
            return super().__repr__()
        return "\n".join([str(self.get("title") or self.get("name") or "Result"), *self.finding()])

    def _repr_html_(self) -> str:
        """What a notebook shows: title, findings, and the first metrics."""
        said = "".join(f"<p>{_text(one)}</p>" for one in self.finding())
        title = _text(self.get("title") or self.get("name") or "Result")
        if not self._is_run:
            return f"<h4>{title}</h4>{said}<p>All rows in <code>.table()</code></p>"
        rows = self.table()
        metrics = [key for key in rows[0] if key not in ("name", "variant")]
        heads = "".join(f"<th>{_text(row['variant'] or row['name'])}</th>" for row in rows)
        body = "".join(
            f"<tr><th style='text-align:left'>{_text(key)}</th>{''.join(f'<td>{_cell(key, row[key])}</td>' for row in rows)}</tr>"
            for key in metrics[:_SHOWN]
        )
        left = len(metrics) - _SHOWN
        more = f"<p>{left} more metrics in <code>.table()</code></p>" if left > 0 else ""
        return f"<h4>{title}</h4>{said}<table><thead><tr><th></th>{heads}</tr></thead><tbody>{body}</tbody></table>{more}"


def _flat(tree: Mapping[str, Any], at: str = "") -> Iterator[tuple[str, Any]]:
    """Dotted name and value of every metric; words such as what binds are kept."""
    for key, value in tree.items():
        if isinstance(value, Mapping):
            yield from _flat(value, f"{at}{key}.")
        else:
            yield f"{at}{key}", value


def _text(value: Any) -> str:
    return html.escape(str(value))


def _cell(key: str, value: Any) -> str:

    if isinstance(value, int | float) and not isinstance(value, bool):
        return _text(names_views.value(key, float(value)))
    return "-" if value is None else _text(value)
