"""Metal and cables: the abilities of a GPU, a node and a fabric. No tokens, and no clock.

A researcher loads a part with `load_hardware`, cables nodes of it with `build`, and asks for the paths between GPUs with
`leg`; `load_kernel` reads what all-to-all kernels reach of the links, `load_library` what other collectives do.
"""

from typing import TYPE_CHECKING

from sim.exports import exported

if TYPE_CHECKING:
    from sim.cluster.collective_library import CollectiveLibrary, load_library
    from sim.cluster.datasheet import Datasheet, describe
    from sim.cluster.export_rules import ChipNumbers, Verdict, chip_numbers, verdicts
    from sim.cluster.fabrics import Fabric, LeafSpine
    from sim.cluster.faults import Fault
    from sim.cluster.hardware import Gpu, Hardware, Hbm, Nic, ScaleUp, list_hardware, load_hardware
    from sim.cluster.kernels import Kernel, list_kernels, load_kernel
    from sim.cluster.parameters import Parameter
    from sim.cluster.paths import Leg, extra_latency_s, leg, uplinks
    from sim.cluster.topology import Cluster, build, build_leaf_spine

__all__ = [
    "ChipNumbers", "Cluster", "CollectiveLibrary", "Datasheet", "Fabric", "Fault", "Gpu", "Hardware", "Hbm",
    "Kernel", "LeafSpine", "Leg", "Nic", "Parameter", "ScaleUp", "Verdict", "build", "build_leaf_spine",
    "chip_numbers", "describe", "extra_latency_s", "leg", "list_hardware", "list_kernels", "load_hardware",
    "load_kernel", "load_library", "uplinks", "verdicts",
]  # fmt: skip

__getattr__ = exported(__name__, __file__, __all__)
__dir__ = __all__.copy
