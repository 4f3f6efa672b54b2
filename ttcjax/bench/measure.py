"""The benchmarks: what is measured, against what, and the rows they give."""

from __future__ import annotations

import contextlib
import dataclasses
import importlib.util
import json
import os
import pathlib
import tempfile
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from ttcjax.bench import shapes
from ttcjax.bench.protocol import Side
from ttcjax.config import ModelConfig, SamplerConfig, to_dict
from ttcjax.engine import capacity
from ttcjax.model.params import count, spec
from ttcjax.runtime.errors import UserError

_TOLERANCE = {"float32": 2e-3, "bfloat16": 0.5}
"""Largest difference between the sides' log-probabilities of the same tokens that rounding explains."""


@dataclass(frozen=True)
class Row:
    """One comparison; rates are tokens a second, each side's best of runs that alternate between the sides:
    what else the machine does can only slow a run."""

    name: str
    ours: float
    peer: float | None = None
    ratio: float | None = None
    """Ours over the peer's."""
    peak_rss_bytes: dict[str, int] | None = None
    """Peak host memory of each process since its start, `ours` and `peer`. Ours reads its programs from the
    compilation cache; what a process that compiles them needs is in the notes."""
    limit_share: float | None = None
    """Share of the rate that the device's best matrix products, or its best copies where they bind, would allow for
    the tokens that policy and verifier must read."""
    compile_seconds: float | None = None
    n: int | None = None
    """Samples of a prompt, where that is what varies."""
    prompt: int | None = None
    """Tokens of the prompt, likewise."""
    notes: dict[str, Any] = dataclasses.field(default_factory=dict)


@dataclass(frozen=True)
class Options:
    """Settings that all benchmarks have in common."""

    shape: str = "qwen2-40m"
    dtype: str = "float32"
    repeats: int = 3
    peer: str | None = None
    devices: int = 1
    """CPU devices that ours is split over; one uses all cores too, and holds the weights once."""
    seed: int = 0


def _prompts(config: ModelConfig, count: int, length: int, seed: int) -> list[list[int]]:
    return np.random.default_rng(seed).integers(4, config.vocab_size, (count, length)).tolist()


@dataclass(frozen=True)
class Compiled:
    """Time and memory of a process that compiles our programs, and its distance from the other side's numbers."""

    seconds: float | None
    peak_rss_bytes: int
    logprob_difference: float | None
    """Largest between the sides, on the same text."""

    def notes(self) -> dict[str, float]:
        gap = {} if self.logprob_difference is None else {"logprob_difference": self.logprob_difference}
        return {"peak_rss_bytes_compiling": self.peak_rss_bytes, **gap}


