"""Recipe of a training run: number formats, what is computed again, and the optimizer with its states."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

from sim.cost.optimizer import Optimizer
from sim.cost.recompute import recomputed
from sim.errors import InputError, Problem, nearest
from sim.workload.formats import PRODUCTS, ProductName


@dataclass(frozen=True, slots=True)
class Recipe:
    """Formats of a training run; the defaults are DeepSeek-V3's.

    Parameters
    ----------
    compute : str
        A name of `formats.PRODUCTS`, of copies of matrices and kept inputs; "fp8" keeps what SwiGLU reads and attention gives too.
    recompute : str or sequence of str
        Part that the backward computes again: "none", "selective", "full" or modules, see `cost.recompute`.
    optimizer : Optimizer
    attention_output_bits : float [bits per element]
        Format in which "fp8" keeps the output of attention: a 12-bit one, E5M6.
    """

    compute: ProductName = "fp8"
    recompute: str | Sequence[str] = "selective"
    optimizer: Optimizer = field(default_factory=Optimizer)
    attention_output_bits: float = 12.0

    def checked(self) -> Recipe:
        """The recipe. Raises `InputError` for one that does not exist."""
        recomputed(self.recompute)
        if self.compute not in PRODUCTS:
            got, near = f"'{self.compute}'", nearest(str(self.compute), PRODUCTS)
            raise InputError(Problem(None, "compute", got, f"one of: {', '.join(PRODUCTS)}", near))
        return self
