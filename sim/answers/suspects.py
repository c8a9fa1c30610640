"""What may be wrong, or other, on a real machine: one table of changes that a scenario can be run with.

Each suspect is one plausible change of the machine or its software. It says what it would set in a scenario, or nothing where
it does not apply; where the scenario refuses that, it does not apply either. Whether it explains a measurement is found by running it. Their order is that of how common they are,
and decides between those that fit equally well.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from sim.answers.changed import Changes
from sim.cluster.kernels import generations
from sim.cluster.topology import Fabric
from sim.runs.host_effect import LAUNCHED
from sim.scenario.descriptions import Scenario

_LIMITED = ("group_limited", "deepep_benchmark")
"""Gates that send a token to a few groups only."""
_EVEN = ("uniform", "balanced", *_LIMITED)


@dataclass(frozen=True, slots=True)
class Suspect:
    """One change: a title that a reader understands, and what it sets in a scenario; None where it does not apply."""

    title: str
    changes: Callable[[Scenario], Changes | None]


def _crosses_nodes(scenario: Scenario) -> bool:
    return scenario.hardware is not None and scenario.hardware.nic is not None and scenario.num_nodes > 1


def _nic(part: Callable[[Scenario], float]) -> Callable[[Scenario], Changes | None]:
    """Return what gives each GPU a part of its NICs' rate."""

    def changes(scenario: Scenario) -> Changes | None:
        if not _crosses_nodes(scenario):
            return None
        assert scenario.hardware is not None
        assert scenario.hardware.nic is not None
        rate = scenario.hardware.nic.bandwidth_bytes_per_s * part(scenario)
        return {"cluster.override.nic.bandwidth": f"{rate:.6g} B/s"}

    return changes


def _num_nics(scenario: Scenario) -> int:
    """NICs of a node."""
    return max(1, scenario.hardware.nics_per_node if scenario.hardware else 1)


def _scale_up(scenario: Scenario) -> Changes | None:
    if scenario.hardware is None or scenario.gpus_per_node < 2:
        return None
    return {
        "cluster.override.gpu.scale_up.bandwidth": f"{scenario.hardware.gpu.scale_up.bandwidth_bytes_per_s / 2:.6g} B/s"
    }


def _faults(scenario: Scenario, more: list[dict[str, Any]]) -> Changes:
    known = (scenario.document.get("cluster") or {}).get("faults") or []
    return {"cluster.faults": [*known, *more]}


def _slow_node(scenario: Scenario) -> Changes | None:
    if not _crosses_nodes(scenario) or scenario.faults:
        return None
    last = scenario.num_nodes - 1
    return _faults(scenario, [{"node": last, "bandwidth": "50 %"}])


def _slow_gpu(scenario: Scenario) -> Changes | None:
    return _faults(scenario, [{"node": 0, "gpu": 0, "clock": "80 %"}])


def _hashed(scenario: Scenario) -> Changes | None:
    adaptive = isinstance(scenario.fabric, Fabric) and scenario.fabric.routing == "adaptive"
    return {"cluster.fabric.routing": "ecmp"} if adaptive and _crosses_nodes(scenario) else None


def _gate_of(scenario: Scenario) -> Mapping[str, Any]:
    gate: Mapping[str, Any] | None = (scenario.document.get("workload") or {}).get("gate")
    return gate or {}


def _unlimited(scenario: Scenario) -> Changes | None:
    gate = _gate_of(scenario)
    if gate.get("kind") not in _LIMITED:
        return None
    return {"workload.gate": {"kind": "uniform", "sampling": gate.get("sampling", "tokens")}}


def _popular(scenario: Scenario) -> Changes | None:
    if _gate_of(scenario).get("kind") not in _EVEN:
        return None
    return {"workload.gate": {"kind": "zipf", "exponent": 0.6}}


def _fewer_sms(scenario: Scenario) -> Changes | None:
    sms = getattr(scenario.workload, "comm_sms", 0)
    return {"workload.kernel.comm_sms": sms // 2} if sms > 1 else None


def _bf16(scenario: Scenario) -> Changes | None:
    spec = scenario.workload.spec
    return {"workload.dispatch_dtype": "bf16"} if getattr(spec, "dispatch_dtype", None) == "fp8" else None


def _other_generation(scenario: Scenario) -> Changes | None:
    """Return the next older generation of the kernel's kind; None where only one is known."""
    kernels = scenario.workload.kernels
    if not kernels:
        return None
    older = [name for name in generations(kernels[0].kind) if name < kernels[0].name]
    return {"workload.kernel.generation": older[-1]} if older else None


def _hosted(scenario: Scenario) -> Changes | None:
    """Return the software nearest to the kind of workload that issues launch by launch; None where it has one."""
    software = LAUNCHED.get(scenario.kind)
    return {"software": software} if software and scenario.software is None else None


HEALTHY = "healthy"
SUSPECTS: Mapping[str, Suspect] = {
    HEALTHY: Suspect("nothing: the machine is healthy", lambda scenario: {}),
    "half_nic": Suspect(
        "half of the NIC rate for each GPU: NICs or ports of half the rate, one of two ports idle, or two GPUs to a NIC",
        _nic(lambda scenario: 0.5),
    ),
    "one_nic": Suspect("all ranks of a node on one NIC", _nic(lambda scenario: 1.0 / _num_nics(scenario))),
    "one_slow_nic": Suspect(
        "all ranks of a node on one NIC, and a slow path to it (through the CPU, or half of its rate)",
        _nic(lambda scenario: 0.5 / _num_nics(scenario)),
    ),
    "hashed_paths": Suspect("flows hashed to paths, which collide: no adaptive routing", _hashed),
    "slow_node": Suspect("one node whose NICs run at half of their rate", _slow_node),
    "slow_gpu": Suspect("one GPU at 80 % of its clock", _slow_gpu),
    "half_scale_up": Suspect("half of the NVLinks", _scale_up),
    "host": Suspect("a host that issues launches one by one and waits at synchronisations", _hosted),
    "fewer_sms": Suspect("half of the SMs that copy", _fewer_sms),
    "no_group_limit": Suspect("tokens that go to any group", _unlimited),
    "popular_experts": Suspect("popular experts (Zipf, exponent 0.6)", _popular),
    "bf16": Suspect("dispatch in BF16", _bf16),
    "old_kernel": Suspect("an older generation of the kernel", _other_generation),
}
"""Name -> suspect, the commonest first."""
