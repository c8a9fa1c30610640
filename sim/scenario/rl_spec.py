"""Keys of an iteration of reinforcement learning, as a scenario writes them."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import Field

from sim.scenario.values import Branch, Count, Index, LengthsSpec, WordOr, WorkloadSpec
from sim.schemas import Duration, Fraction, Rate, Size, written


class RewardSpec(Branch):
    """Rewards of samples."""

    time: Duration = written("0 s")
    """From the end of a sample, or of its judgement, to its reward; samples are rewarded while others are rolled out."""
    model: str | None = None
    """Model that judges: it reads prompt and answer of each sample as it ends, in the pool `pools.reward`; without such a pool on the
    GPUs that roll out, after the rollout."""
    prefill: dict[str, Any] = Field(default_factory=dict)
    """Of that model: a `prefill` workload without kind and prompt_tokens, and `layout` of an instance; as many run as the pool holds."""


class PoolsSpec(Branch):
    """Pools of the cluster by what they do."""

    rollout: str
    """Pool that rolls out."""
    update: str
    """Pool that trains."""
    reward: str | None = None
    """Pool that rewards; that of the rollout when left out."""


class SyncSpec(Branch):
    """The way of new weights to the deployment."""

    mode: Literal["broadcast", "p2p"] = "broadcast"
    """broadcast: all weights to every GPU, bucket by bucket; p2p: each GPU gets its own weights over its NIC."""
    apply: Rate = written("82.2 GB/s")
    """Rate at which a GPU takes in what it gets (derived: from 10.19 s on 16 H20, checkpoint-engine)."""
    bucket: Size = written("512 MiB")
    """Weights that are sent and taken in at once (assumed: the default of verl and slime)."""


class TailBase(Branch):
    """Keys of a rollout that does not wait for its last samples."""

    done: Fraction = written("80 %")
    """Prompts that an update takes over prompts that a rollout begins (assumed); 100 % waits for all of them."""


class PartialRollouts(TailBase):
    """Go on with the rest in the next rollout (APRIL, Kimi k1.5)."""

    kind: Literal["partial_rollouts"]
    cache: Literal["recompute", "keep"] = "recompute"
    """recompute: prompt and answer so far are read again by the new weights; keep: their keys and values stay in memory, where pools
    are apart."""
    prefill: dict[str, Any] = Field(default_factory=dict)
    """Keys of `rollout` that differ where answers are read again, as of a `prefill` workload."""


class TailBatching(TailBase):
    """Throw away what the rest has; enough of such prompts make a long round of their own, from the beginning (RollPacker)."""

    kind: Literal["tail_batching"]


TailSpec = Annotated[PartialRollouts | TailBatching, Field(discriminator="kind")]


class RlStepSpec(WorkloadSpec):
    """An iteration of reinforcement learning: rollout, reward, log-probabilities, update, new weights."""

    kind: Literal["rl_step"]
    prompts: Count
    """Prompts of an iteration."""
    samples: Count = 1
    """Answers to each prompt."""
    prompt_tokens: Count = 512
    """Tokens of a prompt, which are in the cache when a sample begins; reading them takes no time."""
    lengths: LengthsSpec
    """Tokens of an answer."""
    prompt_correlation: Fraction = written("0 %")
    """Correlation of the logarithms of lengths of one prompt's samples, 0 to 100 % (lognormal alone)."""
    rollout: dict[str, Any]
    """A `decode` workload without kind, requests and context, and `layout` of an instance; as many run as the pool holds."""
    tail: WordOr[Literal["wait"], TailSpec] = "wait"
    """wait: a rollout ends with its last sample; else what becomes of prompts that are late."""
    update: dict[str, Any]
    """A `training` workload without kind, sequences and microbatches, and `layout`; with `packing`, which needs no lengths, samples are
    packed as they are, else as equal ones of the token-weighted mean."""
    pack_tokens: Count | None = None
    """Tokens of a microbatch of the update; the longest sample when left out."""
    updates: Count = 1
    """Optimizer steps over the samples of one rollout, each over its part."""
    logprobs: Annotated[int, Field(ge=0, le=8, strict=True)] = 2
    """Forward passes over all samples before the update: of the policy and of a reference."""
    reward: RewardSpec = RewardSpec()
    pools: WordOr[Literal["colocated"], PoolsSpec] = "colocated"
    """colocated: rollout and update in turn on the same GPUs; else the pools of each, side by side."""
    staleness: Index = 0
    """Updates that the weights of a rollout may lag behind; 0: pools wait for one another."""
    sync: SyncSpec = SyncSpec()
    iterations: Annotated[int, Field(ge=1, le=64, strict=True)] = 2
    """Rollouts whose lengths are drawn, taken in turn; metrics are means."""
