"""How long serving takes. Run with `pytest -o addopts= tests/benchmarks/test_serving_speed.py`.

Ten minutes of 100,000 requests on the scale of a published deployment: instances of 32 GPUs that prefill, of 144 that
decode up to 128 requests each. Aim: 20 s of CPU time, loop and metrics together. A day of 1,000,000 requests of a scenario, whole,
in two classes: 200 s of CPU time and 4 GB.
"""

from __future__ import annotations

import json
import subprocess
import sys
import time
from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from sim.cluster.hardware import load_hardware
from sim.cluster.topology import Fabric, build
from sim.engine.serving import serve
from sim.runs.service import kv_links
from sim.runs.serving_metrics import measure
from sim.schedule.serving import EnginePolicy, Pool, Service
from sim.workload.requests import Lengths, Requests, poisson

AIM_S, DAY_AIM_S, DAY_AIM_BYTES = 20.0, 200.0, 4e9
SERVICE = Service(
    prefill=Pool(4, 32 * 40e9, 0.3, 32),
    decode=Pool(4, 144 * 44e9, 0.3, 144),
    prefill_s=lambda work: 0.05 + work.busiest_tokens / 8e3,
    decode_step_s=lambda work: (
        0.03 + 3e-4 * float(work.requests.max()) + 5e-8 * float(work.context_tokens.max())
    ),
    kv_bytes_per_token=70_272.0,
    engine=EnginePolicy(chunk_tokens=8192, max_requests=128),
    acceptance=(0.7,),
    transfer_latency_s=1e-5,
)
FABRICS = {
    "non-blocking": Fabric(),
    "a leaf carries a tenth": Fabric(nodes_per_leaf=8, oversubscription=10.0),
}


def drawn() -> Requests:
    prompt, output = Lengths("lognormal", 2000, 1.0, 32_768), Lengths("exponential", 300, most_tokens=4096)
    return poisson(100_000, 100_000 / 600, prompt, output, np.random.default_rng(0))


def deployed(fabric: str) -> Service:
    """The service on H800 nodes in a row."""
    gpus = np.arange(4 * (32 + 144))
    instances = [np.split(gpus[:128], 4), np.split(gpus[128:], 4)]
    cluster = build(load_hardware("h800"), len(gpus) // 8, FABRICS[fabric])
    return replace(SERVICE, kv_links=kv_links(cluster, *instances))


@pytest.mark.parametrize("fabric", FABRICS)
def test_ten_minutes_of_a_hundred_thousand_requests(benchmark: Any, fabric: str) -> None:
    asked, service = drawn(), deployed(fabric)

    def whole() -> dict[str, Any]:
        start = time.process_time()
        found = measure(service, asked, serve(service, asked), 4 * (32 + 144), ttft_s=2.0, tpot_s=0.05)
        benchmark.extra_info["cpu_s"] = time.process_time() - start
        return found

    found = benchmark.pedantic(whole, rounds=1)
    benchmark.extra_info["aim_s"] = AIM_S
    assert found["num_ended"] == 100_000


DAY = """
import json, resource, sim
lengths = {"output": {"kind": "lognormal", "mean": 250, "most": 4096}}
chat, long = ({"kind": "lognormal", "mean": mean, "most": 32768} for mean in (1000, 6000))
found = sim.run("serving-example", {
    "variants": {}, "workload.arrivals": {"kind": "poisson", "requests": 10**6, "requests_per_s": 10**6 / 86400, **lengths},
    "workload.classes": {"chat": {"share": 0.8, "prompt": chat}, "long": {"share": 0.2, "prompt": long}},
})
used = resource.getrusage(resource.RUSAGE_SELF)
metrics = found["metrics"]
print(json.dumps({"cpu_s": used.ru_utime + used.ru_stime, "peak_bytes": 1024 * used.ru_maxrss, "num_ended": metrics["num_ended"],
    "of_classes": sum(own["num_ended"] for own in metrics["classes"].values())}))
"""


def test_a_day_of_a_million_requests(benchmark: Any) -> None:
    """In a process of its own, whose peak of memory is that of the run."""

    def whole() -> dict[str, Any]:
        printed = subprocess.run(
            [sys.executable, "-c", DAY], capture_output=True, text=True, check=True
        ).stdout
        return dict(json.loads(printed))

    found = benchmark.pedantic(whole, rounds=1)
    benchmark.extra_info |= {"aim_s": DAY_AIM_S, "aim_bytes": DAY_AIM_BYTES, **found}
    assert found["num_ended"] == found["of_classes"] == 10**6
