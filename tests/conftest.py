"""What all tests share: hypothesis without deadlines, and benchmarks only where they are asked for."""

from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import HealthCheck, settings

settings.register_profile(
    "moesim", deadline=None, max_examples=60, derandomize=True, suppress_health_check=[HealthCheck.too_slow]
)
settings.load_profile("moesim")

BENCHMARKS = Path(__file__).parent / "benchmarks"


def pytest_ignore_collect(collection_path: Path, config: pytest.Config) -> bool | None:
    """Benchmarks take time and prove nothing on a busy machine: `pytest tests/benchmarks` runs them, `pytest` does not."""
    if not collection_path.is_relative_to(BENCHMARKS):
        return None
    asked = [Path(config.invocation_params.dir, arg.partition("::")[0]).resolve() for arg in config.args]
    return None if any(path.is_relative_to(BENCHMARKS) for path in asked) else True
