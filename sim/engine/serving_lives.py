"""Lives of requests in a serving run: the instants noted so far, where they are served, and what they still need."""

from __future__ import annotations

import math
from array import array
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from sim.engine.serving_instance import Instance, InstanceRecord, Running
from sim.engine.serving_kv import KvWays
from sim.schedule.serving import Service, draw_steps
from sim.workload.requests import Requests

Floats = NDArray[np.float64]
Ints = NDArray[np.int64]

INSTANTS = ("arrival_s", "prefill_start_s", "first_token_s", "decode_admitted_s", "kv_arrived_s",
            "decode_start_s", "end_s")  # fmt: skip
"""Instants of every request, in this order; NaN where it never came or does not exist (a request of one token never decodes)."""


@dataclass(frozen=True, slots=True)
class ServingTrace:
    """Instants of every request [num_requests], where it was served, and what each instance did.

    `decode_instance` is the instance that gave a request its tokens last, `first_step` the first of that instance's steps
    which did, `steps` the number of steps that gave it all but the first token; -1 and 0 where none did. `refused` requests fit no rank even when it is empty.
    """

    instants: dict[str, Floats]
    prefill_instance: Ints
    decode_instance: Ints
    first_step: Ints
    steps: Ints
    refused: NDArray[np.bool_]
    prefill: tuple[InstanceRecord, ...]
    decode: tuple[InstanceRecord, ...]
    end_s: float
    kv_bytes: dict[tuple[int, int], Floats]
    """(prefill instance, decode instance) -> bytes that moved, by pair of GPUs as in `KvLinks.flows`."""
    times_put_out: Ints
    """Times that each request was put out of a full rank."""
    cached_tokens: Ints
    """Prompt tokens of each request that were found in a cache when it was first prefilled."""
    restarts: Ints
    """Times that each request lost its KV with an instance."""

    @property
    def preemptions(self) -> int:
        """Times that a request was put out of a full rank."""
        return int(self.times_put_out.sum())


class Lives:
    """Requests of a run, by their number."""

    def __init__(self, service: Service, requests: Requests) -> None:
        num = self.num = requests.num_requests
        self.service, self.engine = service, service.engine
        self.arrival = requests.arrival_s.tolist()
        self.prompt: list[int] = requests.prompt_tokens.tolist()
        self.output: list[int] = requests.output_tokens.tolist()
        rng = np.random.default_rng(service.seed)
        self.steps = draw_steps(requests.output_tokens, service.acceptance, rng)
        self.to_go: list[int] = self.steps.tolist()
        self.context: list[int] = list(self.prompt)  # tokens that prefill has to bring into the cache
        self.blocks = requests.blocks if service.engine.prefix_blocks else None
        self.instants = {name: array("d", [math.nan]) * num for name in INSTANTS}
        self.prefill_instance, self.decode_instance = array("q", [-1]) * num, array("q", [-1]) * num
        self.rank = array("q", [0]) * num  # of its prefill instance
        self.first_step = array("q", [-1]) * num
        self.cached, self.times_put_out = array("q", [0]) * num, array("q", [0]) * num
        self.restarts, self.num_refused = array("q", [0]) * num, 0
        self.refused = [False] * num
        self.num_ended = 0
        self.concurrency = requests.concurrency or math.inf

    def hashes(self, request: int) -> list[int]:
        """Blocks of a prompt; none where nobody keeps them."""
        return list(map(int, self.blocks.hashes(request))) if self.blocks is not None else []

    def note(self, request: int, now: float, *names: str) -> None:
        """Note instants of a request that come for the first time."""
        for name in names:
            if math.isnan(self.instants[name][request]):
                self.instants[name][request] = now

    def uncached_tokens(self, request: int) -> int:
        """Tokens that prefill has to compute, if no other prompt has left any [tokens]."""
        return self.context[request] - self.service.cached_tokens(self.prompt[request])

    def needs(self, request: int) -> int:
        """KV that a request holds from its prefill on [tokens]."""
        if self.service.decode is not None:
            return self.engine.held_tokens(self.context[request])
        return self.needs_decoding(request)

    def needs_decoding(self, request: int) -> int:
        """KV that it holds from the hand-over to an instance that decodes [tokens].

        Where KV grows there is room for the step that follows: else who comes back to a full rank is at once put out again.
        """
        whole, tokens = self.prompt[request] + self.output[request], self.context[request] + 1
        if self.engine.preemption == "none":
            return self.engine.held_tokens(whole)
        grown = math.ceil((whole - tokens) / max(1, self.to_go[request]) - 1e-9)
        return self.engine.held_tokens(tokens + grown)

    def stay(self, request: int, rank: int, held: int) -> Running:
        """A request about to decode; its newest token is not in its cache yet, but will be read."""
        tokens, steps = self.context[request] + 1, self.to_go[request]
        rate = (self.prompt[request] + self.output[request] - tokens) / steps
        return Running(request, rank, -1, tokens, steps, rate, held)

    def put_out(self, run: Running, step: int) -> None:
        """Keep what a request has when it leaves the steps before its end."""
        self.to_go[run.request] = run.steps - (step - run.joined)
        self.context[run.request] = run.tokens_after(step) - 1

    def trace(
        self,
        prefill: list[Instance],
        decode: list[Instance],
        now: float,
        ways: KvWays,
    ) -> ServingTrace:
        """Everything that was noted."""
        records = {instance: instance.record(now) for instance in (*prefill, *decode)}
        return ServingTrace(
            instants={name: np.array(values) for name, values in self.instants.items()},
            prefill_instance=np.array(self.prefill_instance, dtype=np.int64),
            decode_instance=np.array(self.decode_instance, dtype=np.int64),
            first_step=np.array(self.first_step, dtype=np.int64),
            steps=self.steps,
            refused=np.array(self.refused, dtype=bool),
            prefill=tuple(records[instance] for instance in prefill),
            decode=tuple(records[instance] for instance in decode),
            end_s=now,
            kv_bytes=dict(ways.bytes_by_pair),
            times_put_out=np.array(self.times_put_out, dtype=np.int64),
            cached_tokens=np.array(self.cached, dtype=np.int64),
            restarts=np.array(self.restarts, dtype=np.int64),
        )
