"""The engine's side of a benchmark; run as a process that takes orders (`protocol.serve`)."""

from __future__ import annotations

import functools
import os
import time
from collections.abc import Iterable, Sequence
from typing import Any, SupportsIndex

import jax
import jax.numpy as jnp
import numpy as np
from etils import epath

from ttcjax.bench import protocol
from ttcjax.config import ModelConfig, SamplerConfig, from_dict
from ttcjax.engine.engine import Engine, Model, Prompt
from ttcjax.model import cache, transformer
from ttcjax.model.importers.published import Place, open_published
from ttcjax.search import registry
from ttcjax.search.ops import search
from ttcjax.verify.value_head import ValueHead
from ttcjax.verify.verifier import Reading


class NoText:
    """A tokenizer for random tokens: there is no text, and no token ends a step or a solution."""

    pad_id, bos_id, eos_id, unk_id = None, 1, -1, 3
    begin_ids, chat_template = (1,), None
    fingerprint = "none"
    stop_ids: tuple[int, ...] = ()

    def __init__(self, vocab_size: int):
        self.vocab_size = vocab_size
        self.pieces = (b"",) * vocab_size
        self.marks: dict[str, int] = {}

    def encode(self, text: str) -> list[int]:
        raise NotImplementedError("random tokens have no text")

    def encode_batch(self, texts: Sequence[str]) -> list[list[int]]:
        raise NotImplementedError("random tokens have no text")

    def encode_starts(self, rows: Sequence[Sequence[str | int]]) -> list[list[int]]:
        raise NotImplementedError("random tokens have no text")

    def decode(self, ids: Iterable[SupportsIndex]) -> str:
        return ""

    def decode_batch(self, rows: Iterable[Iterable[SupportsIndex]]) -> list[str]:
        return ["" for _ in rows]


class Ours:
    """The tasks; each returns its seconds, compilation apart."""

    def load(
        self, folder: str, model: dict[str, Any], sampler: dict[str, Any], value: list[float] | None = None
    ) -> dict[str, Any]:
        begin = time.perf_counter()
        config = from_dict(ModelConfig, model)
        params = open_published(Place("hf", epath.Path(folder))).load(config.dtype, jnp.asarray)
        verifier = None
        if value is not None:
            weights = {k: v for k, v in params.items() if k != "unembed"}
            head = {"w": jnp.asarray(value, jnp.float32), "b": jnp.zeros((), jnp.float32)}
            verifier = Model({**weights, "value": head}, config, judge=ValueHead())
        tokenizer = NoText(config.vocab_size)
        self.engine = Engine(Model(params, config), tokenizer, from_dict(SamplerConfig, sampler), verifier)
        return {
            "seconds": time.perf_counter() - begin,
            "devices": jax.device_count(),
            "platform": jax.default_backend(),
        }

    def _timed(self, run: Any) -> tuple[Any, dict[str, Any]]:
        known = len(self.engine.compilations)
        begin = time.perf_counter()
        out = run()
        seconds = time.perf_counter() - begin
        compiled = sum(c.seconds for c in self.engine.compilations[known:])
        return out, {"seconds": seconds - compiled, "compile_seconds": compiled}

    def sample(self, prompts: list[list[int]], n: int, limits: list[int] | None, seed: int) -> dict[str, Any]:
        asked = [
            Prompt(f"q{i}", tuple(tokens), None if limits is None else limits[i]) for i, tokens in enumerate(prompts)
        ]
        found, took = self._timed(lambda: self.engine.sample(asked, n, seed))
        return {**took, "tokens": sum(len(s.tokens) for row in found for s in row)}

    def search(self, prompts: list[list[int]], strategy: str, rounds: int, seed: int) -> dict[str, Any]:
        asked = [Prompt(f"q{i}", tuple(tokens)) for i, tokens in enumerate(prompts)]
        chosen = registry.parse(strategy, max_rounds=rounds)
        found, took = self._timed(lambda: search(self.engine, chosen, asked, seed))
        candidates = [s for outcome in found for s in outcome.candidates]
        return {
            **took,
            "tokens": sum(s.tokens_sampled for s in candidates),
            "verifier_tokens": sum(s.tokens_verified for s in candidates),
        }

    def logprobs(self, prompts: list[list[int]]) -> dict[str, Any]:
        asked = [Prompt(f"q{i}", tuple(tokens)) for i, tokens in enumerate(prompts)]
        return {"logprobs": [row.tolist() for row in self.engine.prompt_logprobs(asked)]}

    def verify(self, prompt: list[int], n: int, rounds: int, step: int, seed: int) -> dict[str, Any]:
        """Read `rounds` steps of n rows one after the other, then compare with one pass over the whole rows."""
        judge: Any = self.engine.judge
        config: Any = self.engine.verifier_config
        params: Any = self.engine.verifier
        rng = np.random.default_rng(seed)
        tokens = jnp.asarray(rng.integers(4, config.vocab_size, (n, 1 + rounds * step)), jnp.int32)
        tokens = tokens.at[:, 0].set(prompt[-1])
        prefix_tokens = jnp.asarray([prompt[:-1]], jnp.int32)
        length = jnp.asarray([len(prompt) - 1], jnp.int32)

        @functools.partial(jax.jit, donate_argnums=0)
        def read_on(reading: Reading, params: Any, prefix: Any, tokens: Any, lengths: Any) -> Any:
            fed = judge.feed(tokens, lengths, jnp.ones_like(lengths), jnp.zeros(tokens.shape, bool))
            reading = judge.read(params, prefix, reading, fed, config, step)
            return reading, judge.score(params, reading, config)

        @jax.jit
        def whole(params: Any, tokens: Any) -> jax.Array:
            positions = jnp.broadcast_to(jnp.arange(tokens.shape[1])[None], tokens.shape)
            hidden = transformer.forward(params, tokens, positions, config)
            return jax.nn.sigmoid(hidden[:, -1].astype(jnp.float32) @ params["value"]["w"])

        prefill = jax.jit(functools.partial(cache.prefill, config=config))

        def search_once() -> tuple[list[np.ndarray], float, int]:
            begin = time.perf_counter()
            prefix = prefill(params, prefix_tokens, length)
            reading = judge.start(config, n, tokens.shape[1])
            scores, read = [], len(prompt) - 1
            for t in range(rounds):
                before = int(reading.read.sum())
                lengths = jnp.full((n,), 1 + (t + 1) * step, jnp.int32)
                reading, score = read_on(reading, params, prefix, tokens, lengths)
                scores.append(np.asarray(score))
                read += int(reading.read.sum()) - before
            return scores, time.perf_counter() - begin, read

        search_once()
        scores, seconds, read = search_once()
        full = jnp.concatenate([jnp.broadcast_to(prefix_tokens, (n, len(prompt) - 1)), tokens], axis=1)
        gap = 0.0
        for t, score in enumerate(scores):
            seen = len(prompt) + (t + 1) * step
            gap = max(gap, float(np.abs(score - np.asarray(whole(params, full[:, :seen]))).max()))
        return {"seconds": seconds, "tokens": n * rounds * step, "verifier_tokens": read, "largest_difference": gap}

    def limits(self, dtype: str) -> dict[str, Any]:
        """Measure what the device can do at best: matrix products and copies."""
        return {"flops_per_second": _matmul_rate(dtype), "bytes_per_second": _copy_rate(dtype)}


