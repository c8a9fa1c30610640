"""Requests between the pool that prefills and the pool that decodes: they wait for a seat, and their KV moves there."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import NamedTuple

import simpy
from simpy.events import Event

from sim.engine.serving_instance import Instance, Running
from sim.engine.serving_kv import KvWays
from sim.engine.serving_lives import Lives
from sim.schedule.serving import Waiting, WaitingLine


class _Move(NamedTuple):
    """KV on its way: to whom, what it will be there, tokens that the sender holds, and the event of its coming."""

    to: Instance
    stay: Running
    sent_from: int
    done: Event


class Handover:
    """The way from prefill to decode.

    Parameters
    ----------
    env : simpy.Environment
    lives : Lives
    ways : KvWays
    policy : str
        Of the line of those that wait for a seat.
    prefill, decode : sequence of Instance
    freed : function of a request and the instance that prefilled it
        Called when its KV has left that instance.
    """

    def __init__(
        self,
        env: simpy.Environment,
        lives: Lives,
        ways: KvWays,
        policy: str,
        prefill: Sequence[Instance],
        decode: Sequence[Instance],
        freed: Callable[[int, Instance], None],
    ) -> None:
        self.env, self.lives, self.ways = env, lives, ways
        self.prefill, self.decode, self.freed = prefill, decode, freed
        self.line = WaitingLine(policy)
        self.moves: dict[int, _Move] = {}

    def push(self, request: int, *, first: bool = False) -> None:
        """Let a prefilled request wait for a rank that decodes."""
        self.line.push(Waiting(self.lives.context[request], request, request), first=first)

    def go(self) -> None:
        """Give prefilled requests to decode ranks with room, and start their KV on its way."""
        seat: tuple[Instance, int] | None = None

        def fits(waiting: Waiting) -> bool:
            nonlocal seat
            seat = self._seat(waiting.request)
            return seat is not None

        for waiting in self.line.take(fits):
            assert seat is not None
            self._move(waiting.request, *seat)

    def _seat(self, request: int) -> tuple[Instance, int] | None:
        """The instance with the fewest requests among those with room, and its rank; of equal ones the emptier, then the first."""
        tokens = self.lives.needs_decoding(request)
        for instance in sorted(self.decode, key=lambda i: (i.num_seated, i.used)):
            rank = instance.rank_with_room(tokens)
            if rank >= 0:
                return instance, rank
        return None

    def _move(self, request: int, to: Instance, rank: int) -> None:
        held = self.lives.needs_decoding(request)
        to.take(rank, held, self.env.now)
        to.sit(rank)
        self.lives.decode_instance[request] = to.index
        self.lives.note(request, self.env.now, "decode_admitted_s")
        tokens, sender = self.lives.context[request], self.lives.prefill_instance[request]
        done = self.ways.send(tokens, (sender, self.lives.rank[request]), (to.index, rank))
        assert done.callbacks is not None
        move = _Move(to, self.lives.stay(request, rank, held), self.lives.needs(request), done)
        self.moves[request] = move
        done.callbacks.append(lambda _: self._moved(move))

    def _moved(self, move: _Move) -> None:
        request = move.stay.request
        if self.moves.get(request) is not move:  # an end of its way has failed
            return
        del self.moves[request]
        self.lives.note(request, self.env.now, "kv_arrived_s")
        sender = self.prefill[self.lives.prefill_instance[request]]
        sender.give(self.lives.rank[request], move.sent_from, self.env.now)
        move.to.joining.append(move.stay)
        move.to.call()
        self.freed(request, sender)

    def lost(self, failed: Instance) -> list[int]:
        """Requests whose KV is gone with an instance that prefilled them; who was to decode on one waits for another seat."""
        gone: list[int] = []
        for request, move in list(self.moves.items()):
            sender = self.prefill[self.lives.prefill_instance[request]]
            if failed not in (sender, move.to):
                continue
            del self.moves[request]
            self.ways.transfers.cancel(move.done)
            move.to.give(move.stay.rank, move.stay.held, self.env.now)
            move.to.sit(move.stay.rank, -1)
            if failed is sender:
                sender.give(self.lives.rank[request], move.sent_from, self.env.now)
                gone.append(request)
            else:
                self.push(request, first=True)
        for waiting in self.line.drop(
            lambda waiting: self.prefill[self.lives.prefill_instance[waiting.request]] is failed
        ):
            failed.give(self.lives.rank[waiting.request], self.lives.needs(waiting.request), self.env.now)
            gone.append(waiting.request)
        return gone
