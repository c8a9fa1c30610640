"""Energy of a run as metrics: what its machines are, and what they did.

`energy.gpu_kwh`, `network_kwh` and `host_kwh` are those of the machines, `total_kwh` is their sum times the building's PUE,
`low_kwh` and `high_kwh` that sum with every parameter of power at the low and at the high end of its range.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

import numpy as np

from sim.cluster.sizes import switch_ports
from sim.cluster.topology import CLASSES, Cluster, Floats, LeafSpine
from sim.cost.power import JOULES_PER_KWH, Activity, Energy, Machines, Stated, energy, load_power
from sim.scenario.descriptions import Scenario


def machines_of(scenario: Scenario, num_gpus: int | None = None) -> Machines | None:
    """Machines of a scenario, or so many GPUs of it with their share of its network; None where a GPU's power is unknown.

    A bare fabric has NICs and switches only.
    """
    fabric, hardware = scenario.fabric, scenario.hardware
    if isinstance(fabric, LeafSpine):
        hosts = Machines(num_nics=fabric.hosts, line_bytes_per_s=fabric.link_bytes_per_s)
        return replace(hosts, num_ports=fabric.hosts * switch_ports(fabric, fabric.hosts))
    if hardware is None or hardware.gpu.tdp_w is None:
        return None
    count, nic = scenario.num_ranks if num_gpus is None else num_gpus, hardware.nic
    machines = Machines(num_gpus=count, tdp_w=hardware.gpu.tdp_w)
    num_nodes = scenario.shared.num_nodes if scenario.shared else scenario.num_nodes
    if nic is None or fabric.kind == "scale_up":
        return machines
    return replace(
        machines,
        num_nics=round(count * hardware.nics_of_gpu),
        num_ports=round(count * hardware.nics_of_gpu) * switch_ports(fabric, num_nodes),
        line_bytes_per_s=nic.bandwidth_bytes_per_s,
    )


def network_bytes(cluster: Cluster, carried: Floats) -> dict[str, float]:
    """Bytes that NICs send and that leave ports of switches, fields of an `Activity`, from those carried [num_resources]."""
    uplinks = cluster.class_idx == CLASSES.index("leaf_uplink")
    rows = (
        np.unique(rows[rows >= 0]) for rows in (cluster.nic_tx, cluster.nic_rx)
    )  # of NICs that GPUs share
    sent, received = (float(carried[own].sum()) for own in rows)
    return {"sent_bytes": sent, "switched_bytes": received + float(carried[uplinks].sum())}


def energies(
    machines: Machines, activity: Activity, stated: Stated | None = None
) -> tuple[Energy, Energy, Energy]:
    """Energy with the parameters of power as they are, at their low and at their high ends."""
    low, high = (energy(load_power(end), machines, activity, stated) for end in ("low", "high"))
    return energy(load_power(), machines, activity, stated), low, high


def energy_metrics(
    scenario: Scenario,
    activity: Activity,
    tokens: float | None = None,
    stated: Stated | None = None,
    num_gpus: int | None = None,
) -> dict[str, Any]:
    """The metrics `energy` of a run on `num_gpus`, by default all; `{}` where the power of a GPU is unknown.

    `tokens` are those that all its GPUs work through; without them there is no energy of one.
    """
    machines = machines_of(scenario, num_gpus)
    if machines is None:
        return {}
    used, low, high = energies(machines, activity, stated)
    parts = {f"{name}_kwh": own_j / JOULES_PER_KWH for name, own_j in used.gpu_classes_j.items()}
    parts |= {
        "gpu_kwh": used.gpu_j / JOULES_PER_KWH,
        "network_kwh": used.network_j / JOULES_PER_KWH,
        "host_kwh": used.host_j / JOULES_PER_KWH,
        "total_kwh": used.total_j / JOULES_PER_KWH,
        "low_kwh": low.total_j / JOULES_PER_KWH,
        "high_kwh": high.total_j / JOULES_PER_KWH,
    }
    gpu_s = activity.elapsed_s * machines.num_gpus
    parts["gpu_w"] = used.gpu_j / gpu_s if gpu_s else 0.0
    if tokens:
        parts["per_token_j"] = used.total_j / tokens
    return {"energy": parts}


def summed_energy(machines: Sequence[tuple[Scenario, int, Activity]], tokens: float) -> dict[str, Any]:
    """The metrics `energy` of a run on unlike machines; `{}` where the power of a GPU is unknown.

    Of each a scenario, its GPUs [count], and what the mean one does; `tokens` are those that all work through.
    """
    parts = [energy_metrics(on, done, tokens, num_gpus=num) for on, num, done in machines]
    if len(parts) == 1 or not all(parts):
        return parts[0] if all(parts) else {}
    gpu_s = sum(done.elapsed_s * num for _, num, done in machines)
    return {"energy": added_energy([part["energy"] for part in parts], gpu_s, tokens)}


def added_energy(parts: Sequence[Mapping[str, float]], gpu_s: float, tokens: float) -> dict[str, float]:
    """Energies of parts of a run together, whose GPUs take so many seconds in all for so many tokens."""
    keys = [key for key in parts[0] if key.endswith("_kwh")]
    whole = {key: float(sum(part.get(key, 0.0) for part in parts)) for key in keys}
    whole["gpu_w"] = whole["gpu_kwh"] * JOULES_PER_KWH / gpu_s if gpu_s else 0.0
    if tokens:
        whole["per_token_j"] = whole["total_kwh"] * JOULES_PER_KWH / tokens
    return whole
