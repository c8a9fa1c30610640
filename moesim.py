"""moesim under its own name: `import moesim` is `import sim`, whose folder's name is older than the distribution's.

import moesim
result = moesim.run("h800-vs-h100")
"""

from typing import TYPE_CHECKING, Any

import sim
from sim import __version__, ladder, load_scenario, run, sweep

if TYPE_CHECKING:
    from sim import (
        AllToAll,
        Balanced,
        Cluster,
        Collective,
        Decode,
        Fabric,
        Flat,
        GroupLimited,
        Layout,
        Lognormal,
        LowLatency,
        Nccl,
        Placement,
        Prefill,
        Result,
        Scenario,
        Serving,
        Training,
        TwoHop,
        Uniform,
        Zipf,
        pass_time,
    )  # fmt: skip

__all__ = [
    "AllToAll", "Balanced", "Cluster", "Collective", "Decode", "Fabric", "Flat", "GroupLimited", "Layout", "Lognormal", "LowLatency",
    "Nccl", "Placement", "Prefill", "Result", "Scenario", "Serving", "Training", "TwoHop", "Uniform", "Zipf", "__version__",
    "ladder", "load_scenario", "pass_time", "run", "sweep",
]  # fmt: skip


def __getattr__(name: str) -> Any:
    return getattr(sim, name)
