"""Savings of a shared prompt: executed FLOPs against logical ones, from shapes alone."""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import jax
import jax.numpy as jnp

from ttcjax.bench import shapes
from ttcjax.config import ConfigError, ModelConfig
from ttcjax.model import cache, flops, heads, params
from ttcjax.runtime.errors import UserError
from ttcjax.verify.value_head import ValueHead


@dataclass(frozen=True)
class Row:
    """The FLOPs of one question, of policy and verifier together.

    *Again* means that nothing is shared or kept: every sample reads a copy of the prompt of its own, and in a search
    every step of every beam reads prompt and steps before it, by the policy and once more by the verifier. So does who
    searches with plain calls to a sampler.
    """

    name: str
    logical: float
    """2 a parameter and token, the prompt counted once for each model."""
    logical_again: float
    executed: float
    """By the models' shapes: the prompt is read once by each model, every other token once a row."""
    executed_again: float


@dataclass(frozen=True)
class Check:
    """XLA's counts over ours: near 1, a little above it for norms and softmax, which ours leaves out."""

    prefill: float
    """FLOPs of reading a prompt into a cache."""
    decode_step: float
    """FLOPs of one token of all rows over the shared prompt, over all slots of the padded caches: XLA counts a loop's
    body once, and slots that are masked too."""


@dataclass(frozen=True)
class Found:
    """Result of `run`."""

    rows: list[Row]
    xla: Check


def run(shape: str, n: int, width: int, prompt: int, tokens: int, step: int) -> Found:
    """Count best-of-N and beam search of a policy and a verifier of the same shape.

    All rows have the same length, in steps of the same length, and the verifier reads each token once.

    Args:
        shape: Of both models, by name (`shapes.SHAPES`); there are no weights.
        n: Samples, and beams.
        width: Of the beam search; what it costs does not depend on it.
        prompt: Tokens.
        tokens: Of a row.
        step: Most tokens of a step.

    Raises:
        ConfigError: There is no such shape, or it is too short for these lengths.
        UserError: JAX has no CPU backend, for which the programs are compiled.
    """
    config = shapes.shape(shape, "float32")
    if prompt + tokens > config.max_seq_len:
        raise ConfigError(
            f"{shape} has a limit of {config.max_seq_len} tokens: lower --prompt {prompt} or --tokens {tokens}"
        )
    steps = [min(step, tokens - start) for start in range(0, tokens, step)]
    rows = [
        count(config, f"best_of_n n={n} prompt={prompt} tokens={tokens}", n, prompt, [tokens]),
        count(config, f"beam n={n} width={width} prompt={prompt} tokens={tokens} step={step}", n, prompt, steps),
    ]
    return Found(rows, check(config, n, prompt, tokens))


def count(config: ModelConfig, name: str, n: int, prompt: int, steps: Sequence[int]) -> Row:
    """Return the FLOPs of `n` rows after one prompt, asked for in steps of so many tokens."""
    parameters = params.count(params.spec(config)) + params.count(params.spec(config, ("value",)))
    judge, tokens, prefix = ValueHead(), sum(steps), prompt - 1
    row = flops.decode(config, tokens, before=prefix) + judge.flops(config, tokens + 1, before=prefix)
    read_again, executed_again = 0, 0.0
    for done, new in zip(itertools.accumulate(steps, initial=0), steps, strict=False):
        read_again += prompt + done + new
        executed_again += flops.prefill(config, prefix + done) + flops.decode(config, new, before=prefix + done)
        executed_again += judge.flops(config, prompt + done + new, before=0)
    return Row(
        name,
        logical=flops.inference(parameters, prompt + n * tokens),
        logical_again=flops.inference(parameters, n * read_again),
        executed=2 * flops.prefill(config, prefix) + n * row,
        executed_again=n * executed_again,
    )


def check(config: ModelConfig, n: int, prompt: int, tokens: int) -> Check:
    """Compile the reading of a prompt, and one token of `n` rows after it, and compare with XLA's counts.

    Nothing is allocated or run. The programs are those for a CPU, since XLA does not look into a kernel.

    Raises:
        UserError: JAX has no CPU backend.
    """
    try:
        device = jax.local_devices(backend="cpu")[0]
    except RuntimeError as error:
        raise UserError("the count by XLA is of programs for the CPU: add cpu to JAX_PLATFORMS") from error
    # Odd: a length that is read in blocks would be a loop, whose body XLA counts once.
    prefix, slots = (prompt - 1) | 1, tokens + 1
    tree = jax.eval_shape(params.unstack_layers, params.abstract(config))

    def ints(*shape: int) -> Any:
        return jax.ShapeDtypeStruct(shape, jnp.int32)

    def keys_or_values(rows: int, slots: int) -> Any:
        one = jax.ShapeDtypeStruct((rows, config.num_kv_heads, slots, config.head_dim), jnp.float32)
        return (one,) * config.num_layers

    def read(tree: Any, tokens: jax.Array, length: jax.Array) -> Any:
        return cache.prefill(tree, tokens, length, config)

    def token(tree: Any, prefix: Any, suffix: Any, length: jax.Array, last: jax.Array, start: jax.Array) -> Any:
        shared = cache.PrefixCache(k=prefix[0], v=prefix[1], length_Q=length)
        own = cache.SuffixCache(k=suffix[0], v=suffix[1])
        hidden, own = cache.extend(tree, last[:, None], start, shared, own, config)
        return heads.logits(tree, hidden[:, 0], config), own

    pairs = tuple((keys_or_values(*shape),) * 2 for shape in ((1, prefix), (n, slots)))
    with jax.default_device(device):
        reading = _flops(read, tree, ints(1, prefix), ints(1))
        step = _flops(token, tree, *pairs, ints(1), ints(n), ints(n))
    return Check(
        prefill=reading / flops.prefill(config, prefix, masked=True),
        decode_step=step / (n * flops.decode_step(config, prefix + slots)),
    )


def _flops(fn: Callable[..., Any], *arguments: Any) -> float:
    cost = jax.jit(fn).lower(*arguments).compile().cost_analysis()
    return cost["flops"] if cost else math.nan