class Bench:
    """The sides of a benchmark on the same random weights, started when they are first needed."""

    def __init__(self, options: Options):
        """Check that the peer is installed before anything else is done."""
        if options.peer is not None and not all(map(importlib.util.find_spec, ("torch", "transformers"))):
            raise UserError("--peer transformers needs torch and transformers: pip install 'ttcjax[bench]'")
        self.options = options
        self.config = shapes.shape(options.shape, options.dtype)
        self._folder = tempfile.TemporaryDirectory()
        self.weights = pathlib.Path(self._folder.name)
        shapes.write_weights(self.config, self.weights, options.seed)
        self.parameters = count(spec(self.config))
        self._programs = tempfile.TemporaryDirectory()

    def close(self) -> None:
        self._folder.cleanup()
        self._programs.cleanup()

    @contextlib.contextmanager
    def ours(self, sampler: SamplerConfig, verifier: bool = False) -> Iterator[Side]:
        """Start our side with the weights loaded."""
        env = {
            "TTCJAX_BENCH_CPU_DEVICES": str(self.options.devices),
            # Several sides may share one accelerator: none of them takes its memory ahead.
            "XLA_PYTHON_CLIENT_PREALLOCATE": "false",
            "JAX_COMPILATION_CACHE_DIR": self._programs.name,
            "JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS": "0",
            "JAX_PERSISTENT_CACHE_MIN_ENTRY_SIZE_BYTES": "-1",
        }
        with Side("ttcjax", "ttcjax.bench.ours", env) as side:
            value = shapes.value_head(self.config) if verifier else None
            side.call(
                "load", folder=str(self.weights), model=to_dict(self.config), sampler=to_dict(sampler), value=value
            )
            yield side

    def compile(
        self,
        sampler: SamplerConfig,
        task: str,
        *settings: dict[str, Any],
        verifier: bool = False,
        peer: Side | None = None,
    ) -> Compiled:
        """Compile what a task needs in a process of its own, for the compilation cache; check the peer's model there.

        Args:
            sampler: Settings of the engine.
            task: What is measured later.
            settings: Of each run of it.
            verifier: Whether there is one.
            peer: The other side, where there is one.

        Raises:
            UserError: The sides' log-probabilities of the same text differ by more than rounding.
        """
        with self.ours(sampler, verifier) as side:
            seconds = [side.call(task, **one, seed=self.options.seed).get("compile_seconds", 0.0) for one in settings]
            peak = side.peak_rss_bytes()
            return Compiled(sum(seconds) or None, peak, self.check(side, peer) if peer else None)

    @contextlib.contextmanager
    def theirs(self, verifier: bool = False) -> Iterator[Side]:
        """Start the peer with the weights loaded, on as many threads as there are cores."""
        threads = len(os.sched_getaffinity(0))
        with Side("transformers", "ttcjax.bench.peer", {"OMP_NUM_THREADS": str(threads)}) as side:
            value = shapes.value_head(self.config) if verifier else None
            side.call("load", folder=str(self.weights), dtype=self.options.dtype, threads=threads, value=value)
            yield side

    def check(self, ours: Side, peer: Side) -> float:
        """Return the largest difference between the sides' log-probabilities of some random text.

        Raises:
            UserError: It is more than rounding: the sides do not run the same model.
        """
        text = _prompts(self.config, 1, 64, 99)
        one, other = (np.array(side.call("logprobs", prompts=text)["logprobs"]) for side in (ours, peer))
        gap = float(np.abs(one - other).max())
        if not gap <= _TOLERANCE[self.options.dtype]:
            raise UserError(f"the sides disagree on the same weights: log-probabilities differ by up to {gap:.3g}")
        return gap

    def limits(self) -> dict[str, float]:
        """Return what the device can do at best, measured in a process of its own."""
        with Side("ttcjax", "ttcjax.bench.ours", {"TTCJAX_BENCH_CPU_DEVICES": "1"}) as side:
            return side.call("limits", dtype=self.options.dtype)

    def limit_seconds(self, limits: dict[str, float], tokens: int, steps: int, cache_bytes: float = 0.0) -> float:
        """Return the least seconds in which `tokens` tokens can be drawn in `steps` steps.

        Two FLOPs a parameter and token, or the weights read once a step and the cache as often as it must be,
        whichever takes longer.
        """
        size = 4 if self.options.dtype == "float32" else 2
        arithmetic = 2 * self.parameters * tokens / limits["flops_per_second"]
        traffic = (steps * self.parameters * size + cache_bytes) / limits["bytes_per_second"]
        return max(arithmetic, traffic)

    def alternate(self, sides: Sequence[tuple[Side, str, dict[str, Any]]]) -> list[list[dict[str, Any]]]:
        """Run every side's task in turn, after a warm-up each; return each side's measurements, the warm-up first.

        A task that takes minutes, as the plain ones do, is warmed up with a shorter one: nothing of theirs compiles.
        """
        found: list[list[dict[str, Any]]] = [[] for _ in sides]
        for turn in range(1 + self.options.repeats):
            for (side, task, settings), results in zip(sides, found, strict=True):
                short = {k: min(settings[k], 2) for k in ("tokens", "rounds") if k in settings and "plain" in task}
                seed = self.options.seed + turn
                results.append(side.call(task, **settings | (short if turn == 0 else {}), seed=seed))
        return found


def _rates(results: list[dict[str, Any]]) -> list[float]:
    """Tokens a second of every run but the warm-up."""
    return [r["tokens"] / r["seconds"] for r in results[1:]]


def _row(
    name: str,
    compiled: Compiled,
    ours: list[dict[str, Any]],
    peer: list[dict[str, Any]] | None,
    least: float,
    **more: Any,
) -> Row:
    """Make a row of two sides' measurements; `least` seconds are what the device would need at best."""
    mine = _rates(ours)
    theirs = _rates(peer) if peer is not None else None
    more["notes"] = {**more.get("notes", {}), **compiled.notes(), "slowest": min(mine)}
    if theirs:
        more["notes"]["peer_slowest"] = min(theirs)
    return Row(
        name=name,
        ours=max(mine),
        peer=max(theirs) if theirs else None,
        ratio=max(mine) / max(theirs) if theirs else None,
        limit_share=max(least / r["seconds"] for r in ours[1:]),
        compile_seconds=compiled.seconds,
        **more,
    )


