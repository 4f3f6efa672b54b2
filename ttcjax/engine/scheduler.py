"""Calls of an engine, from requests to results: batches that fit, a program run on each, its rows cut apart."""

from __future__ import annotations

import collections
import dataclasses
import functools
import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import jax
import numpy as np

from ttcjax.engine import batching, programs
from ttcjax.engine.batching import slots_of
from ttcjax.engine.capacity import Capacity, Fit
from ttcjax.engine.compiled import Programs
from ttcjax.engine.requests import Begun, Prompt, Request, Solution, check_read, not_finite, solutions
from ttcjax.model import cache
from ttcjax.model.params import Params
from ttcjax.text.step_marks import StepMarks
from ttcjax.text.tokenizer import Tokenizer

Told = Callable[[int], None]
"""Called with the number of solutions of every batch that is done."""
Row = tuple[tuple[int, ...], int]
"""A row to be read whole: its tokens after the prompt, and the first slot that counts."""

_ROWS_READ = 16
"""Most rows of a question that are read in one batch."""
_BEGUN_ROWS = 4
"""The same where rows go on: they share most of the work on their prompt, and one program serves any number."""
_BEGUN_SLOTS = 256
"""Least slots for what such rows have begun with: in a chain they grow, and what is not used is not read."""


@dataclass(frozen=True)
class Search:
    """A program that samples and scores rows as it likes, and how its results are read."""

    program: Callable[..., Any]
    """Takes parameters of the policy and of the verifier, `programs.Prompts`, the seed, `draw.factors` and, by name, a
    `programs.Plan`; returns a tree of `[Q * n, ...]`."""
    key: tuple[Any, ...]
    """All that is fixed in `program` but the plan: what has an equal key compiles once."""
    results: Callable[[Any], tuple[programs.Sampled, jax.Array, jax.Array]]
    """Finds in what `program` returns the rows, the scores of their steps `[B, R]`, and the tokens that the verifier
    has read `[B]`."""
    read_together: int
    """Tokens of a row that the verifier reads at once."""
    nodes: int = 0
    """Rows of a question that are kept aside, beside those under way."""


