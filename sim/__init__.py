"""moesim: GPU clusters that run mixture-of-experts models, simulated as discrete events.

`import sim; result = sim.run("h800-vs-h100")` does what `moesim run` does, and `result.figure("bars").show()` draws it;
heavy imports wait until they are used.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from sim.exports import exported
from sim.version import __version__

if TYPE_CHECKING:
    from pathlib import Path

    from pydantic import BaseModel

    from sim.result import Result
    from sim.runs.predictor import pass_time
    from sim.scenario.all_to_all import AllToAllSpec as AllToAll
    from sim.scenario.cluster import ClusterSpec as Cluster
    from sim.scenario.cluster import FabricSpec as Fabric
    from sim.scenario.collective import CollectiveSpec as Collective
    from sim.scenario.draft import LayoutSpec as Layout
    from sim.scenario.inference import DecodeSpec as Decode
    from sim.scenario.inference import PrefillSpec as Prefill
    from sim.scenario.routing import BalancedGate as Balanced
    from sim.scenario.routing import FlatSpec as Flat
    from sim.scenario.routing import GroupLimitedGate as GroupLimited
    from sim.scenario.routing import LognormalGate as Lognormal
    from sim.scenario.routing import LowLatencySpec as LowLatency
    from sim.scenario.routing import NcclSpec as Nccl
    from sim.scenario.routing import PlacementSpec as Placement
    from sim.scenario.routing import TwoHopSpec as TwoHop
    from sim.scenario.routing import UniformGate as Uniform
    from sim.scenario.routing import ZipfGate as Zipf
    from sim.scenario.schema import SCENARIO as Scenario
    from sim.scenario.serving import ServingSpec as Serving
    from sim.scenario.training_spec import TrainingSpec as Training

__all__ = [
    "AllToAll", "Balanced", "Cluster", "Collective", "Decode", "Fabric", "Flat", "GroupLimited", "Layout", "Lognormal", "LowLatency",
    "Nccl", "Placement", "Prefill", "Result", "Scenario", "Serving", "Training", "TwoHop", "Uniform", "Zipf", "__version__",
    "ladder", "load_scenario", "pass_time", "run", "sweep",
]  # fmt: skip

__getattr__ = exported(__name__, __file__, __all__)
__dir__ = __all__.copy


def run(
    spec: str | Path | Mapping[str, Any] | BaseModel, settings: Sequence[str] | Mapping[str, Any] = ()
) -> Result:
    """Run a scenario and return its result document; docs/results.md describes it.

    Parameters
    ----------
    spec : path, shipped name, mapping or Scenario
        A mapping is the scenario itself, as `load_scenario` returns it; so is a `Scenario`, made of the specifications of this module.
    settings : sequence of str, or mapping
        Keys to override, as `--set` has them (`"cluster.nodes=4"`) or by name (`{"cluster.nodes": 4}`).

    Returns
    -------
    Result

    Raises
    ------
    InputError
        With all problems of the scenario.
    InfeasibleError
        Where no machine could run it.

    Examples
    --------
    >>> result = sim.run("deepep-ep16-h800", {"cluster.nodes": 2})
    >>> dispatch_s = result["metrics"]["dispatch"]["time_s"]
    """
    from sim.result import Result
    from sim.runs.result import check_expected
    from sim.runs.run import run_document

    document = _document(spec, settings)
    result = run_document(document)
    check_expected(document, result)
    return Result(result)


def load_scenario(
    spec: str | Path | Mapping[str, Any] | BaseModel, settings: Sequence[str] | Mapping[str, Any] = ()
) -> dict[str, Any]:
    """Read and check a scenario without running it.

    Parameters
    ----------
    spec : path, shipped name, mapping or Scenario
        As of `run`.
    settings : sequence of str, or mapping
        As of `run`.

    Returns
    -------
    dict
        The scenario with every default written out, variants as what they change; `run` takes it, changed or not.

    Raises
    ------
    InputError
        With all problems of the scenario.
    InfeasibleError
        Where no machine could run it.
    """
    from sim.scenario import settings as scenarios
    from sim.scenario.resolve import resolve
    from sim.show.views.rerun import scenario_tree

    document = _document(spec, settings)
    resolved = {name: resolve(variant).document for name, variant in scenarios.variants(document).items()}
    tree = scenario_tree(resolved, document.get(("name",)) if document.get(("variants",)) else None)
    whole: dict[str, Any] = scenarios.with_whole_paths(tree, document.folder)
    return whole


def _document(
    spec: str | Path | Mapping[str, Any] | BaseModel, settings: Sequence[str] | Mapping[str, Any]
) -> Any:
    """The scenario as a document, settings laid over it."""
    from sim.scenario import settings as scenarios

    if isinstance(settings, Mapping):
        import json

        settings = [f"{key}={json.dumps(value)}" for key, value in settings.items()]
    return scenarios.read(spec, settings)


def sweep(spec: str | Path, *, jobs: int | None = None, folder: str | Path | None = None) -> Result:
    """Run every point of a sweep and return its document; docs/sweeps.md describes it.

    Points that cannot run are rows with the reason.

    Parameters
    ----------
    spec : path or shipped name
        A sweep's YAML file.
    jobs : int [count]
        Processes on this machine; one a core by default.
    folder : path
        Keeps rows in its sweep.sqlite; rows that are already there are not computed again. Without a folder nothing is kept.

    Returns
    -------
    Result

    Raises
    ------
    InputError
        With all problems of the sweep.
    """
    from pathlib import Path
    from tempfile import TemporaryDirectory

    from sim.result import Result
    from sim.sweeps import file as sweep_file
    from sim.sweeps import run as exploring
    from sim.sweeps import workers

    asked = sweep_file.read(spec)
    with TemporaryDirectory() as passing:
        store = Path(folder or passing) / "sweep.sqlite"
        return Result(exploring.run_on(asked, workers.start(jobs), store))


def ladder(spec: str | Path) -> Result:
    """Run a ladder of design choices and return its document; docs/ladders.md describes it.

    Parameters
    ----------
    spec : path or shipped name
        A ladder's YAML file.

    Returns
    -------
    Result

    Raises
    ------
    InputError
        With all problems of the ladder.
    """
    from sim.ladders.run import run_file
    from sim.result import Result

    return Result(run_file(spec))
