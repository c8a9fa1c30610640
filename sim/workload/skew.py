"""The spread of ranks: routed load, kernel jitter and GPU speed as lognormal deviations."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Skew:
    """Lognormal standard deviations [fraction]: all 0 is a balanced step."""

    routed_load: float = 0.0  # by (layer, microbatch, rank); F, B and W of a microbatch share it
    kernel_jitter: float = 0.0  # by kernel
    gpu_spread: float = 0.0  # by GPU, for the whole step

    @property
    def balanced(self) -> bool:
        """True where every rank does the same at the same time."""
        return not (self.routed_load or self.kernel_jitter or self.gpu_spread)
