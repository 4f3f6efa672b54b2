"""The engine: questions in, solutions out, in batches of fixed shapes over all devices."""

from __future__ import annotations

import collections
import dataclasses
import functools
import itertools
import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import jax
import numpy as np
from jax.sharding import Mesh, PartitionSpec

from ttcjax import parallel
from ttcjax.config import ModelConfig, SamplerConfig
from ttcjax.engine import batching, draw, programs
from ttcjax.engine import capacity as memory
from ttcjax.engine.checks import check_judge, check_read, check_room, check_tokenizer, not_finite
from ttcjax.engine.compiled import Compilation, Program, title
from ttcjax.engine.requests import Begun, Model, Prompt, Request, Solution, pad
from ttcjax.engine.rows import Stops
from ttcjax.model import cache
from ttcjax.model.params import Params, unstack_layers
from ttcjax.runtime.errors import UserError
from ttcjax.text.tokenizer import Tokenizer
from ttcjax.verify.verifier import Verifier

_ROWS_READ = 16
"""Most rows of a question that are read in one batch."""
_BEGUN_ROWS = 4
"""The same where rows go on: they share most of the work on their prompt, and one program serves any number."""
_BEGUN_SLOTS = 256
"""Least slots for what such rows have begun with: in a chain they grow, and what is not used is not read."""


