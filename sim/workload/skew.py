"""The spread of ranks: routed load, kernel jitter and GPU speed as lognormal deviations, and what is drawn from them."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]

_JITTERS = 4096


@dataclass(frozen=True, slots=True)
class Skew:
    """Lognormal standard deviations [fraction]: all 0 is a balanced step."""

    routed_load: float = 0.0  # by (layer, microbatch, rank); F, B and W of a microbatch share it
    kernel_jitter: float = 0.0  # by kernel
    gpu_spread: float = 0.0  # by GPU, for the whole step


@dataclass(frozen=True, slots=True)
class Draws:
    """Factors drawn for one step, with mean 1 but for loads around other means.

    Parameters
    ----------
    loads : float, [groups, layers, microbatches, lanes]
        Routed load of each rank; empty where all are 1, and of as many groups as draw jitter of their own.
    jitter : float, [some, lanes]
        Times of single launches, taken in turn; empty where all are 1.
    speed : float, [pipeline ranks, groups, lanes]
        Compute time of each GPU.
    """

    loads: Floats
    jitter: Floats
    speed: Floats


def draw(
    skew: Skew,
    *,
    num_ranks: int,
    num_groups: int,
    lanes: int,
    num_layers: int,
    num_microbatches: int,
    seed: int,
    means: Floats | None = None,
) -> Draws:
    """Draw the factors of a step.

    Parameters
    ----------
    skew : Skew
    num_ranks, num_groups, lanes : int [count]
        Pipeline ranks, groups of ranks at each, and ranks of a group.
    num_layers, num_microbatches : int [count]
    seed : int
        Of the scenario.
    means : float, [num_layers, lanes], optional
        Routed load of each rank in each layer that is drawn around; 1 where left out.
    """
    rng = np.random.default_rng([seed, 3])
    shape = (num_groups, num_layers, num_microbatches, lanes)
    loads = np.ones((num_groups if skew.kernel_jitter else 0, 0, 0, 0))
    if skew.routed_load or means is not None:
        loads = lognormal(rng, skew.routed_load, shape)
    if means is not None:
        loads *= means[None, :, None, :]
    return Draws(
        loads=loads,
        jitter=lognormal(rng, skew.kernel_jitter, (_JITTERS, lanes))
        if skew.kernel_jitter
        else np.ones((0, 0)),
        speed=lognormal(rng, skew.gpu_spread, (num_ranks, num_groups, lanes)),
    )


def lognormal(rng: np.random.Generator, deviation: float, shape: tuple[int, ...]) -> Floats:
    """Positive factors with mean 1 and the given standard deviation [fraction]."""
    if deviation == 0:
        return np.ones(shape)
    variance = np.log1p(deviation**2)
    return rng.lognormal(-variance / 2, np.sqrt(variance), shape)
