"""How far figures are off on each machine: the counted rows of a validation by the hardware that they were simulated on.

Why this way: groups are of a kernel or a step, and a reader has a machine. Only what measurements say of it counts: rows that are
independent and not exact, for a verdict of an export rule tells nothing of how fast a machine is, and neither does a model's size.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from sim.cluster.hardware import list_hardware


def by_machine(groups: Mapping[str, Mapping[str, Any]], *, whole: bool) -> dict[str, dict[str, Any]]:
    """Return the errors of each machine over groups of a validation's document.

    Parameters
    ----------
    groups : mapping
        Document of each group by its name.
    whole : bool
        They are all groups: machines of which no row is, are there too, for they were never compared.

    Returns
    -------
    dict
        Name of a profile -> `rows` that count and `predicted` of them, `printed` that do not count [count],
        `mean_abs_error_fraction`, `predicted_mean_abs_error_fraction` and `worst_error_fraction` (None without a row), `worst_row`,
        and the mean error of each of its `groups` [fraction].
    """
    counted: dict[str, list[tuple[str, Mapping[str, Any]]]] = {name: [] for name in list_hardware() if whole}
    printed = dict.fromkeys(counted, 0)
    for group, document in groups.items():
        for row in document["rows"]:
            if row["machine"] is None or row["tolerance_fraction"] == 0:
                continue
            mine = counted.setdefault(row["machine"], [])
            if row["bar"] is None:
                printed[row["machine"]] = printed.get(row["machine"], 0) + 1
            elif row["evidence"] == "independent":
                mine.append((group, row))
    return {name: _errors(rows) | {"printed": printed.get(name, 0)} for name, rows in counted.items()}


def _errors(rows: list[tuple[str, Mapping[str, Any]]]) -> dict[str, Any]:
    """Errors of the counted rows of one machine, each with its group."""
    of: dict[str, list[float]] = {}
    for group, row in rows:
        of.setdefault(group, []).append(abs(row["error_fraction"]))
    predicted = [abs(row["error_fraction"]) for _, row in rows if row["use"] == "validation"]
    group, worst = max(rows, key=lambda each: abs(each[1]["error_fraction"]), default=("", None))
    return {
        "rows": len(rows),
        "predicted": len(predicted),
        "mean_abs_error_fraction": _mean([error for errors in of.values() for error in errors]),
        "predicted_mean_abs_error_fraction": _mean(predicted),
        "worst_error_fraction": abs(worst["error_fraction"]) if worst else None,
        "worst_row": f"{group} {worst['id']}" if worst else None,
        "groups": {name: _mean(errors) for name, errors in of.items()},
    }


def _mean(errors: list[float]) -> float | None:
    return sum(errors) / len(errors) if errors else None
