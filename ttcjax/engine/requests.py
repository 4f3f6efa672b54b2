"""Requests and results of an engine, and its refusals: models that do not belong together, prompts without room."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass

import jax
import jax.numpy as jnp
import numpy as np

from ttcjax.config import ModelConfig
from ttcjax.engine import programs
from ttcjax.engine.rows import question_number
from ttcjax.model.params import Params
from ttcjax.runtime.errors import UserError
from ttcjax.text.tokenizer import Tokenizer
from ttcjax.verify.verifier import Verifier


@dataclass(frozen=True)
class Model:
    """Parameters with the config they were made for."""

    params: Params
    config: ModelConfig
    tokenizer: str | None = None
    """Fingerprint of the tokenizer it was trained with; `None` where that is not known."""
    judge: Verifier | None = None
    """Format in which it is asked, where it is a verifier."""


@dataclass(frozen=True)
class Solution:
    """One sampled solution."""

    tokens: tuple[int, ...]
    """All that the policy sampled, the stop token included, the prompt not."""
    text: str
    """Text of the tokens, without the stop token."""
    finished: bool
    """Ended by a stop token, not by the length limit."""
    logprob: float
    """Log-probability of the tokens under the policy at temperature 1."""
    step_scores: tuple[float, ...] = ()
    """The verifier's score of each complete step, where a verifier has read it."""
    tokens_sampled: int = 0
    """Tokens drawn at this solution's place, those of dropped beams included."""
    tokens_verified: int = 0
    """Tokens the verifier read at this place, those of rollouts included."""
    tokens_lookahead: int = 0
    """Tokens of a search's rollouts drawn at this place, beside `tokens_sampled`; a rollout is scored and dropped."""


def read_and_written(prompts: Iterable[Prompt], solutions: Iterable[Iterable[Solution]]) -> int:
    """Return the tokens that a policy reads and writes to sample solutions; a prompt is read once for all of its own.

    Args:
        prompts: What was sampled from.
        solutions: Those of each.
    """
    return sum(len(prompt.tokens) for prompt in prompts) + sum(len(s.tokens) for group in solutions for s in group)


@dataclass(frozen=True)
class Prompt:
    """A prompt in tokens, with the id that decides its random numbers."""

    id: str
    tokens: tuple[int, ...]
    max_tokens: int | None = None
    """Longest solution, where that is less than what a call allows."""
    judged: tuple[int, ...] | None = None
    """Tokens that the verifier reads in the place of `tokens`, where that is another text."""

    @property
    def read(self) -> tuple[int, ...]:
        """The prompt as the verifier reads it."""
        return self.tokens if self.judged is None else self.judged


@dataclass(frozen=True)
class Request:
    """Samples `first .. first + count - 1` of a prompt."""

    prompt: Prompt
    first: int
    count: int


@dataclass(frozen=True)
class Begun:
    """A row that has tokens of its own after the prompt, and the numbers that decide what follows them."""

    tokens: tuple[int, ...]
    sample: int
    """Index of the sample."""
    round: int
    """Times that the sample went on before: rows of equal tokens in another round draw afresh."""


def pad(requests: Sequence[Request | None], slots: int) -> programs.Prompts:
    """Return the batch of some requests, `None` for padding, with prompts of `slots` slots."""
    Q = len(requests)
    room, count = (np.zeros(Q, np.int32) for _ in range(2))
    number, first = (np.zeros(Q, np.uint32) for _ in range(2))
    for q, request in enumerate(requests):
        if request is not None:
            prompt = request.prompt
            room[q] = np.iinfo(np.int32).max if prompt.max_tokens is None else prompt.max_tokens
            number[q] = question_number(prompt.id)
            first[q], count[q] = request.first, request.count
    asked = [None if request is None else request.prompt for request in requests]
    own = any(prompt is not None and prompt.judged is not None for prompt in asked)
    return programs.Prompts(
        *_cut([() if prompt is None else prompt.tokens for prompt in asked], slots),
        *map(jnp.asarray, (room, number, first, count)),
        judged=programs.Judged(*_cut([() if prompt is None else prompt.read for prompt in asked], slots))
        if own
        else None,
    )


def _cut(rows: Sequence[Sequence[int]], slots: int) -> tuple[jax.Array, jax.Array, jax.Array]:
    """Return all but the last of each row's tokens, padded to `slots`, how many these are, and the last."""
    prefix = np.zeros((len(rows), slots), np.int32)
    length, last = (np.zeros(len(rows), np.int32) for _ in range(2))
    for q, row in enumerate(rows):
        if row:
            length[q], last[q] = len(row) - 1, row[-1]
            prefix[q, : length[q]] = row[:-1]
    return jnp.asarray(prefix), jnp.asarray(length), jnp.asarray(last)


