"""Every program that a sweep compiles, and whether a second sweep over other questions compiles any more."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import jax
import numpy as np

from ttcjax.bench import shapes
from ttcjax.bench.ours import NoText
from ttcjax.config import ConfigError, SamplerConfig
from ttcjax.engine.batching import bucket
from ttcjax.engine.compiled import Compilation
from ttcjax.engine.engine import Engine, Model, Prompt
from ttcjax.model import params
from ttcjax.runtime.progress import CompileClock
from ttcjax.search import registry
from ttcjax.search.ops import search
from ttcjax.verify.value_head import ValueHead


@dataclass(frozen=True)
class Compiled:
    """Programs that two sweeps compiled."""

    prompt_buckets: list[int]
    """Slots that prompts of the lengths asked for are padded to."""
    first: list[Compilation]
    """Compilations of the first sweep, in order."""
    again: int
    """Programs that XLA compiled in the second sweep, any program of the process counted."""


def run(
    shape: str, budgets: Sequence[int], strategies: Sequence[str], prompts: Sequence[int], questions: int, rows: int
) -> Compiled:
    """Sweep budgets and strategies over questions of mixed length twice, each time over other questions.

    Args:
        shape: Of policy and verifier, by name (`shapes.SHAPES`); weights are random.
        budgets: Values of N.
        strategies: Names without `n`.
        prompts: Shortest and longest prompt, in tokens.
        questions: Of each sweep.
        rows: Rows under way at once on a device.
    """
    shortest, longest = min(prompts), max(prompts)
    if shortest < 2:
        raise ConfigError(f"prompts must have at least 2 tokens, not {shortest}")
    config = shapes.shape(shape, "float32")
    sampler = SamplerConfig(max_tokens=24, max_step_tokens=6, verifier_chunk=6, rows=rows, waves=2)
    policy = Model(params.init(jax.random.key(0), config), config)
    verifier = Model(params.init(jax.random.key(1), config, ("value",)), config, judge=ValueHead())
    engine = Engine(policy, NoText(config.vocab_size), sampler, verifier)
    rng = np.random.default_rng(0)

    def sweep(lengths: Sequence[int]) -> None:
        asked = [
            Prompt(f"q{rng.integers(2**31)}", tuple(rng.integers(4, config.vocab_size, n).tolist())) for n in lengths
        ]
        for n in budgets:
            for name in strategies:
                search(engine, registry.parse(name, n=n), asked, seed=0)

    def another(length: int) -> int:
        """Return a length of the same bucket, so that both sweeps have as many questions in each."""
        slots = bucket(length - 1, sampler.prompt_bucket)
        least = 2 if slots == sampler.prompt_bucket else slots // 2 + 2
        return int(rng.integers(max(shortest, least), min(longest, slots + 1) + 1))

    first = np.linspace(shortest, longest, questions).round().astype(int).tolist()
    sweep(first)
    known = list(engine.compilations)
    with CompileClock() as clock:
        sweep([another(length) for length in first])
    buckets = {bucket(length - 1, sampler.prompt_bucket) for length in first}
    return Compiled(sorted(buckets), known, clock.compilations)