def _best_seconds(run: Any, *args: jax.Array, repeats: int = 5) -> float:
    jax.block_until_ready(run(*args))
    seconds = []
    for _ in range(repeats):
        begin = time.perf_counter()
        jax.block_until_ready(run(*args))
        seconds.append(time.perf_counter() - begin)
    return min(seconds)


def _matmul_rate(dtype: str) -> float:
    """FLOP/s of square matrix products, the best of some sizes."""
    sizes = (512, 1024, 2048) if jax.default_backend() == "cpu" else (4096, 8192)
    best = 0.0
    for size in sizes:
        a = jax.random.normal(jax.random.key(0), (size, size)).astype(dtype)
        best = max(best, 2 * size**3 / _best_seconds(jax.jit(jnp.matmul), a, a))
    return best


def _copy_rate(dtype: str) -> float:
    """Bytes read and written a second where half a gigabyte is changed in place; new memory would cost page faults."""
    a = jnp.ones((2**29 // jnp.dtype(dtype).itemsize,), dtype)
    times = 8

    def run(x: jax.Array) -> jax.Array:
        return jax.lax.fori_loop(0, times, lambda _, y: y + jnp.ones((), y.dtype), x)

    compiled = jax.jit(run, donate_argnums=0)
    seconds = []
    for _ in range(4):
        begin = time.perf_counter()
        a = jax.block_until_ready(compiled(a))
        seconds.append(time.perf_counter() - begin)
    return 2 * times * a.nbytes / min(seconds[1:])


def main() -> None:
    from ttcjax.parallel import skip_absent_tpu

    skip_absent_tpu()
    devices = os.environ.get("TTCJAX_BENCH_CPU_DEVICES")
    if devices:
        jax.config.update("jax_num_cpu_devices", int(devices))
    ours = Ours()
    names = ("load", "sample", "search", "logprobs", "verify", "limits")
    protocol.serve({name: getattr(ours, name) for name in names})


if __name__ == "__main__":
    main()
