"""Effective training time of a run that fails and goes on from checkpoints, in closed form.

Failures come at random, with exponential times between them, also while a state is saved and while a run restarts.
"""

from __future__ import annotations

import math


def ettr_fraction(mtbf_s: float, every_s: float, write_s: float, restart_s: float) -> float:
    """Effective training time ratio: training that counts over time on the clock.

    Parameters
    ----------
    mtbf_s : float [s]
        Mean time between failures of the whole cluster.
    every_s : float [s]
        Training between two checkpoints.
    write_s : float [s]
        Time in which training stands while a state is saved.
    restart_s : float [s]
        From a failure until training goes on.

    Returns
    -------
    float, 0 to 1

    Notes
    -----
    tau / (M e^(R / M) (e^((tau + delta) / M) - 1)), of a run without end.

    References
    ----------
    J. T. Daly, A higher order estimate of the optimum checkpoint interval for restart dumps, Future Generation Computer
    Systems 22 (2006), equation 13.

    Examples
    --------
    >>> round(ettr_fraction(18 * 60, 600, 60, 300), 2)
    0.5
    """
    try:
        return every_s / (mtbf_s * math.exp(restart_s / mtbf_s) * math.expm1((every_s + write_s) / mtbf_s))
    except OverflowError:
        return 0.0


def straggler_fraction(mtbf_s: float, speed_fraction: float, detect_s: float, swap_s: float) -> float:
    """Training that counts over time on the clock of a run whose GPUs become slow one after another, and never fail.

    Parameters
    ----------
    mtbf_s : float [s]
        Mean time until any GPU becomes slow.
    speed_fraction : float, 0 to 1
        Of the run's pace, next to one that is slow.
    detect_s, swap_s : float [s]
        Until it is found, and from then until training goes on without it.

    Returns
    -------
    float, 0 to 1

    Notes
    -----
    (M + s d) / (M + d + w): a renewal process of healthy times M, slow times d and swaps w.

    Examples
    --------
    >>> straggler_fraction(7200, 0.5, 3600, 1200)
    0.75
    """
    return (mtbf_s + speed_fraction * detect_s) / (mtbf_s + detect_s + swap_s)


def best_every_s(mtbf_s: float, write_s: float) -> float:
    """Training between checkpoints that wastes least, by Daly's estimate.

    Parameters
    ----------
    mtbf_s, write_s : float [s]
        As of `ettr_fraction`.

    Returns
    -------
    float [s]

    Notes
    -----
    sqrt(2 delta M) (1 + sqrt(delta / 2 M) / 3 + delta / 18 M) - delta, and M from delta = 2 M on. Its first term is Young's.

    References
    ----------
    J. T. Daly (2006), equation 37; J. W. Young, A first order approximation to the optimum checkpoint interval,
    Communications of the ACM 17 (1974).
    """
    if write_s >= 2 * mtbf_s:
        return mtbf_s
    half = write_s / (2 * mtbf_s)
    return math.sqrt(2 * write_s * mtbf_s) * (1 + math.sqrt(half) / 3 + half / 9) - write_s