class Scheduler:
    """Runs calls on the devices; knows the shapes of models, and is given their parameters by the call."""

    def __init__(self, capacity: Capacity, programs: Programs, tokenizer: Tokenizer, marks: StepMarks):
        self.capacity = capacity
        self.programs = programs
        self._sampler = capacity.sampler
        self._tokenizer = tokenizer
        self._marks = marks
        self._devices = programs.mesh.size

    def sample(
        self,
        policy: Params,
        prompts: Sequence[Prompt],
        numbers: range,
        seed: int,
        slots: int,
        temperature: float | None,
        told: Told,
    ) -> list[list[Solution]]:
        """Sample the solutions with these numbers of each prompt, in rows of `slots` slots; see `Engine.sample`."""
        n = len(numbers)
        found: list[list[Solution]] = [[] for _ in prompts]
        plans, questions = {}, {}
        lengths = list(map(self.slots, prompts))
        counts = collections.Counter(lengths)
        for length, count in counts.items():
            fit = self.capacity.fit(length, n, slots)
            plans[length], questions[length] = self.plan(n, slots, count, fit=fit), fit.questions
        group_rows = [plans[length].group_rows for length in lengths]
        devices = [self._devices // counts[length] for length in lengths]
        requests, owner = batching.split(prompts, numbers, group_rows, devices)
        for members, batch in self.batches(requests, questions):
            most = max(requests[i].count for i in members if i is not None)
            plan, factors = dataclasses.replace(plans[batch.prefix.shape[1]], n=most).at(temperature)
            run = functools.partial(programs.sample, plan=plan)
            program = self.programs.get(("sample", plan), run, split=(False, True, False, False))
            out = program(policy, batch, np.uint32(seed), factors)
            # The parts of a question stand in the order of their samples, within a batch and over batches.
            cut = solutions(self._tokenizer, out, plan.n, members, [request.prompt.id for request in requests])
            for i, drawn in sorted(cut, key=lambda pair: pair[0]):
                found[owner[i]] += drawn[: requests[i].count]
            told(sum(requests[i].count for i in members if i is not None))
        return found

    def resume(
        self,
        policy: Params,
        prompts: Sequence[Prompt],
        begun: Sequence[Sequence[Begun]],
        seed: int,
        max_tokens: int,
        temperature: float | None,
        told: Told,
    ) -> list[list[Solution]]:
        """Sample one solution after each row that has begun; see `Engine.resume`."""
        limited = [
            dataclasses.replace(p, max_tokens=max_tokens if p.max_tokens is None else min(max_tokens, p.max_tokens))
            for p in prompts
        ]
        ids = [prompt.id for prompt in prompts]
        found: list[dict[int, Solution]] = [{} for _ in prompts]
        rows = [[row.tokens for row in group] for group in begun]
        for plan, batch, tokens, held in self._packed(limited, rows, max_tokens, _BEGUN_SLOTS, _BEGUN_ROWS):
            plan, factors = plan.at(temperature)
            length, sample, round_ = (np.zeros(tokens.shape[:2], kind) for kind in (np.int32, np.uint32, np.int32))
            for q, i, piece in held:
                for k, r in enumerate(piece):
                    row = begun[i][r]
                    length[q, k], sample[q, k], round_[q, k] = 1 + len(row.tokens), row.sample, row.round
            length = np.maximum(length, 1)
            run = functools.partial(programs.resume, plan=plan)
            program = self.programs.get(("resume", plan), run, split=(False, *[True] * 5, False, False))
            flat = (x.reshape(-1, *x.shape[2:]) for x in (tokens, length, sample, round_))
            out = program(policy, batch, *flat, np.uint32(seed), factors)
            prompt_at: list[int | None] = [None] * len(length)
            for q, i, _ in held:
                prompt_at[q] = i
            cut = solutions(self._tokenizer, out, plan.n, prompt_at, ids, begin=length.reshape(-1))
            for (_, i, piece), (_, drawn) in zip(held, cut, strict=True):
                found[i] |= dict(zip(piece, drawn, strict=False))
            told(sum(len(piece) for _, _, piece in held))
        return [[group[r] for r in range(len(group))] for group in found]

    def score(
        self,
        verifier: Params,
        prompts: Sequence[Prompt],
        solutions: Sequence[Sequence[Solution]],
        before: Sequence[Sequence[tuple[int, ...]]] | None,
        told: Told,
    ) -> list[list[Solution]]:
        """Return the solutions with the scores of their steps; see `Engine.score`."""
        judge, config = self.capacity.judge, self.capacity.verifier
        assert judge is not None
        assert config is not None
        before = [[()] * len(group) for group in solutions] if before is None else before
        rows = [
            [(shown + s.tokens, 1 + len(shown)) for s, shown in zip(group, shows, strict=True)]
            for group, shows in zip(solutions, before, strict=True)
        ]
        fed = [
            [
                judge.reads(1 + len(tokens), len(self._marks.ends(s.tokens)))
                for s, (tokens, _) in zip(group, own, strict=True)
            ]
            for group, own in zip(solutions, rows, strict=True)
        ]
        check_read(prompts, fed, config.max_seq_len, verifier=True)
        found = self._read("score", programs.score, verifier, prompts, rows, told, judge.slots)
        return [
            [self._with_scores(s, scores, read, prompt.id) for s, read, scores in zip(group, own, numbers, strict=True)]
            for prompt, group, own, numbers in zip(prompts, solutions, fed, found, strict=True)
        ]

    def logprobs(
        self,
        policy: Params,
        prompts: Sequence[Prompt],
        continuations: Sequence[Sequence[Sequence[int]]],
        told: Told,
    ) -> list[list[np.ndarray]]:
        """Return the log-probability of every token of the continuations; see `Engine.logprobs`."""
        rows = [[(tuple(row), 1) for row in group] for group in continuations]
        lengths = [[1 + len(row) for row, _ in group] for group in rows]
        check_read(prompts, lengths, self.capacity.policy.max_seq_len, verifier=False)
        found = self._read("logprobs", programs.likelihood, policy, prompts, rows, told)
        cut = [
            [numbers[1 : len(row) + 1].copy() for (row, _), numbers in zip(group, read, strict=True)]
            for group, read in zip(rows, found, strict=True)
        ]
        for prompt, group in zip(prompts, cut, strict=True):
            if any(np.isnan(numbers).any() for numbers in group):
                raise not_finite("policy's logits", prompt.id)
        return cut

    def _read(
        self,
        kind: str,
        fn: Callable[..., jax.Array],
        params: Params,
        prompts: Sequence[Prompt],
        rows: Sequence[Sequence[Row]],
        told: Told,
        fed: Callable[[int], int] = lambda slots: slots,
    ) -> list[list[np.ndarray]]:
        """Run `fn` over whole rows, and return its numbers of each; equal rows of a prompt are read once. Of a row's
        slots it reads `fed` as many."""
        copies = [collections.Counter(group) for group in rows]
        unique = [list(counts) for counts in copies]
        numbers: list[dict[Row, np.ndarray]] = [{} for _ in prompts]
        for plan, batch, tokens, held in self._packed(prompts, [[r for r, _ in group] for group in unique], fed=fed):
            begin, length = np.ones(tokens.shape[:2], np.int32), np.ones(tokens.shape[:2], np.int32)
            for q, i, piece in held:
                begin[q, : len(piece)] = [unique[i][r][1] for r in piece]
                length[q, : len(piece)] = [1 + len(unique[i][r][0]) for r in piece]
            bound = functools.partial(fn, plan=plan)
            program = self.programs.get((kind, plan), bound, split=(False, True, True, True, True))
            found = program(params, batch, tokens.reshape(-1, tokens.shape[-1]), begin.reshape(-1), length.reshape(-1))
            found = np.asarray(found).reshape(*tokens.shape[:2], -1)
            for q, i, piece in held:
                numbers[i].update({unique[i][r]: found[q, k] for k, r in enumerate(piece)})
            told(sum(copies[i][unique[i][r]] for _, i, piece in held for r in piece))
        return [[numbers[i][row] for row in group] for i, group in enumerate(rows)]

    def search(
        self,
        models: tuple[Params, Params],
        search: Search,
        prompts: Sequence[Prompt],
        n: int,
        seed: int,
        temperature: float | None,
        told: Told,
    ) -> Iterator[tuple[Any, list[tuple[int, range, list[Solution]]]]]:
        """Run a search's program on every prompt with a policy and a verifier; see `Engine.search`."""
        slots, plans, most = self._sampler.max_tokens + 1, {}, {}
        for length, count in collections.Counter(map(self.slots, prompts)).items():
            fit = self.capacity.fit(
                length, n, slots, forks=True, read_together=search.read_together, nodes=search.nodes
            )
            plans[length], most[length] = self.plan(n, slots, count, group_rows=n, fit=fit), fit.questions
        requests, ids = [Request(prompt, 0, n) for prompt in prompts], [prompt.id for prompt in prompts]
        for members, batch in self.batches(requests, most):
            plan, factors = plans[batch.prefix.shape[1]].at(temperature)
            bound = functools.partial(search.program, plan=plan)
            program = self.programs.get((*search.key, plan), bound, split=(False, False, True, False, False))
            out = program(*models, batch, np.uint32(seed), factors)
            rows, *numbers = search.results(out)
            scores, verified = (np.asarray(x) for x in numbers)
            place, held = {member: q for q, member in enumerate(members)}, []
            for i, drawn in solutions(self._tokenizer, rows, n, members, ids):
                at = range(place[i] * n, (place[i] + 1) * n)
                scored = [
                    self._with_scores(s, scores[row], int(verified[row]), ids[i])
                    for row, s in zip(at, drawn, strict=True)
                ]
                held.append((i, at, scored))
            yield out, held
            told(n * sum(i is not None for i in members))

    def _with_scores(self, solution: Solution, scores: np.ndarray, verified: int, question_id: str) -> Solution:
        """Return a solution with the scores of its steps, which must be numbers."""
        steps = len(self._marks.ends(solution.tokens))
        kept = tuple(float(x) for x in scores[: min(steps, len(scores))])
        if any(map(math.isnan, kept)):
            raise not_finite("verifier's scores", question_id)
        return dataclasses.replace(solution, step_scores=kept, tokens_verified=verified)

    def slots(self, prompt: Prompt) -> int:
        """Return the slots that a prompt is padded to."""
        return slots_of(prompt, self._sampler.prompt_bucket)

    def batches(
        self, requests: Sequence[Request], most: dict[int, int]
    ) -> Iterator[tuple[list[int | None], programs.Prompts]]:
        """Cut requests into batches of at most so many a device, by the slots of their prompts; see `batching.deal`."""
        return batching.deal(requests, most, self._devices, self._sampler.prompt_bucket)

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
            fit: Rows and questions that fit a device at once; by default `sampler.rows` rows do.
            group_rows: Rows that share a question; by default as many as keep all rows busy.
            reads: Whether rows are read whole and none is sampled.
        """
        chosen = batching.choose(
            questions,
            n,
            rows=fit.rows if fit else self._sampler.rows,
            most=fit.questions if fit else questions,
            cpu=self.programs.mesh.devices.flat[0].platform == "cpu",
            group_rows=group_rows,
            reads=reads,
        )
        return programs.Plan(
            policy=self.capacity.policy,
            sampler=self._sampler,
            marks=self._marks,
            n=n,
            slots=slots,
            groups=chosen.groups,
            group_rows=chosen.group_rows,
            verifier=self.capacity.verifier,
            judge=self.capacity.judge,
            # A step has at least one token, its end.
            max_steps=slots,
            prefill=chosen.prefill,
        )

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
            prompts: The prompts, which stand before the rows.
            rows: Some rows for each prompt.
            new: Slots to leave after the tokens.
            smallest: Least slots of tokens.
            most: Most rows in a piece.
            fed: Slots that are read of so many.

        Yields:
            The plan, the prompts, tokens `[Q, n, C]` (slot 0 is the prompt's last), and which rows stand there:
            (place q, prompt, its rows).
        """
        together = min(most, 1 << (max(map(len, rows), default=1) - 1).bit_length())
        groups = batching.pieces(rows, together, smallest)
        fits = {
            (length, slots): self.capacity.fit(
                length, together, fed(slots) + new, whole=True, read_together=min(fed(slots), cache.READ_TOGETHER)
            )
            for length in set(map(self.slots, prompts))
            for slots in groups
        }
        for slots, pieces in sorted(groups.items()):
            asked = [Request(prompts[i], 0, len(piece)) for i, piece in pieces]
            plans, at_once = {}, {}
            for length, count in collections.Counter(self.slots(request.prompt) for request in asked).items():
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
