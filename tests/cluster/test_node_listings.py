"""Listings of nodes, as `nvidia-smi topo -m` and NCCL print them, read as node files."""

from __future__ import annotations

from pathlib import Path

import pytest

import sim
from command import Moesim
from sim.cluster.hardware import Hardware, load_hardware


def matrix(num_gpus: int, link: str, nics: list[list[int]], far: int = 0) -> str:
    """A table in which each NIC is behind a switch with some GPUs, and `far` NICs with none."""
    names = [f"GPU{i}" for i in range(num_gpus)] + [f"NIC{i}" for i in range(len(nics) + far)]
    near = [set(own) for own in nics] + [set[int]()] * far
    lines = ["\t\x1b[4m" + "\t".join(names) + "\tCPU Affinity\tNUMA Affinity\tGPU NUMA ID\x1b[0m"]
    for i, name in enumerate(names):
        row = [name]
        for j in range(len(names)):
            gpu, nic = min(i, j), max(i, j) - num_gpus
            kind = "NODE"
            if i == j:
                kind = " X "
            elif max(i, j) < num_gpus:
                kind = link
            elif gpu < num_gpus:
                kind = "PIX" if gpu in near[nic] else "SYS"
            row.append(kind)
        lines.append("\t".join([*row, *(["0-47,96-143", "0", "N/A"] if i < num_gpus else [])]))
    return "\n".join([*lines, "", "Legend:", "  X    = Self", "NIC Legend:", "  NIC0: mlx5_0", ""])


def xml(num_gpus: int, links: int, per_switch: int, rate: int, sm: int = 90) -> str:
    """Two sockets; a NIC and some GPUs on each PCIe switch."""
    switches = []
    for first in range(0, num_gpus, per_switch):
        link = f'<nvlink target="fffffff:ffff:ff" count="{links}" tclass="0x068000"/>' if links else ""
        gpus = "".join(
            f'<pci busid="0000:{i:02x}:00.0" class="0x030200"><gpu dev="{i}" sm="{sm}" rank="{i}">{link}</gpu></pci>'
            for i in range(first, first + per_switch)
        )
        nic = f'<nic><net name="mlx5_{first}" dev="{first}" speed="{rate}" port="1" gdr="1"/></nic>'
        switches.append(f'<pci class="0x060400">{gpus}<pci class="0x020700">{nic}</pci></pci>')
    half = len(switches) // 2
    return "".join(
        ['<system version="1">', '<cpu numaid="0">', *switches[:half], "</cpu>", '<cpu numaid="1">', *switches[half:], "</cpu></system>"]
    )  # fmt: skip


def imported(moesim: Moesim, chip: str, listing: str, name: str = "listing.txt") -> Hardware:
    """A chip in the node of a listing, from the folder that the test is in."""
    Path(name).write_text(listing, encoding="utf-8")
    assert moesim("import", name, "--out", f"{name}.yaml").code == 0
    return load_hardware({"chip": chip, "node": f"{name}.yaml"}, near=Path.cwd())


def test_a_table_of_eight_gpus_and_four_shared_nics_is_the_shipped_node_of_them(moesim: Moesim) -> None:
    """Two more NICs are behind no switch with a GPU: storage, or the host's own."""
    listing = matrix(8, "NV18", [[0, 1], [2, 3], [4, 5], [6, 7]], far=2)
    made, shipped = imported(moesim, "h100", listing), load_hardware({"chip": "h100", "node": "dgx-4nic"})
    assert (made.gpu, made.nic, made.fabric) == (shipped.gpu, shipped.nic, shipped.fabric)
    assert made.parameter("nic.per_node").grade == "measured"
    assert made.parameter("nic.bandwidth").grade == "assumed"
    run = {"name": "x", "cluster": {"hardware": {"chip": "h100", "node": str(Path("listing.txt.yaml").resolve())}, "nodes": 2},
           "workload": {"kind": "collective", "op": "all_to_all", "bytes_per_rank": "256 MiB"}}  # fmt: skip
    like = run | {"cluster": {"hardware": {"chip": "h100", "node": "dgx-4nic"}, "nodes": 2}}
    assert sim.run(run)["metrics"] == sim.run(like)["metrics"]


def test_xml_gives_rates_of_nics_too(moesim: Moesim) -> None:
    made = imported(moesim, "a800", xml(8, 8, 1, 100_000, sm=80), "topology.xml")
    shipped = load_hardware({"chip": "a800", "node": "hgx-8x100"})
    assert (made.gpu, made.nics_per_node, made.nic_bytes_per_s) == (shipped.gpu, 8, 12.5e9)
    assert made.parameter("nic.bandwidth").grade == "measured"
    assert made.gpu.scale_up.reduces_in_switch is None  # of an A100's generation
    hopper = imported(moesim, "h100", xml(8, 18, 2, 400_000), "hopper.xml")
    assert (hopper.gpu.scale_up.reduces_in_switch, hopper.gpus_per_nic, hopper.nic_bytes_per_s) == (
        8,
        2,
        50e9,
    )


def test_gpus_without_nvlink_send_over_pcie(moesim: Moesim) -> None:
    made = imported(moesim, "rtx-pro-6000", matrix(4, "NODE", [[0, 1], [2, 3]]))
    assert made.gpu.scale_up.over_pcie
    assert (made.gpu.scale_up.domain, made.nics_per_node) == (4, 2)


@pytest.mark.parametrize(
    ("listing", "said"),
    [
        ("nothing of the kind", "got no line of GPUs; wanted the table of `nvidia-smi topo -m`"),
        ("<system version='1'/>", "<system> with 0 <gpu>"),
        ("<system", "broken XML"),
        (matrix(8, "NV18", [[0, 1, 2], [3, 4, 5], [6], [7]]), "NICs that the 8 GPUs share evenly"),
        (matrix(8, "NV18", [[0], [1], [2]]), "NICs that the 8 GPUs share evenly"),
        (matrix(4, "NV4", [[0]]).replace("NV4", "SYS", 2), "NVLink between some pairs of GPUs"),
        (xml(4, 0, 2, 100_000).replace('"100000"', '"200000"', 1), "NICs of 100 Gb/s, 200 Gb/s; wanted NICs of one rate"),
    ],
)  # fmt: skip
def test_what_is_no_node_is_one_clear_problem(moesim: Moesim, listing: str, said: str) -> None:
    Path("listing.txt").write_text(listing, encoding="utf-8")
    asked = moesim("import", "listing.txt", "--out", "mine.yaml")
    assert (asked.code, said in asked.err) == (2, True), asked.err
    assert not Path("mine.yaml").exists()
