"""The range in which results were compared with measurements, and what of a scenario lies beyond it.

A generation of kernels says so itself, in `validated` of its file; workloads of whole models are listed here. Both are those of
counted rows of `scenarios/published/`, as a test holds.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from sim import documents
from sim.cluster.kernels import Kernel, list_kernels, load_kernel
from sim.scenario.descriptions import Scenario

COMPARED: Mapping[str, tuple[tuple[str, str, str], ...]] = {
    "training": (
        ("deepseek-v3", "h800", "none"),
        ("qwen3-30b-a3b", "h100", "megatron_bridge_2026_06"),
        ("qwen3-235b-a22b", "h100", "megatron_core_2026_05"),
        ("mixtral-8x22b", "h100", "megatron_core_2026_05"),
        ("llama-3.1-405b", "h100", "none"),
        ("nemotron-4-340b", "h100", "none"),
    ),
    "prefill": (("deepseek-v3", "h800", "none"), ("deepseek-v3", "h100", "sglang_2025_05")),
    "decode": (("deepseek-v3", "h800", "none"), ("deepseek-v3", "h800", "rtp_llm")),
    "serving": (("deepseek-v3", "h200", "sglang_2026_05"),),
}
"""Kind of workload -> model, hardware and software of what it was compared with."""

LAUNCHES = ("h100", "h200", "h800")
"""Hardware whose compute launches were compared."""


def compared_on(hardware: str) -> list[str]:
    """List what was compared with measurements on a machine, a phrase each.

    Examples
    --------
    >>> compared_on("h20"), compared_on("b200")
    (['all-to-alls of deepep_v1_2025_04'], [])
    """
    kernels = [load_kernel(name) for name in list_kernels()]
    known = [kernel.name for kernel in kernels if kernel.validated and hardware in kernel.validated.hardware]
    phrases = [f"all-to-alls of {', '.join(known)}"] if known else []
    phrases += ["compute launches"] if hardware in LAUNCHES else []
    for kind, runs in COMPARED.items():
        models = dict.fromkeys(model for model, machine, _ in runs if machine == hardware)
        phrases += [f"{kind} of {', '.join(models)}"] if models else []
    return phrases


def errors_on(hardware: str) -> Mapping[str, Any]:
    """Return how far counted figures were off on a machine when they were last compared: `figures` and `predicted` of them [count],
    the mean error of all and of predictions, and the worst; empty where nothing was.
    """
    last = documents.load(documents.data_folder("hardware") / "compared" / "machines.yaml")
    errors: Mapping[str, Any] = last.tree.get(hardware, {})
    return errors


def error_sentence(hardware: str) -> str:
    """Say `errors_on` a machine in one line; nothing where nothing was compared.

    Examples
    --------
    >>> error_sentence("b200")
    ''
    """
    if not (errors := errors_on(hardware)):
        return ""
    predicted = (
        f", {errors['predicted']} predictions by {errors['of_predictions']}" if errors["predicted"] else ""
    )
    return (
        f"Off by {errors['mean']} on average over {errors['figures']} figures{predicted}; "
        f"the worst is {errors['worst']} ({errors['row']})"
    )


def outside(scenario: Scenario) -> list[str]:
    """List what lies beyond the range in which a kind was compared with measurements, a phrase each."""
    if scenario.workload.parts:
        return list(dict.fromkeys(phrase for part in scenario.workload.parts for phrase in outside(part)))
    phrases = [phrase for kernel in scenario.workload.kernels for phrase in _kernel(scenario, kernel)]
    compared = COMPARED.get(scenario.kind)
    if compared and scenario.hardware and scenario.model:
        software = scenario.software.name if scenario.software else "none"
        if (scenario.model.name, scenario.hardware.name, software) not in compared:
            known = "; ".join(_run(*run) for run in compared)
            asked = _run(scenario.model.name, scenario.hardware.name, software)
            phrases.append(f"{scenario.kind} of {asked}: compared are {known}")
    return list(dict.fromkeys(phrases))


def _run(model: str, hardware: str, software: str) -> str:
    return f"{model} on {hardware}{'' if software == 'none' else f' with {software}'}"


def _kernel(scenario: Scenario, kernel: Kernel) -> Iterator[str]:
    """Phrases about one generation of kernels."""
    known = kernel.validated
    if known is None:
        yield f"kernel {kernel.name}: never compared"
        return
    hardware, tokens = scenario.hardware, getattr(scenario.workload.spec, "tokens_per_rank", None)
    beyond = [hardware.name] if hardware and hardware.name not in known.hardware else []
    if not known.ep[0] <= scenario.ep <= known.ep[1]:
        beyond.append(f"EP{scenario.ep}")
    if tokens and known.tokens and not known.tokens[0] <= tokens <= known.tokens[1]:
        beyond.append(f"{tokens:,} tokens a rank")
    if beyond:
        among = [" and ".join(known.hardware), f"EP{known.ep[0]} to EP{known.ep[1]}"]
        if known.tokens:
            among.append(f"{known.tokens[0]:,} to {known.tokens[1]:,} tokens")
        yield f"kernel {kernel.name} with {', '.join(beyond)}: compared on {', '.join(among)}"
