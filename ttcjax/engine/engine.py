"""The engine: questions in, solutions out, in batches of fixed shapes over all devices."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import jax
import numpy as np
from jax.sharding import Mesh, PartitionSpec

from ttcjax import parallel
from ttcjax.config import SamplerConfig
from ttcjax.engine import capacity
from ttcjax.engine.compiled import Compilation, Programs
from ttcjax.engine.requests import Begun, Model, Prompt, Solution, check_models, check_room
from ttcjax.engine.scheduler import Scheduler, Search
from ttcjax.model.params import Params, unstack_layers
from ttcjax.runtime.errors import UserError
from ttcjax.text.prompt import encode_prompts
from ttcjax.text.steps import LINES, StepFormat
from ttcjax.text.tokenizer import Tokenizer


class Engine:
    """Samples and scores with one policy and, where given, one verifier; searches are built on it.

    At most `sampler.rows` rows a device work at once, on batches of `sampler.waves` times as many requests (see
    `ttcjax.engine.queue`), padded to few shapes: powers of two from `sampler.prompt_bucket` for prompts, and a
    full batch of questions or a power of two where there are fewer. A shape compiles once.
    Results depend on (seed, question id, sample index) only, not on batch, order or devices: no row's arithmetic
    involves another row. What remains is XLA, which may round a product of another shape otherwise; a draw that
    falls within that rounding, about one token in 100,000, then comes out differently. The number of devices changes
    no shape (`ttcjax.engine.batching`), and rows are equal bit for bit, unless memory lowers `sampler.rows`: devices of
    a CPU share the host's, so more of them may then have fewer rows each. `sampler.memory` fixes that.
    """

    def __init__(
        self,
        policy: Model,
        tokenizer: Tokenizer,
        sampler: SamplerConfig,
        verifier: Model | None = None,
        mesh: Mesh | None = None,
        steps: StepFormat = LINES,
    ):
        """Put parameters on the devices of `mesh` (all devices, by default), a copy on each; `steps` is the task's.

        Raises:
            UserError: Models and tokenizer do not belong together; see `ttcjax.engine.requests.check_models`.
        """
        check_models(tokenizer, policy, verifier)
        self.tokenizer = tokenizer
        self.sampler = sampler
        self.mesh = parallel.make_mesh({"data": -1}) if mesh is None else mesh
        self.policy_config = policy.config
        self.verifier_config = verifier.config if verifier is not None else None
        self.judge = verifier.judge if verifier is not None else None
        """Format in which the verifier is asked."""
        replicated = jax.sharding.NamedSharding(self.mesh, PartitionSpec())
        # Before the weights are there: the plan counts them too.
        limit = int(sampler.memory * 2**30) or capacity.device_memory(self.mesh)
        self.policy = jax.device_put(unstack_layers(policy.params), replicated)
        """Parameters of the policy on the devices, their layers a list."""
        self.verifier = jax.device_put(unstack_layers(verifier.params), replicated) if verifier is not None else None
        """The same of the verifier."""
        self.on_batch: Callable[[int], None] = lambda count: None
        """Called with the number of solutions that a batch has sampled, scored or searched, once it is done."""
        weights = capacity.bytes_of(self.policy) + capacity.bytes_of(self.verifier)
        self.capacity = capacity.Capacity(sampler, policy.config, self.verifier_config, self.judge, weights, limit)
        """Rows and questions that fit a device."""
        self.step_marks = steps.marks(tokenizer)
        """Ends of steps and of solutions in tokens."""
        self.scheduler = Scheduler(self.capacity, Programs(self.mesh), tokenizer, self.step_marks)
        """Plans, batches and runs the calls."""

    @property
    def compilations(self) -> list[Compilation]:
        """Every program compiled so far, oldest first."""
        return self.scheduler.programs.compilations

    def encode_prompt(self, question_id: str, text: str) -> Prompt:
        """Return a prompt in tokens (`ttcjax.text.prompt.encode_prompts`); for a verifier what it makes of the text."""
        read = text if self.judge is None else self.judge.prompt(text)
        tokens, own = map(tuple, encode_prompts(self.tokenizer, [text, read]))
        return Prompt(question_id, tokens, judged=None if read == text else own)

    def sample(
        self,
        prompts: Sequence[Prompt],
        n: int,
        seed: int,
        *,
        max_tokens: int | None = None,
        first_sample: int = 0,
        temperature: float | None = None,
    ) -> list[list[Solution]]:
        """Sample `n` solutions of each prompt.

        Args:
            prompts: Prompts; equal ids share random numbers.
            n: Solutions a prompt, with sample indices `first_sample .. first_sample + n - 1`.
            seed: Root of all random numbers.
            max_tokens: Longest solution; `sampler.max_tokens` by default.
            first_sample: Index of the first sample.
            temperature: That of the sampler by default.

        Raises:
            UserError: A prompt leaves no room for `max_tokens` in the model's limit, or logits are not finite.
        """
        slots = (self.sampler.max_tokens if max_tokens is None else max_tokens) + 1
        if n < 1 or slots < 2:
            raise ValueError(f"n and max_tokens must be at least 1, not {n} and {slots - 1}")
        check_room(prompts, slots - 1, 0, self.capacity.models(verifier=True))
        numbers = range(first_sample, first_sample + n)
        return self.scheduler.sample(self.policy, prompts, numbers, seed, slots, temperature, self.on_batch)

    def resume(
        self,
        prompts: Sequence[Prompt],
        begun: Sequence[Sequence[Begun]],
        seed: int,
        *,
        max_tokens: int | None = None,
        temperature: float | None = None,
    ) -> list[list[Solution]]:
        """Sample one solution after each of the rows that a prompt's samples have begun.

        What the rows of a prompt have in common stands in the prompt and is kept once.

        Args:
            prompts: Prompts; equal ids share random numbers.
            begun: For each prompt, the rows to go on with.
            seed: Root of all random numbers.
            max_tokens: Longest solution, without what the row has begun with; `sampler.max_tokens` by default.
            temperature: That of the sampler by default.

        Raises:
            UserError: A row leaves no room for `max_tokens` in the model's limit, or logits are not finite.
        """
        most = self.sampler.max_tokens if max_tokens is None else max_tokens
        for prompt, rows in zip(prompts, begun, strict=True):
            longest = max((len(row.tokens) for row in rows), default=0)
            # The verifier may read less of it than the policy: what it is asked to score has a check of its own.
            check_room([prompt], most, longest, self.capacity.models(verifier=False))
        return self.scheduler.resume(self.policy, prompts, begun, seed, most, temperature, self.on_batch)

    def score(
        self,
        prompts: Sequence[Prompt],
        solutions: Sequence[Sequence[Solution]],
        before: Sequence[Sequence[tuple[int, ...]]] | None = None,
    ) -> list[list[Solution]]:
        """Return the solutions with the verifier's score of each of their steps.

        Equal solutions of a question are read once.

        Args:
            prompts: The prompts.
            solutions: Some solutions of each prompt.
            before: Tokens between the prompt and each solution, which the verifier reads and does not score.

        Raises:
            UserError: The engine has no verifier, or its scores are not finite.
        """
        return self.scheduler.score(self._require_verifier(), prompts, solutions, before, self.on_batch)

    def logprobs(
        self, prompts: Sequence[Prompt], continuations: Sequence[Sequence[Sequence[int]]]
    ) -> list[list[np.ndarray]]:
        """Return the log-probability under the policy, at temperature 1, of every token of given continuations.

        Sums rank continuations by likelihood; the exponential of the negative mean is the perplexity. A prompt is
        read once for all its continuations.

        Args:
            prompts: What comes before.
            continuations: Some token sequences for each prompt, not empty.

        Returns:
            Float32 arrays, a number a token, in the order of `continuations`.

        Raises:
            UserError: A prompt and a continuation are longer together than the model's limit, or logits are not finite.
        """
        return self.scheduler.logprobs(self.policy, prompts, continuations, self.on_batch)

    def prompt_logprobs(self, prompts: Sequence[Prompt]) -> list[np.ndarray]:
        """Return the log-probability under the policy of each token of the prompts but the first, given those before.

        Raises:
            UserError: A prompt is longer than the model's limit.
        """
        starts = [dataclasses.replace(prompt, tokens=prompt.tokens[:1]) for prompt in prompts]
        return [row for [row] in self.logprobs(starts, [[prompt.tokens[1:]] for prompt in prompts])]

    def search(
        self, search: Search, prompts: Sequence[Prompt], n: int, seed: int, *, temperature: float | None = None
    ) -> Iterator[tuple[Any, list[tuple[int, range, list[Solution]]]]]:
        """Run a search's program on every prompt, in batches in which the `n` rows of a prompt stand together.

        Args:
            search: The program.
            prompts: The prompts.
            n: Rows of each.
            seed: Root of all random numbers.
            temperature: That of the sampler by default.

        Yields:
            What the program returns of a batch, and of each of its prompts the place among `prompts`, the rows in those
            results, and the solutions, scored.

        Raises:
            UserError: The engine has no verifier, a prompt leaves no room for a solution, or numbers are not finite.
        """
        models = (self.policy, self._require_verifier())
        check_room(prompts, self.sampler.max_tokens, 0, self.capacity.models(verifier=True))
        return self.scheduler.search(models, search, prompts, n, seed, temperature, self.on_batch)

    def _require_verifier(self) -> Params:
        if self.verifier is None:
            raise UserError("this needs a verifier: train one with `ttcjax prm CONFIG` and load it into the engine")
        return self.verifier