@dataclass(frozen=True)
class Fit:
    """Rows and questions that one device takes at once, and the memory they need."""

    rows: int
    questions: int
    """Of a batch."""
    memory: memory.MemoryPlan


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
    ):
        """Put parameters on the devices of `mesh` (all devices, by default), a copy on each.

        Raises:
            UserError: A model was trained with another tokenizer, its vocabulary is smaller than the tokenizer's, or
                the verifier cannot read what the policy writes.
        """
        for name, model in (("policy", policy), ("verifier", verifier)):
            if model is not None:
                check_tokenizer(tokenizer, model, name)
        if verifier is not None:
            check_judge(verifier, policy)
        self.tokenizer = tokenizer
        self.sampler = sampler
        self.mesh = parallel.make_mesh({"data": -1}) if mesh is None else mesh
        self.policy_config = policy.config
        self.verifier_config = verifier.config if verifier is not None else None
        self.judge = verifier.judge if verifier is not None else None
        replicated = jax.sharding.NamedSharding(self.mesh, PartitionSpec())
        # Before the weights are there: the plan counts them too.
        memory_limit = int(sampler.memory * 2**30) or memory.device_memory(self.mesh)
        self.policy = jax.device_put(unstack_layers(policy.params), replicated)
        self.verifier = jax.device_put(unstack_layers(verifier.params), replicated) if verifier is not None else None
        self.on_batch: Callable[[int], None] = lambda count: None
        """Called with the number of solutions that a batch has sampled, scored or searched, once it is done."""
        self._stops = Stops(eos=tokenizer.eos_id, step_ends=tuple(tokenizer.step_end_ids))
        self.compilations: list[Compilation] = []
        """Every program compiled so far."""
        self._programs: dict[Any, Program] = {}
        self._weights = memory.bytes_of(self.policy) + memory.bytes_of(self.verifier)
        self._memory = memory_limit

    def encode_prompt(self, question_id: str, text: str) -> Prompt:
        """Return the prompt of a question: begin mark and `text`, for a verifier what it makes of the text."""
        read = text if self.judge is None else self.judge.prompt(text)
        tokens, own = ((self.tokenizer.bos_id, *self.tokenizer.encode(part)) for part in (text, read))
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
        self.check_lengths(prompts, slots - 1)
        found: list[list[Solution]] = [[] for _ in prompts]
        plans, questions = {}, {}
        for length, count in collections.Counter(map(self.bucket, prompts)).items():
            fit = self.fit(length, n, slots)
            plans[length], questions[length] = self.plan(n, slots, count, fit=fit), fit.questions
        requests, owner = self._split(prompts, n, first_sample, plans)
        for members, batch in self.batches(requests, questions):
            most = max(requests[i].count for i in members if i is not None)
            plan, factors = self.at_temperature(dataclasses.replace(plans[batch.prefix.shape[1]], n=most), temperature)
            run = functools.partial(programs.sample, plan=plan)
            program = self.program(("sample", plan), run, split=(False, True, False, False))
            out = program(self.policy, batch, np.uint32(seed), factors)
            # The parts of a question stand in the order of their samples, within a batch and over batches.
            cut = self.solutions(out, plan.n, members, [request.prompt.id for request in requests])
            for i, solutions in sorted(cut, key=lambda pair: pair[0]):
                found[owner[i]] += solutions[: requests[i].count]
            self.on_batch(sum(requests[i].count for i in members if i is not None))
        return found

    def _split(
        self, prompts: Sequence[Prompt], n: int, first: int, plans: Mapping[int, programs.Plan]
    ) -> tuple[list[Request], list[int]]:
        """Return the requests for `n` samples of each prompt, and the prompt that each belongs to.

        Where a batch would have fewer questions than there are devices, several devices share a question, as many as
        find rows enough of it; the others stay idle.
        """
        sizes = collections.Counter(map(self.bucket, prompts))
        requests, owner = [], []
        for i, prompt in enumerate(prompts):
            length = self.bucket(prompt)
            parts = max(1, min(-(-n // plans[length].group_rows), self.mesh.size // sizes[length]))
            begins = [first + n * part // parts for part in range(parts + 1)]
            requests += [Request(prompt, a, b - a) for a, b in itertools.pairwise(begins)]
            owner += [i] * parts
        return requests, owner

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
            self.check_lengths([prompt], most, longest, scored=False)
        limited = [
            dataclasses.replace(p, max_tokens=most if p.max_tokens is None else min(most, p.max_tokens))
            for p in prompts
        ]
        found: list[dict[int, Solution]] = [{} for _ in prompts]
        for plan, batch, tokens, held in self._packed(
            limited, [[row.tokens for row in rows] for rows in begun], most, _BEGUN_SLOTS, _BEGUN_ROWS
        ):
            plan, factors = self.at_temperature(plan, temperature)
            length, sample, round_ = (np.zeros(tokens.shape[:2], kind) for kind in (np.int32, np.uint32, np.int32))
            for q, i, piece in held:
                for k, r in enumerate(piece):
                    row = begun[i][r]
                    length[q, k], sample[q, k], round_[q, k] = 1 + len(row.tokens), row.sample, row.round
            length = np.maximum(length, 1)
            run = functools.partial(programs.resume, plan=plan)
            program = self.program(("resume", plan), run, split=(False, *[True] * 5, False, False))
            rows = (x.reshape(-1, *x.shape[2:]) for x in (tokens, length, sample, round_))
            out = program(self.policy, batch, *rows, np.uint32(seed), factors)
            prompt_at: list[int | None] = [None] * len(length)
            for q, i, _ in held:
                prompt_at[q] = i
            ids = [prompt.id for prompt in prompts]
            cut = self.solutions(out, plan.n, prompt_at, ids, begin=length.reshape(-1))
            for (_, i, piece), (_, solutions) in zip(held, cut, strict=True):
                found[i] |= dict(zip(piece, solutions, strict=False))
            self.on_batch(sum(len(piece) for _, _, piece in held))
        return [[rows[r] for r in range(len(rows))] for rows in found]

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
        judge, config = self.require_verifier()
        before = [[()] * len(group) for group in solutions] if before is None else before
        rows = [
            [(shown + s.tokens, 1 + len(shown)) for s, shown in zip(group, shows, strict=True)]
            for group, shows in zip(solutions, before, strict=True)
        ]
        fed = [
            [
                judge.reads(1 + len(tokens), self._stops.count(s.tokens))
                for s, (tokens, _) in zip(group, own, strict=True)
            ]
            for group, own in zip(solutions, rows, strict=True)
        ]
        check_read(prompts, fed, config.max_seq_len, verifier=True)
        found = self._read("score", programs.score, self.verifier, prompts, rows, judge.slots)
        return [
            [self.with_scores(s, scores, read, prompt.id) for s, read, scores in zip(group, own, numbers, strict=True)]
            for prompt, group, own, numbers in zip(prompts, solutions, fed, found, strict=True)
        ]

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
        rows = [[(tuple(row), 1) for row in group] for group in continuations]
        lengths = [[1 + len(row) for row, _ in group] for group in rows]
        check_read(prompts, lengths, self.policy_config.max_seq_len, verifier=False)
        found = self._read("logprobs", programs.likelihood, self.policy, prompts, rows)
        cut = [
            [numbers[1 : len(row) + 1].copy() for (row, _), numbers in zip(group, read, strict=True)]
            for group, read in zip(rows, found, strict=True)
        ]
        for prompt, group in zip(prompts, cut, strict=True):
            if any(np.isnan(numbers).any() for numbers in group):
                raise not_finite("policy's logits", prompt.id)
        return cut

    def prompt_logprobs(self, prompts: Sequence[Prompt]) -> list[np.ndarray]:
        """Return the log-probability under the policy of each token of the prompts but the first, given those before.

        Raises:
            UserError: A prompt is longer than the model's limit.
        """
        starts = [dataclasses.replace(prompt, tokens=prompt.tokens[:1]) for prompt in prompts]
        return [row for [row] in self.logprobs(starts, [[prompt.tokens[1:]] for prompt in prompts])]

    def _read(
        self,
        kind: str,
        fn: Callable[..., jax.Array],
        params: Params | None,
        prompts: Sequence[Prompt],
        rows: Sequence[Sequence[tuple[tuple[int, ...], int]]],
        fed: Callable[[int], int] = lambda slots: slots,
    ) -> list[list[np.ndarray]]:
        """Run a program over whole rows, (tokens, first slot that counts) each, and return its numbers of each row;
        equal rows of a prompt are read once. Of a row's slots the program reads `fed` as many."""
        copies = [collections.Counter(group) for group in rows]
        unique = [list(counts) for counts in copies]
        numbers: list[dict[tuple[tuple[int, ...], int], np.ndarray]] = [{} for _ in prompts]
        for plan, batch, tokens, held in self._packed(prompts, [[r for r, _ in group] for group in unique], fed=fed):
            begin = np.ones(tokens.shape[:2], np.int32)
            for q, i, piece in held:
                begin[q, : len(piece)] = [unique[i][r][1] for r in piece]
            program = self.program((kind, plan), functools.partial(fn, plan=plan), split=(False, True, True, True))
            found = program(params, batch, tokens.reshape(-1, tokens.shape[-1]), begin.reshape(-1))
            found = np.asarray(found).reshape(*tokens.shape[:2], -1)
            for q, i, piece in held:
                numbers[i].update({unique[i][r]: found[q, k] for k, r in enumerate(piece)})
            self.on_batch(sum(copies[i][unique[i][r]] for _, i, piece in held for r in piece))
        return [[numbers[i][row] for row in group] for i, group in enumerate(rows)]

    def _packed(
        self,
        prompts: Sequence[Prompt],
        rows: Sequence[Sequence[tuple[int, ...]]],
        new: int = 0,
        smallest: int = 1,
        most: int = _ROWS_READ,
        fed: Callable[[int], int] = lambda slots: slots,
    ) -> Iterator[tuple[programs.Plan, programs.Prompts, np.ndarray, list[tuple[int, int, list[int]]]]]:
        """Pack rows of tokens into batches of rows of like length, those of a prompt in pieces of equal size.

        Args:
            prompts: What comes before the rows.
            rows: Some rows for each prompt.
            new: Slots to leave after the tokens.
            smallest: Least slots of tokens.
            most: Most rows in a piece.
            fed: Slots that are read of so many.

        Yields:
            The plan, the prompts, tokens `[Q, n, C]` (slot 0 is the prompt's last), and which rows stand there:
            (place q, prompt, its rows).
        """
        groups: dict[int, list[tuple[int, list[int]]]] = {}
        together = min(most, 1 << (max(map(len, rows), default=1) - 1).bit_length())
        for i, group in enumerate(rows):
            order = sorted(range(len(group)), key=lambda r: (len(group[r]), group[r]))
            for start in range(0, len(order), together):
                piece = order[start : start + together]
                groups.setdefault(batching.row_bucket(max(len(group[piece[-1]]) + 1, smallest)), []).append((i, piece))
        for pieces in groups.values():
            # By length, so that rows read together need little padding.
            pieces.sort(key=lambda found: len(rows[found[0]][found[1][-1]]))
        fits = {
            (length, slots): self.fit(
                length, together, fed(slots) + new, whole=True, read_together=min(fed(slots), cache.READ_TOGETHER)
            )
            for length in set(map(self.bucket, prompts))
            for slots in groups
        }
        for slots, pieces in sorted(groups.items()):
            asked = [Request(prompts[i], 0, len(piece)) for i, piece in pieces]
            plans, at_once = {}, {}
            for length, count in collections.Counter(self.bucket(request.prompt) for request in asked).items():
                at_once[length] = max(1, fits[length, slots].rows // together)
                fit = dataclasses.replace(fits[length, slots], questions=at_once[length])
                plans[length] = self.plan(together, slots + new, count, group_rows=together, fit=fit, reads=not new)
            for members, batch in self.batches(asked, at_once):
                Q, plan = len(batch.last), plans[batch.prefix.shape[1]]
                tokens = np.zeros((Q, together, slots), np.int32)
                tokens[:, :, 0] = np.asarray(batch.last)[:, None]
                held = [(q, *pieces[index]) for q, index in enumerate(members) if index is not None]
                for q, i, piece in held:
                    for k, r in enumerate(piece):
                        tokens[q, k, 1 : len(rows[i][r]) + 1] = rows[i][r]
                yield plan, batch, tokens, held

    def with_scores(self, solution: Solution, scores: np.ndarray, verified: int, question_id: str) -> Solution:
        """Return the solution with the scores of its steps.

        Raises:
            UserError: A score is no number.
        """
        kept = tuple(float(x) for x in scores[: min(self._stops.count(solution.tokens), len(scores))])
        if any(map(math.isnan, kept)):
            raise not_finite("verifier's scores", question_id)
        return dataclasses.replace(solution, step_scores=kept, tokens_verified=verified)

    def fit(
        self,
        prompt_slots: int,
        n: int,
        slots: int,
        *,
        forks: bool = False,
        whole: bool = False,
        read_together: int = 1,
    ) -> Fit:
        """Return how much fits into a device's memory at once: `sampler.rows` and `sampler.waves`, or less.

        Args:
            prompt_slots: Length of the prompts, padding included.
            n: Samples a question.
            slots: Tokens a row can hold, the prompt's last one included.
            forks: For searches: the rows of a question stay together, fork, and are read by the verifier.
            whole: The rows of a question are read together.
            read_together: Tokens of a row that one forward pass reads.

        Raises:
            UserError: Not even one row, or for searches the rows of one question, would fit.
        """
        rows, waves, least = self.sampler.rows, self.sampler.waves, n if forks or whole else 1
        models = self._models(verifier=forks)
        while True:
            questions = waves * max(1, rows // n)
            groups = max(1, rows // n) if forks else min(questions, rows)
            planned = memory.plan(
                models,
                self._weights,
                questions=questions,
                groups=groups,
                rows=max(rows, least),
                prompt_slots=prompt_slots,
                slots=slots,
                n=n,
                forks=forks,
                read_together=read_together,
            )
            if planned.total <= self._memory:
                return Fit(rows, questions, planned)
            if waves > 1:
                waves //= 2
            elif rows > least:
                rows = max(least, rows // 2)
            else:
                raise UserError(
                    f"{least} row{'s' * (least > 1)} of {slots - 1} tokens after a prompt of {prompt_slots} need "
                    f"{planned}, more than the {memory.gib(self._memory)} of a device: lower --sampler.max_tokens"
                    f"{' or the budget n' * forks}, shorten the prompts, or raise --sampler.memory"
                )

    def plan(
        self,
        n: int,
        slots: int,
        questions: int,
        *,
        fit: Fit | None = None,
        group_rows: int | None = None,
        reads: bool = False,
    ) -> programs.Plan:
        """Return the plan for `questions` questions, over all devices and batches, with up to `n` samples each.

        Args:
            n: Most samples of a question.
            slots: Tokens a row can hold, the prompt's last one included.
            questions: With prompts of one length.
            fit: What fits into a device's memory; by default `sampler.rows` rows do.
            group_rows: Rows that share a question; by default as many as keep all rows busy.
            reads: Whether rows are read whole and none is sampled.
        """
        chosen = batching.choose(
            questions,
            n,
            rows=fit.rows if fit else self.sampler.rows,
            most=fit.questions if fit else questions,
            cpu=self.mesh.devices.flat[0].platform == "cpu",
            group_rows=group_rows,
            reads=reads,
        )
        return programs.Plan(
            policy=self.policy_config,
            sampler=self.sampler,
            stops=self._stops,
            n=n,
            slots=slots,
            groups=chosen.groups,
            group_rows=chosen.group_rows,
            verifier=self.verifier_config,
            judge=self.judge,
            # A step has at least one token, its end.
            max_steps=slots,
            prefill=chosen.prefill,
        )

    def at_temperature(self, plan: programs.Plan, temperature: float | None) -> tuple[programs.Plan, np.ndarray]:
        """Return the plan of a program that serves all temperatures above 0, and the factors of one (the sampler's by
        default) to call it with; at 0 its own plan, and factors that are not looked at."""
        chosen = self.sampler.temperature if temperature is None else temperature
        sampler = dataclasses.replace(plan.sampler, temperature=1.0 if chosen > 0 else 0.0)
        return dataclasses.replace(plan, sampler=sampler), draw.factors(chosen)

    def program(self, key: Any, fn: Callable[..., Any], split: tuple[bool, ...]) -> Callable[..., Any]:
        """Return `fn` compiled data-parallel; `split` says which arguments are cut by question, others are copied."""
        if key not in self._programs:
            self._programs[key] = Program(title(key), fn, self.mesh, split, self.compilations.append)
        return self._programs[key]

    def bucket(self, prompt: Prompt) -> int:
        """Return the slots that a prompt is padded to."""
        return batching.bucket(max(len(prompt.tokens), len(prompt.read)) - 1, self.sampler.prompt_bucket)

    def batches(
        self, requests: Sequence[Request], most: int | Mapping[int, int]
    ) -> Iterator[tuple[list[int | None], programs.Prompts]]:
        """Group requests by the length bucket of their prompts and cut the groups into padded batches.

        Args:
            requests: Any number of requests.
            most: Most requests a device in one batch; where it depends on the bucket, by bucket.

        Yields:
            Which request stands at each place, `None` at padding, and the batch. Devices get equal shares, in each
            of which padding comes last.
        """
        devices = self.mesh.size
        groups: dict[int, list[int]] = {}
        for i, request in enumerate(requests):
            groups.setdefault(self.bucket(request.prompt), []).append(i)
        for slots, indices in sorted(groups.items()):
            limit = most if isinstance(most, int) else most[slots]
            share = min(limit, 1 << (-(-len(indices) // devices) - 1).bit_length())
            for start in range(0, len(indices), share * devices):
                piece = indices[start : start + share * devices]
                members: list[int | None] = []
                for device in range(devices):
                    dealt = piece[device::devices]
                    members += [*dealt, *[None] * (share - len(dealt))]
                yield members, pad([requests[i] if i is not None else None for i in members], slots)

    def solutions(
        self,
        out: programs.Sampled,
        n: int,
        members: Sequence[int | None],
        question_ids: Sequence[str],
        begin: np.ndarray | None = None,
    ) -> Iterator[tuple[int, list[Solution]]]:
        """Cut a batch's results into (member, its `n` solutions).

        Args:
            out: The results.
            n: Solutions at each place of the batch.
            members: What stands at each place, `None` for padding.
            question_ids: The question of each member.
            begin: Slots `[B]` at which solutions begin; 1 by default.

        Raises:
            UserError: The policy's logits were not finite.
        """
        tokens, length = np.asarray(out.tokens), np.asarray(out.length)
        finished, logprob, sampled = np.asarray(out.finished), np.asarray(out.logprob), np.asarray(out.sampled)
        broken = np.asarray(out.broken)
        first = np.ones_like(length) if begin is None else begin
        rows = [tokens[b, first[b] : length[b]].tolist() for b in range(len(length))]
        texts = self.tokenizer.decode_batch(rows)
        for q, member in enumerate(members):
            if member is not None:
                if broken[q * n : (q + 1) * n].any():
                    raise not_finite("policy's logits", question_ids[member])
                yield (
                    member,
                    [
                        Solution(
                            tokens=tuple(rows[b]),
                            text=texts[b],
                            finished=bool(finished[b]),
                            logprob=float(logprob[b]),
                            tokens_sampled=int(sampled[b]),
                        )
                        for b in range(q * n, (q + 1) * n)
                    ],
                )

    def check_lengths(self, prompts: Sequence[Prompt], max_tokens: int, begun: int = 0, *, scored: bool = True) -> None:
        """Refuse prompts that leave no room for so many tokens after so many; see `ttcjax.engine.checks.check_room`."""
        check_room(prompts, max_tokens, begun, self._models(verifier=scored))

    def _models(self, *, verifier: bool) -> list[tuple[ModelConfig, Verifier | None]]:
        """Return the shape of the policy, and of the verifier with how it is asked, where it is wanted and there."""
        judge = [(self.verifier_config, self.judge)] if verifier and self.verifier_config else []
        return [(self.policy_config, None), *judge]

    def require_verifier(self) -> tuple[Verifier, ModelConfig]:
        if self.judge is None or self.verifier_config is None:
            raise UserError("this needs a verifier: train one with `ttcjax prm CONFIG` and load it into the engine")
        return self.judge, self.verifier_config