def sample(options: Options, n: int, prompt: int, tokens: int) -> list[Row]:
    """Sample `n` solutions of `tokens` tokens after one prompt of `prompt` tokens."""
    with contextlib.closing(Bench(options)) as bench:
        return _sample(bench, bench.limits(), n, prompt, tokens, ("plain", "careful"))


def curves(options: Options, ns: Sequence[int], prompts: Sequence[int], tokens: int) -> Iterator[Row]:
    """Sample at every number of samples and every prompt length, against the careful peer where one is asked for."""
    with contextlib.closing(Bench(options)) as bench:
        limits = bench.limits()
        for prompt in prompts:
            for n in ns:
                yield from _sample(bench, limits, n, prompt, tokens, ("careful",))


def _sample(
    bench: Bench, limits: dict[str, float], n: int, prompt: int, tokens: int, kinds: Sequence[str]
) -> list[Row]:
    options = bench.options
    sampler = SamplerConfig(max_tokens=tokens, rows=max(1, -(-n // options.devices)))
    [text] = _prompts(bench.config, 1, prompt, options.seed + 1)
    what = f"sample n={n} prompt={prompt} tokens={tokens}"
    mine = {"prompts": [text], "n": n, "limits": None}
    theirs = {"prompt": text, "n": n, "tokens": tokens}
    kinds = kinds if options.peer else ()
    with contextlib.ExitStack() as stack:
        peers = [stack.enter_context(bench.theirs()) for _ in kinds]
        compiled = bench.compile(sampler, "sample", mine, peer=next(iter(peers), None))
        ours = stack.enter_context(bench.ours(sampler))
        found = bench.alternate([(ours, "sample", mine), *((s, k, theirs) for s, k in zip(peers, kinds, strict=True))])
        peak = ours.peak_rss_bytes()
        cache_bytes = capacity.token_bytes(bench.config) * tokens * (prompt + n * tokens / 2)
        least = bench.limit_seconds(limits, n * tokens, tokens, cache_bytes)
        more: dict[str, Any] = {"notes": dict(limits), "n": n, "prompt": prompt}
        if not peers:
            return [_row(what, compiled, found[0], None, least, peak_rss_bytes={"ours": peak}, **more)]
        return [
            _row(
                f"{what}, peer {kind}",
                compiled,
                found[0],
                results,
                least,
                peak_rss_bytes={"ours": peak, "peer": side.peak_rss_bytes()},
                **more,
            )
            for side, kind, results in zip(peers, kinds, found[1:], strict=True)
        ]


def queue(options: Options, requests: int, width: int, mean: int, most: int, prompt: int) -> list[Row]:
    """Refilled rows against static batches of the same width, on requests of geometric lengths; both are ours."""
    with contextlib.closing(Bench(options)) as bench:
        rng = np.random.default_rng(options.seed + 2)
        limits = np.minimum(rng.geometric(1 / mean, requests), most).tolist()
        texts = _prompts(bench.config, requests, prompt, options.seed + 3)
        task = {"prompts": texts, "n": 1, "limits": limits}
        rows = max(1, width // options.devices)
        refilled = SamplerConfig(max_tokens=most, rows=rows, waves=-(-requests // (rows * options.devices)))
        static = dataclasses.replace(refilled, waves=1)
        compiled = bench.compile(refilled, "sample", task)
        bench.compile(static, "sample", task)
        with bench.ours(refilled) as one, bench.ours(static) as other:
            found = bench.alternate([(one, "sample", task), (other, "sample", task)])
            peaks = {"ours": one.peak_rss_bytes(), "peer": other.peak_rss_bytes()}
        tokens = sum(limits)
        least = bench.limit_seconds(bench.limits(), tokens, -(-tokens // width))
        notes = {"mean_length": float(np.mean(limits)), "longest": max(limits), "requests": requests, "width": width}
        name = f"queue of {requests} requests, {width} rows, peer static batches"
        return [_row(name, compiled, found[0], found[1], least, peak_rss_bytes=peaks, notes=notes)]


def search(options: Options, questions: int, n: int, width: int, rounds: int, step: int, prompt: int) -> list[Row]:
    """Beam search with a verifier of the policy's size, steps of fixed length."""
    with contextlib.closing(Bench(options)) as bench:
        sampler = SamplerConfig(
            max_tokens=rounds * step,
            max_step_tokens=step,
            verifier_chunk=step,
            rows=max(n, questions * n // options.devices),
        )
        texts = _prompts(bench.config, questions, prompt, options.seed + 4)
        what = f"beam n={n} width={width} rounds={rounds} step={step} questions={questions} prompt={prompt}"
        mine = {"prompts": texts, "strategy": f"beam:n={n},width={width}", "rounds": rounds}
        theirs = {"prompts": texts, "n": n, "width": width, "rounds": rounds, "step": step}
        rows = []
        with contextlib.ExitStack() as stack:
            kinds = ("plain", "careful") if options.peer else ()
            peers = [stack.enter_context(bench.theirs(verifier=True)) for _ in kinds]
            compiled = bench.compile(sampler, "search", mine, verifier=True, peer=next(iter(peers), None))
            ours = stack.enter_context(bench.ours(sampler, verifier=True))
            found = bench.alternate(
                [(ours, "search", mine), *((s, f"search_{k}", theirs) for s, k in zip(peers, kinds, strict=True))]
            )
            peak, read = ours.peak_rss_bytes(), found[0][-1]["verifier_tokens"]
            # The policy's weights are read once a token of a step, the verifier's once a step.
            least = bench.limit_seconds(bench.limits(), found[0][-1]["tokens"] + read, rounds * (step + 1))
            if not peers:
                more = {"peak_rss_bytes": {"ours": peak}, "notes": {"verifier_tokens": read}}
                rows.append(_row(what, compiled, found[0], None, least, **more))
            for side, kind, results in zip(peers, kinds, found[1:], strict=True):
                peaks = {"ours": peak, "peer": side.peak_rss_bytes()}
                notes = {"verifier_tokens": read, "verifier_tokens_peer": results[-1]["verifier_tokens"]}
                named = f"{what}, peer {kind}"
                rows.append(_row(named, compiled, found[0], results, least, peak_rss_bytes=peaks, notes=notes))
        return rows


def verify(options: Options, n: int, rounds: Sequence[int], step: int, prompt: int) -> Iterator[Row]:
    """The verifier's reading in a search of several rounds: new tokens only, against whole prefixes every round."""
    with contextlib.closing(Bench(options)) as bench:
        [text] = _prompts(bench.config, 1, prompt, options.seed + 5)
        sampler = SamplerConfig(max_tokens=max(rounds) * step, rows=n)
        limits = bench.limits()
        with contextlib.ExitStack() as stack:
            side = stack.enter_context(bench.theirs(verifier=True)) if options.peer else None
            tasks = [{"prompt": text, "n": n, "rounds": count, "step": step} for count in rounds]
            compiled = bench.compile(sampler, "verify", *tasks, verifier=True, peer=side)
            ours = stack.enter_context(bench.ours(sampler, verifier=True))
            for count, task in zip(rounds, tasks, strict=True):
                found = bench.alternate([(ours, "verify", task), *([(side, "verify", task)] if side else [])])
                read = found[0][-1]["verifier_tokens"]
                notes = {
                    "verifier_tokens": read,
                    "largest_difference": max(r["largest_difference"] for r in found[0]),
                }
                peaks = {"ours": ours.peak_rss_bytes()}
                if side:
                    notes["verifier_tokens_peer"] = found[1][-1]["verifier_tokens"]
                    peaks["peer"] = side.peak_rss_bytes()
                least = bench.limit_seconds(limits, read, count)
                name = f"verify n={n} rounds={count} step={step} prompt={prompt}{', peer rereads' * bool(side)}"
                yield _row(
                    name, compiled, found[0], found[1] if side else None, least, peak_rss_bytes=peaks, notes=notes
                )


def write_json(rows: Sequence[Row], path: str) -> None:
    """Write rows as a JSON list."""
    pathlib.Path(path).write_text(json.dumps([dataclasses.asdict(row) for row in rows], indent=2) + "\n")
