"""Memory of a batch, planned from shapes before anything is allocated, and the batches that fit a device."""

from __future__ import annotations

import os
import pathlib
from collections.abc import Sequence
from dataclasses import dataclass

import jax
import jax.numpy as jnp
from jax.sharding import Mesh

from ttcjax.config import ModelConfig, SamplerConfig
from ttcjax.model import cache, heads
from ttcjax.model.params import Params
from ttcjax.runtime.errors import UserError
from ttcjax.verify.verifier import Verifier

_GIB = 2**30


@dataclass(frozen=True)
class MemoryPlan:
    """Bytes on one device, by what they hold."""

    weights: int
    prefixes: int
    """Keys and values of prompts: those of the whole batch, and of the questions under way."""
    suffixes: int
    """Keys and values of the rows' own tokens."""
    activations: int
    """Bytes that a forward pass holds at once, logits included."""
    results: int

    @property
    def total(self) -> int:
        return self.weights + self.prefixes + self.suffixes + self.activations + self.results

    def __str__(self) -> str:
        parts = {
            "weights": self.weights,
            "prompts": self.prefixes,
            "rows": self.suffixes,
            "activations": self.activations,
            "results": self.results,
        }
        return f"{gib(self.total)} ({', '.join(f'{name} {gib(size)}' for name, size in parts.items())})"


def gib(size: int) -> str:
    """Return bytes as text in GiB."""
    return f"{size / _GIB:.2f} GiB"


def token_bytes(config: ModelConfig) -> int:
    """Return the bytes of one token's keys and values over all layers."""
    return 2 * config.num_layers * config.num_kv_heads * config.head_dim * jnp.dtype(config.dtype).itemsize


def plan(
    models: Sequence[tuple[ModelConfig, Verifier | None]],
    weights: int,
    *,
    questions: int,
    groups: int,
    rows: int,
    prompt_slots: int,
    slots: int,
    n: int,
    forks: bool = False,
    read_together: int = 1,
    nodes: int = 0,
) -> MemoryPlan:
    """Return what a batch needs on one device.

    Args:
        models: Shape of the policy and `None`, and where the verifier keeps a cache beside it, its shape and how it is
            asked.
        weights: Bytes of their parameters.
        questions: Q, of the batch.
        groups: G, questions under way.
        rows: B, rows under way.
        prompt_slots: P.
        slots: S.
        n: Samples a question.
        forks: Whether rows take each other's caches, which takes a second copy while they do.
        read_together: Tokens of a row that one forward pass reads.
        nodes: Rows of each question under way that are kept aside.
    """
    # Of a smaller batch as many may be read at once as fit, whatever divides this one.
    together = min(questions, cache.most_prefilled(prompt_slots))
    activations = 0
    held = [slots if judge is None else judge.slots(slots) for _, judge in models]
    for (config, judge), own_slots in zip(models, held, strict=True):
        size = jnp.dtype(config.dtype).itemsize
        width = 4 * config.d_model + 3 * config.d_ff + 2 * config.num_heads * config.head_dim

        def scores(queries: int, keys: int, heads: int = config.num_heads) -> int:
            return 2 * queries * keys * heads * 4

        prompt = together * (prompt_slots * width * size + scores(min(prompt_slots, 512), prompt_slots))
        step = rows * read_together * width * size + scores(rows * read_together, prompt_slots + own_slots)
        if read_together > 1:
            step += rows * own_slots * config.d_model * size  # Hidden states of whole rows.
        tokens = 1 if judge is None else max(1, judge.logits_together(read_together))
        read = min(tokens * rows * config.vocab_size, heads.logits_at_once(rows, config.vocab_size))
        logits = 3 * read * 4
        activations = max(activations, prompt, step + logits)
    per_token = [token_bytes(config) for config, _ in models]
    # Prefixes are kept for the whole batch and copied for the groups under way, and a copy is made before the old
    # one is dropped; a batch that is under way as a whole still holds both. Prompts are read in at least two parts.
    prefixes = (max(questions, 2 * together) + 2 * groups) * prompt_slots * sum(per_token)
    suffixes = ((2 if forks else 1) * rows + groups * nodes) * sum(a * b for a, b in zip(held, per_token, strict=True))
    results = (questions * n + rows) * (slots * 8 + 32)
    return MemoryPlan(weights, prefixes, suffixes, activations, results)