def solutions(
    tokenizer: Tokenizer,
    out: programs.Sampled,
    n: int,
    members: Sequence[int | None],
    question_ids: Sequence[str],
    begin: np.ndarray | None = None,
) -> Iterator[tuple[int, list[Solution]]]:
    """Cut a batch's results into (member, its `n` solutions).

    Args:
        tokenizer: Turns tokens into text.
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
    # A stop token is no part of the text, whatever it looks like.
    texts = tokenizer.decode_batch([row[:-1] if ended else row for row, ended in zip(rows, finished, strict=True)])
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


def not_finite(what: str, question_id: str) -> UserError:
    """Return the error for numbers of a model that are not finite.

    Args:
        what: The numbers and whose they are.
        question_id: The question they came up at.
    """
    return UserError(
        f"the {what} are not finite at question {question_id[:60]}: the weights are damaged, or numbers overflow in "
        "the model; take another checkpoint, or train again at a lower learning rate or in float32"
    )


def check_models(tokenizer: Tokenizer, policy: Model, verifier: Model | None) -> None:
    """Refuse models that do not belong together, or not with a tokenizer.

    Args:
        tokenizer: What texts are to be encoded and decoded with.
        policy: Writes solutions.
        verifier: Reads them, where there is one.

    Raises:
        UserError: A model was trained with another tokenizer, its vocabulary is smaller than the tokenizer's, or the
            verifier cannot read what the policy writes.
    """
    check_tokenizer(tokenizer, policy, "policy")
    if verifier is not None:
        check_tokenizer(tokenizer, verifier, "verifier")
        check_judge(verifier, policy)


def check_tokenizer(tokenizer: Tokenizer, model: Model, name: str) -> None:
    """Refuse a tokenizer that is not the one a model was trained with, as far as that is known.

    Args:
        tokenizer: What texts are to be encoded and decoded with.
        model: The model that reads and writes the ids.
        name: What the model is called in the error.

    Raises:
        UserError: The model was trained with another tokenizer, or has no rows for some ids of this one.
    """
    if model.tokenizer is not None and model.tokenizer != tokenizer.fingerprint:
        raise UserError(
            f"the {name} was trained with tokenizer {model.tokenizer}, not with {tokenizer.fingerprint}: take the "
            f"tokenizer of the {name}'s own workdir, or a {name} that was trained with this one"
        )
    if tokenizer.vocab_size > model.config.vocab_size:
        raise UserError(
            f"the tokenizer has {tokenizer.vocab_size} ids and the {name} a vocabulary of {model.config.vocab_size}: "
            f"take the tokenizer of the {name}'s own workdir"
        )


def check_judge(verifier: Model, policy: Model) -> None:
    """Refuse a verifier that cannot read what a policy writes.

    Raises:
        UserError: The model does not say how it is asked, or has ids of its own.
    """
    if verifier.judge is None:
        raise UserError(
            "the model given as verifier does not say how it is asked: give Model(..., judge=ValueHead()), or another "
            "of ttcjax.verify.formats"
        )
    verifier.judge.check(verifier.config, policy.config)


def check_room(
    prompts: Sequence[Prompt], max_tokens: int, begun: int, models: Sequence[tuple[ModelConfig, Verifier | None]]
) -> None:
    """Refuse prompts that leave no room for a solution.

    Args:
        prompts: The prompts.
        max_tokens: Longest solution.
        begun: Tokens that rows have begun with.
        models: Shape of each model, with how it is asked where it is a verifier: it may read more of a row than the
            policy writes.

    Raises:
        UserError: A prompt is empty, or it and its longest row are longer than what a model reads.
    """
    for prompt in prompts:
        if not prompt.tokens:
            raise UserError(f"the prompt of {prompt.id[:60]} is empty: it needs a token, such as the begin mark")
        room = max_tokens if prompt.max_tokens is None else min(max_tokens, prompt.max_tokens)
        read = [
            (
                model.max_seq_len,
                len(prompt.tokens) if judge is None else len(prompt.read) + judge.reads(room, room) - room,
            )
            for model, judge in models
        ]
        passed = [(limit, begun + tokens) for limit, tokens in read if begun + tokens + room > limit]
        if passed:
            limit, tokens = min(passed)
            cure = " or lower --sampler.max_tokens" if tokens < limit else ""
            raise UserError(
                f"the prompt of {prompt.id[:60]} has {tokens} tokens and sampler.max_tokens is {room}, more than the "
                f"model's limit of {limit} together: shorten the prompt{cure}"
            )


def check_read(prompts: Sequence[Prompt], read: Sequence[Sequence[int]], limit: int, *, verifier: bool) -> None:
    """Refuse rows that a model has no room to read whole.

    Args:
        prompts: The prompts.
        read: Of each, the tokens that are read of its rows, the prompt's last one among them.
        limit: Most tokens that the model reads.
        verifier: Whether it is the verifier, or else the policy.

    Raises:
        UserError: A prompt and a row are longer together.
    """
    for prompt, group in zip(prompts, read, strict=True):
        length = len(prompt.read if verifier else prompt.tokens) - 1 + max(group, default=0)
        if length > limit:
            raise UserError(
                f"{prompt.id[:60]} and its continuation have {length} tokens, more than the "
                f"{'verifier' if verifier else 'policy'}'s limit of {limit}: shorten one of them"
            )
