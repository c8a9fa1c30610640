"""Jobs of a scenario: workloads side by side on one cluster, each a scenario of its own on its part of it."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from functools import partial
from typing import Any, Literal

from sim.cluster.parameters import SourcedFile
from sim.cluster.parts import ClusterPart, part_of
from sim.errors import InfeasibleError, InputError, Problem, nearest
from sim.kinds import JOBS
from sim.scenario import sizes
from sim.scenario.descriptions import Scenario, Workload
from sim.scenario.draft import Draft, catch
from sim.scenario.inference import Inference
from sim.scenario.job_list import JobSpec
from sim.scenario.kinds import Resolver
from sim.scenario.values import WorkloadSpec

_AT = ("jobs",)
_OWN = ("model", "layout", "software", "workload")
_WHOLE = ("jobs", "expect", "variants", "question", "title", *_OWN)
"""Keys of the scenario that are not those of a job."""


class JobsSpec(WorkloadSpec):
    """The jobs of the scenario, which are listed under `jobs`."""

    kind: Literal["jobs"] = "jobs"


@dataclass(frozen=True, slots=True)
class Jobs(Workload):
    """Jobs by name, each a scenario of its own."""

    spec: JobsSpec
    jobs: dict[str, Scenario]

    @property
    def parts(self) -> tuple[Scenario, ...]:
        """The jobs."""
        return tuple(self.jobs.values())

    @property
    def files(self) -> tuple[SourcedFile, ...]:
        """Those of all jobs."""
        return tuple({id(file): file for job in self.jobs.values() for file in job.workload.files}.values())


def jobs_of(draft: Draft, spec: JobsSpec) -> Jobs:
    """Resolve the jobs of a scenario.

    InputError with all problems, at their places in the scenario; InfeasibleError where no machine could run a
    job.
    """
    asked = [JobSpec.model_validate(job) for job in draft.document.get(_AT) or []]
    draft.problems += _problems(draft, asked)
    if draft.problems:
        raise InputError(draft.problems)
    parts = _parts(draft, asked)
    if draft.problems:
        raise InputError(draft.problems)
    jobs: dict[str, Scenario] = {}
    for i, (job, part) in enumerate(zip(asked, parts, strict=True)):
        resolved = catch(draft.problems, partial(_job, draft, i, job, part))
        if resolved is not None:
            jobs[job.name] = resolved
    if draft.problems:
        raise InputError(draft.problems)
    return Jobs(spec, jobs)


def _problems(draft: Draft, asked: list[JobSpec]) -> Iterator[Problem]:
    """Yield what is wrong before any job is resolved."""
    document, names = draft.document, [job.name for job in asked]
    if not asked:
        yield document.problem(_AT, "no job", "a list of jobs: {name, workload, ...} each")
    for key in ("model", "layout", "software"):
        if document.get((key,)):
            yield document.problem((key,), f"'{key}' next to jobs", f"each job's own '{key}'", key=True)
    for key in ("gpus", "use_nodes", "pool"):
        if document.get(("cluster", key)) not in (None, "all"):
            wanted = f"each job's own '{key}'"
            yield document.problem(("cluster", key), f"'{key}' next to jobs", wanted, key=True)
    pools = [*draft.shared.pools] if draft.shared else []
    for i, job in enumerate(asked):
        if names.index(job.name) < i:
            yield document.problem((*_AT, i, "name"), f"'{job.name}'", "a name that no job before it has")
        if (job.pool is not None) != bool(pools) or (pools and job.pool not in pools):
            got = f"'{job.pool}'" if job.pool is not None else "no pool"
            wanted = f"one of: {', '.join(pools)}" if pools else "no pool: the cluster has none"
            near = nearest(job.pool, pools) if job.pool else None
            yield document.problem((*_AT, i, "pool"), got, wanted, near)
        kind = job.workload.get("kind")
        if kind not in JOBS:
            at, wanted = (*_AT, i, "workload", "kind"), f"one of: {', '.join(JOBS)}"
            yield document.problem(at, f"'{kind}'" if kind else "nothing", wanted, nearest(str(kind), JOBS))


def _parts(draft: Draft, asked: list[JobSpec]) -> list[ClusterPart]:
    """The GPUs of each job; where two overlap, or too few are left, problems are added to the draft."""
    taken: dict[tuple[str, int], str] = {}
    parts = []
    for i, job in enumerate(asked):
        pool, num_nodes, domain = job.pool or "", draft.num_nodes, draft.part.domain if draft.part else 1
        if draft.shared is not None:
            own = draft.shared.pools[pool]
            num_nodes, domain = own.num_nodes, own.hardware.gpu.scale_up.domain
        nodes = job.use_nodes
        if nodes is None and job.gpus is not None:
            free = [node for node in range(num_nodes) if (pool, node) not in taken]
            nodes = free[: -(-job.gpus // domain)]
            if len(nodes) * domain < job.gpus:
                wanted = f"at most {len(nodes) * domain}: the jobs before it leave {len(nodes)} nodes of {domain} GPUs"
                draft.problem((*_AT, i, "gpus"), str(job.gpus), wanted)
                continue
        try:
            part = part_of(num_nodes, domain, gpus=job.gpus, use_nodes=nodes)
        except InputError as error:
            for each in error.problems:
                draft.problem((*_AT, i, each.key), each.got, each.wanted)
            continue
        both = next((node for node in part.nodes if (pool, node) in taken), None)
        if both is not None:
            where = f"node {both}" + (f" of pool {pool}" if pool else "")
            wanted = f"nodes of its own ('gpus' or 'use_nodes'): {where} is of job '{taken[pool, both]}'"
            draft.problem((*_AT, i), f"job '{job.name}' on nodes that another has", wanted)
        taken |= {(pool, node): job.name for node in part.nodes if (pool, node) not in taken}
        parts.append(part)
    return parts


def _job(draft: Draft, i: int, job: JobSpec, part: ClusterPart) -> Scenario:
    """A job as a scenario of its own; its problems keep their place among the jobs."""
    document, at = draft.document.copy(), (*_AT, i)
    for key in _WHOLE:
        document.tree.pop(key, None)
    mark = document.mark(at)
    document.put(("name",), f"{draft.document.get(('name',))}-{job.name}", mark)
    for key in _OWN:
        value = draft.document.get((*at, key))
        if isinstance(value, dict):
            document.put((key,), {}, mark)
            document.overlay(draft.document.branch((*at, key)), at=(key,))
        elif value is not None:
            document.put((key,), value, draft.document.mark((*at, key)))
    if job.pool is not None:
        document.put(("cluster", "pool"), job.pool, draft.document.mark((*at, "pool")))
    faults = document.get(("cluster", "faults"))
    if isinstance(faults, list):  # what slows the compute of others is not asked of its kind
        first = draft.shared.pools[job.pool].first_node if draft.shared and job.pool else 0
        own = {first + node for node in part.nodes}
        kept = [fault for fault in faults if not _is_of_others(fault, own)]
        if len(kept) < len(faults):
            document.put(("cluster", "faults"), kept, document.mark(("cluster", "faults")))
    document.put(("cluster", "use_nodes"), list(part.nodes), mark)
    document.put(("cluster", "gpus"), part.num_gpus, mark)
    try:
        return draft.resolve(document)
    except InputError as error:
        places = {key: f"jobs.{i}.{key}" for key in _OWN}
        job_mark = draft.document.mark(at)
        moved = (replace(each.moved(places), where=each.where or job_mark) for each in error.problems)
        raise InputError(list(moved)) from None


def _is_of_others(fault: Any, nodes: set[int]) -> bool:
    """True of a fault that slows what GPUs of other nodes compute."""
    return (
        isinstance(fault, dict)
        and isinstance(fault.get("node"), int)
        and fault["node"] not in nodes
        and not {"clock", "hbm"}.isdisjoint(fault)
    )


def _count(scenario: Scenario, work: Jobs) -> None:
    sizes.require_nodes(scenario, scenario.num_nodes)
    for name, job in work.jobs.items():
        own = job.workload
        if isinstance(own, Inference) and own.layout.pp > 1 and not all(f.lasts for f in job.faults):
            raise InfeasibleError(
                f"job {name}: faults that come and go act on passes of one pipeline stage next to other jobs, and "
                f"layout.pp is {own.layout.pp}"
            )


RESOLVER = Resolver(
    {"jobs": JobsSpec},
    jobs_of,
    needs_model=lambda spec: False,
    faults=("bandwidth", "clock", "hbm", "scale_up"),
    windows=True,
    divides=lambda spec: True,
    count=_count,
)
"""Each job is asked which faults its kind knows."""