def bytes_of(params: Params | None) -> int:
    """Return the bytes of a model's parameters."""
    return sum(leaf.size * leaf.dtype.itemsize for leaf in jax.tree.leaves(params))


def device_memory(mesh: Mesh) -> int:
    """Return the bytes that one device of `mesh` may use: its own memory, or on CPU an equal share of the host's."""
    stats = mesh.devices.flat[0].memory_stats() or {}
    if "bytes_limit" in stats:
        return int(0.95 * stats["bytes_limit"])
    return int(0.9 * _host_memory() / sum(d.process_index == jax.process_index() for d in mesh.devices.flat))


def _host_memory() -> int:
    """Return the bytes of memory of this machine, or of this container; what others use of it is theirs to free.

    The whole and not what is free just now: how many rows work at once must not depend on the hour.
    """
    total = os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    try:
        limit = pathlib.Path("/sys/fs/cgroup/memory.max").read_text().strip()
    except OSError:
        return total
    return min(total, int(limit)) if limit.isdigit() else total


@dataclass(frozen=True)
class Fit:
    """Rows and questions that one device takes at once, and the memory they need."""

    rows: int
    questions: int
    """Questions of a batch."""
    memory: MemoryPlan


@dataclass(frozen=True)
class Capacity:
    """Memory of one device, with the models and settings that decide how much of it a row takes."""

    sampler: SamplerConfig
    policy: ModelConfig
    verifier: ModelConfig | None
    judge: Verifier | None
    """Format in which the verifier is asked."""
    weights: int
    """Bytes of the parameters of both."""
    limit: int
    """Bytes that may be used."""

    def models(self, *, verifier: bool) -> list[tuple[ModelConfig, Verifier | None]]:
        """Return the shape of the policy, and where the verifier is wanted and there, its shape and how it is asked."""
        return [(self.policy, None), *([(self.verifier, self.judge)] if verifier and self.verifier else [])]

    def fit(
        self,
        prompt_slots: int,
        n: int,
        slots: int,
        *,
        forks: bool = False,
        whole: bool = False,
        read_together: int = 1,
        nodes: int = 0,
    ) -> Fit:
        """Return the rows and questions that fit a device at once: `sampler.rows` and `sampler.waves`, or less.

        Args:
            prompt_slots: Length of the prompts, padding included.
            n: Samples a question.
            slots: Tokens a row can hold, the prompt's last one included.
            forks: For searches: the rows of a question stay together, fork, and are read by the verifier.
            whole: The rows of a question are read together.
            read_together: Tokens of a row that one forward pass reads.
            nodes: Rows of each question that are kept aside.

        Raises:
            UserError: Not even one row, or for searches the rows of one question, would fit.
        """
        rows, waves, least = self.sampler.rows, self.sampler.waves, n if forks or whole else 1
        while True:
            questions = waves * max(1, rows // n)
            groups = max(1, rows // n) if forks else min(questions, rows)
            planned = plan(
                self.models(verifier=forks),
                self.weights,
                questions=questions,
                groups=groups,
                rows=max(rows, least),
                prompt_slots=prompt_slots,
                slots=slots,
                n=n,
                forks=forks,
                read_together=read_together,
                nodes=nodes,
            )
            if planned.total <= self.limit:
                return Fit(rows, questions, planned)
            if waves > 1:
                waves //= 2
            elif rows > least:
                rows = max(least, rows // 2)
            else:
                raise UserError(
                    f"{least} row{'s' * (least > 1)} of {slots - 1} tokens after a prompt of {prompt_slots} need "
                    f"{planned}, more than the {gib(self.limit)} of a device: lower --sampler.max_tokens"
                    f"{' or the budget n' * forks}, shorten the prompts, or raise --sampler.memory"
                )
