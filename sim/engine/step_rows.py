"""Rows of the arrays that `step_loop` runs on: tracks, tasks, nodes and messages."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

Rows = npt.NDArray[np.void]

_I, _F = np.int32, np.float64
TRACK = np.dtype(
    [
        ("first", _I),  # of its tasks
        ("last", _I),  # one past them
        ("task", _I),  # where it stands
        ("node", _I),
        ("phase", _I),
        ("of_group", _I),  # class of groups
        ("draws", _I),  # place among the loads
        # Number of the track, and what its tasks' numbers grow by, if only its own program and groups that draw for
        # themselves were counted, so that jitter does not hang on how groups fold, nor on who shares the network.
        ("number_drawn", np.int64),
        ("tasks_drawn", np.int64),
        ("first_jitter", _I),  # rows of the jitter
        ("num_jitter", _I),
        ("blocking", _I),  # 1 where it waits for its sends before its next operation
        ("issued", np.int64),  # launches of the host so far
        ("written", np.int64),  # nodes with launches that have ended
        ("oldest", np.int64),  # the first of them that the bound of run-ahead has not let pass
    ],
    align=True,
)
TASK = np.dtype(
    [
        ("program", _I),
        ("forward", _I),  # microbatches, -1 for none
        ("backward", _I),
        ("receive_f", _I),  # rows of messages, -1 for none
        ("receive_b", _I),
        ("send_f", _I),
        ("send_b", _I),
        ("keep", _I),  # where the times of its nodes go, -1 for nowhere
        ("start_s", _F),  # filled in by the loop, as what follows; means over lanes
        ("end_s", _F),
        ("exposed_s", _F),
        ("barrier_s", _F),
        ("host_s", _F),
    ],
    align=True,
)
NODE = np.dtype(
    [
        ("kernel", _I),  # place among the kernels; -1 computes
        ("beside", _I),  # 1 next to compute, 0 alone
        ("barrier", _I),  # 1 where its collective starts everywhere when the last lane is there
        ("forward", _I),  # 1 where it works for the forward's microbatch
        ("layer", _I),
        ("first_wait", _I),  # of the nodes it waits for
        ("last_wait", _I),  # one past them
        ("launches", _I),  # that the host issues for it
        ("syncs", _I),  # times that the host waits for it to be due, before
        ("fixed_s", _F),  # compute
        ("routed_s", _F),  # compute at the mean load
        ("exposed_s", _F),  # reductions inside the layer
        ("held_s", _F),  # of a collective's time, what nodes of the compute stream stand for
    ],
    align=True,
)
MESSAGE = np.dtype(
    [
        ("source", _I),  # tracks
        ("target", _I),
        ("place", _I),
        ("template", _I),
        ("next", _I),  # of its kind to its target, -1 after the last
        ("posted", np.bool_),  # by one side
        ("there", np.bool_),
    ],
    align=True,
)
