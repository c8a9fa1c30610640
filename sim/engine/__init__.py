"""Time passes here and nowhere else: the fluid network, training steps and forward passes, serving.

A researcher runs flows with `run_flows` and collectives with `run_together`, asks for the fluid model alone with `drained`,
shares links between flows of a simulation of its own with `Network`, and runs a `StepPlan` with `run_step`.
"""

from typing import TYPE_CHECKING

from sim.exports import exported

if TYPE_CHECKING:
    from sim.engine.executor import run_flows, run_together
    from sim.engine.failures import FailureRecord, run_failures
    from sim.engine.fluid import Island, Stop, alone, drained, island, lone, merge, rank_times_s
    from sim.engine.fluid import bound_s as island_bound_s
    from sim.engine.network import Network
    from sim.engine.records import Stretch, Trace, TransferRecord
    from sim.engine.serving import serve
    from sim.engine.serving_instance import InstanceRecord
    from sim.engine.serving_lives import ServingTrace
    from sim.engine.sharing import cross, crossings, lead, max_min, scratch
    from sim.engine.step import StepRun, run_step
    from sim.engine.step_plan import GroupCollective, StepPlan, Traffic
    from sim.engine.step_records import GroupRecord, NodeRecords, TaskRecords
    from sim.engine.transfers import Transfers

__all__ = [
    "FailureRecord", "GroupCollective", "GroupRecord", "InstanceRecord", "Island", "Network",
    "NodeRecords", "ServingTrace", "StepPlan", "StepRun", "Stop", "Stretch", "TaskRecords", "Trace",
    "Traffic", "TransferRecord", "Transfers", "alone", "cross", "crossings", "drained", "island", "island_bound_s",
    "lead", "lone", "max_min", "merge", "rank_times_s", "run_failures", "run_flows", "run_step", "run_together",
    "scratch", "serve",
]  # fmt: skip

__getattr__ = exported(__name__, __file__, __all__)
__dir__ = __all__.copy
