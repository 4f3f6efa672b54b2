"""The choice of one final answer among many: majority, best-of-N, best-of-N weighted, votes weighted by a softmax.

Answers are compared as groups of equal answers. Where the literature is silent, these rules hold:

* An unparsable answer has no group (id -1): it gets no vote, and counts as wrong when grading.
* If no answer is parsable, nothing is chosen.
* A majority vote is a vote: it looks at no score, and between groups of equally many samples the one with the earliest
  sample wins. `ties="verifier"` lets the higher summed score decide first, which is another selector.
* Ties under every other rule go to the group with the higher summed score, then to the one with the earliest sample.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np

from ttcjax.runtime.errors import UserError

RULES = ("majority", "best", "weighted", "softmax")
CHAIN_RULES = ("hierarchical", "majority", "last", "best")
TIES = ("first", "verifier")
_KEY_BITS = 62


def default_ties(rule: str) -> str:
    """Return which of `TIES` holds under a rule unless told otherwise: votes of a majority are counted, not weighed."""
    return "first" if rule == "majority" else "verifier"


def asks_verifier(rule: str, ties: str | None = None) -> bool:
    """Return whether a choice depends on scores: a majority does not, unless they decide its ties."""
    return rule != "majority" or (ties or default_ties(rule)) == "verifier"


@dataclass(frozen=True)
class Selector:
    """Rule by which a strategy chooses one answer among its candidates."""

    rule: str = "weighted"
    """One of `RULES`."""
    ties: str | None = None
    """One of `TIES`; `None` for that of the rule."""
    vote_temperature: float = 1.0
    """Temperature of `softmax`'s votes."""
    by: str = "verifier"
    """Whose scores select: the verifier's, or the policy's own `likelihood`."""

    @property
    def asks_verifier(self) -> bool:
        """Whether the choice depends on the verifier."""
        return self.by == "verifier" and asks_verifier(self.rule, self.ties)

    def choose_one(self, answers: Sequence[str | None], scores: Sequence[float] | np.ndarray) -> int | None:
        """Return the place of the chosen answer among some; see `choose_one`."""
        return choose_one(answers, scores, self.rule, ties=self.ties, temperature=self.vote_temperature)


class Votes:
    """Answers of many questions sorted into their groups, once for any number of scores and rules.

    Attributes:
        members: Places in the flat `[Q * N]` of the parsable samples: by question, group, sample. Scores are given in
            this order.
        starts: Where each group begins among the members, `[groups]`; groups of a question stand together.
        questions: The questions that have a group, in rising order.
    """

    def __init__(self, groups_QN: np.ndarray):
        """Sort the samples.

        Args:
            groups_QN: Ids of groups of equal answers, `[Q, N]` integers; -1 is unparsable. Ids need to agree within a
                question only.
        """
        Q, N = groups_QN.shape
        self.count = Q
        flat = np.flatnonzero(groups_QN.ravel() >= 0)
        label = groups_QN.ravel()[flat].astype(np.int64)
        question, sample = np.divmod(flat, max(N, 1))
        # One sort of packed integers is several times as fast as a sort by three keys.
        sample_bits, group_bits = N.bit_length(), int(label.max(initial=0)).bit_length()
        if Q.bit_length() + sample_bits + group_bits > _KEY_BITS:
            label = np.unique(label, return_inverse=True)[1]
            group_bits = int(label.max(initial=0)).bit_length()
        keys = np.sort((((question << group_bits) | label) << sample_bits) | sample)
        question = keys >> (group_bits + sample_bits)
        self.members = _narrow(question * N + (keys & ((1 << sample_bits) - 1)), Q * N)
        self.starts = _narrow(_starts(keys >> sample_bits), Q * N)
        of_group = question[self.starts]
        self._first_groups = _narrow(_starts(of_group), Q * N)
        self.questions = _narrow(of_group[self._first_groups], Q * N)

    def winners(
        self, scores: np.ndarray, rule: str = "weighted", ties: str | None = None, temperature: float = 1.0
    ) -> np.ndarray:
        """Return the group chosen for each of `questions`; `choose` tells the rules.

        Args:
            scores: Of the members, in their order.
            rule: One of `RULES`.
            ties: One of `TIES`; that of the rule if not given.
            temperature: Temperature of `softmax`'s votes.

        Raises:
            UserError: As `choose`.
        """
        _check_name("selection rule", rule, RULES)
        ties = default_ties(rule) if ties is None else ties
        _check_name("tie rule", ties, TIES)
        if asks_verifier(rule, ties) and not np.isfinite(scores).all():
            raise UserError("a parsable sample has a score that is not finite: check the verifier's checkpoint")
        starts = self.starts
        sizes = np.diff(starts, append=len(scores))
        ranks: list[np.ndarray] = []
        if rule == "majority":
            ranks = [sizes]
        elif rule == "best":
            ranks = [_reduce(np.maximum, scores, starts)]
        elif rule == "softmax":
            first_members = starts[self._first_groups]
            of_question = np.diff(first_members, append=len(scores))
            ranks = [_reduce(np.add, _softmax(scores, temperature, first_members, of_question), starts)]
        if rule == "weighted" or ties == "verifier":
            ranks.append(_reduce(np.add, scores, starts))
        first = self.members[starts]
        return _top(self._first_groups, [*ranks, -first])

    def plurality(self, values: np.ndarray) -> np.ndarray:
        """Return what a majority vote gives on average over all orders of the samples, for each of `questions`.

        Groups of the most samples are equally large, so each is as likely as another to have the earliest sample, and
        each of its samples to be that one: the mean over all samples of those groups.

        Args:
            values: Of the members, in their order.
        """
        sizes = np.diff(self.starts, append=len(values))
        groups = np.diff(self._first_groups, append=len(sizes))
        most = _reduce(np.maximum, sizes, self._first_groups)
        top = sizes == np.repeat(most, groups)
        sums = _reduce(np.add, np.asarray(values, np.float64), self.starts)
        of_top = _reduce(np.add, np.where(top, sums, 0.0), self._first_groups)
        return of_top / _reduce(np.add, np.where(top, sizes, 0), self._first_groups)

    def best_members(self, groups: np.ndarray, scores: np.ndarray) -> np.ndarray:
        """Return the highest-scoring member of each of some groups, the first of equals."""
        sizes = np.diff(self.starts, append=len(scores))[groups]
        begins = np.cumsum(sizes) - sizes
        inside = np.arange(int(sizes.sum())) + np.repeat(self.starts[groups] - begins, sizes)
        return inside[_top(begins, [scores[inside], -inside])]


def choose(
    groups_QN: np.ndarray,
    scores_QN: np.ndarray | None,
    rule: str = "weighted",
    ties: str | None = None,
    temperature: float = 1.0,
) -> np.ndarray:
    """Choose one answer for each question and return a sample that gives it.

    The chosen group of equal answers has, under

    * `majority`, the most samples (Wang et al. 2022, self-consistency);
    * `best`, the sample with the highest score (plain best-of-N);
    * `weighted`, the highest sum of scores (best-of-N weighted, Li et al. 2023). Scores must not be
      negative for this rule to make sense; equal positive scores make it `majority`;
    * `softmax`, the highest sum of weights, which are the softmax over the samples of logit(score) / temperature. A
      score p is a chance, and only on the scale of its logit log(p / (1 - p)) does a difference mean the same near 0,
      1/2 and 1; so at temperature 1 a vote weighs its odds p / (1 - p). High temperatures make it `majority` with ties
      by the verifier, infinity exactly; low ones make it `best`.

    Args:
        groups_QN: Ids of groups of equal answers, `[Q, N]` integers; -1 is unparsable (or padding). Ids need
            to agree within a question only.
        scores_QN: Verifier score of each sample, `[Q, N]`; those of unparsable samples are not looked at. A majority
            looks at none, and there may be none, unless they decide its ties.
        rule: One of `RULES`.
        ties: One of `TIES`: between groups of equal weight the one with the earliest sample wins (`first`), or the
            one with the higher summed score and only then the earliest (`verifier`). By default `first` under
            `majority`, and `verifier` under the others.
        temperature: Of `softmax`; positive, may be infinite.

    Returns:
        Sample index, `[Q]` int64: the highest-scoring sample of the chosen group (the first of equals), or where
        scores are not looked at its first sample; -1 where no answer is parsable.

    Raises:
        UserError: The rule or `ties` is unknown, scores are needed and not given, the shapes differ, or a parsable
            sample's score is not finite; under `softmax`, a score is not a chance or the temperature is not positive.
    """
    groups_QN = np.asarray(groups_QN)
    weighed = asks_verifier(rule, ties)
    if scores_QN is None and weighed:
        raise UserError(f"the selection rule {rule!r} with ties by {ties or default_ties(rule)!r} needs scores")
    scores_QN = np.zeros(groups_QN.shape) if scores_QN is None else np.asarray(scores_QN, np.float64)
    if groups_QN.ndim != 2 or groups_QN.shape != scores_QN.shape:
        raise UserError(
            f"groups and scores must be two arrays [questions, samples], not {groups_QN.shape} and {scores_QN.shape}"
        )
    votes = Votes(groups_QN)
    scores = scores_QN.ravel()[votes.members]
    groups = votes.winners(scores, rule, ties, temperature)
    won = votes.best_members(groups, scores) if weighed else votes.starts[groups]
    chosen_Q = np.full(len(groups_QN), -1, np.int64)
    chosen_Q[votes.questions] = votes.members[won] - votes.questions.astype(np.int64) * groups_QN.shape[1]
    return chosen_Q


def choose_in_chains(
    groups_QPS: np.ndarray, scores_QPS: np.ndarray | None, rule: str = "hierarchical", ties: str = "first"
) -> np.ndarray:
    """Choose one answer for each question from P chains of S answers, and return where it stands.

    Under

    * `hierarchical`, `weighted` chooses within each chain, and then among the chains' winners, each with its score
      (Snell et al. 2024, section 6.2);
    * `majority`, all answers of all chains vote together (there too: votes within short chains are poor);
    * `last`, the chains' last answers vote, whatever came before them;
    * `best`, the answer with the highest score of all is taken.

    Args:
        groups_QPS: Ids of groups of equal answers, `[Q, P, S]` integers; -1 is unparsable. Ids need to agree within a
            question only.
        scores_QPS: Verifier score of each answer, not negative. `majority` and `last` look at none, and there may be
            none, unless they decide ties.
        rule: One of `CHAIN_RULES`.
        ties: Of the votes `majority` and `last`, as for `choose`: `first` is the answer that comes first when the
            chains are read one after the other.

    Returns:
        `chain * S + place`, `[Q]` int64; -1 where no answer can be read.

    Raises:
        UserError: The rule or `ties` is unknown, scores are needed and not given, the shapes differ, or a parsable
            answer's score is not finite.
    """
    _check_name("selection rule", rule, CHAIN_RULES)
    _check_name("tie rule", ties, TIES)
    groups_QPS = np.asarray(groups_QPS)
    if scores_QPS is None and (rule in ("hierarchical", "best") or ties == "verifier"):
        raise UserError(f"the selection rule {rule!r} with ties by {ties!r} needs scores")
    scores_QPS = np.zeros(groups_QPS.shape) if scores_QPS is None else np.asarray(scores_QPS, np.float64)
    if groups_QPS.ndim != 3 or groups_QPS.shape != scores_QPS.shape:
        raise UserError(
            f"groups and scores must be two arrays [questions, chains, answers], not {groups_QPS.shape} and "
            f"{scores_QPS.shape}"
        )
    Q, P, S = groups_QPS.shape
    if rule in ("majority", "best"):
        of_vote = ties if rule == "majority" else None
        return choose(groups_QPS.reshape(Q, P * S), scores_QPS.reshape(Q, P * S), rule, of_vote)
    if rule == "last":
        place_QP = np.full((Q, P), S - 1)
    else:
        place_QP = choose(groups_QPS.reshape(Q * P, S), scores_QPS.reshape(Q * P, S), "weighted").reshape(Q, P)
    at = np.maximum(place_QP, 0)[..., None]
    winners_QP = np.where(place_QP < 0, -1, np.take_along_axis(groups_QPS, at, axis=2)[..., 0])
    score_QP = np.take_along_axis(scores_QPS, at, axis=2)[..., 0]
    chain_Q = choose(winners_QP, score_QP, *(("majority", ties) if rule == "last" else ("weighted", None)))
    place_Q = np.take_along_axis(place_QP, np.maximum(chain_Q, 0)[:, None], axis=1)[:, 0]
    return np.where(chain_Q < 0, -1, chain_Q * S + place_Q)


def choose_one(
    answers: Sequence[str | None],
    scores: Sequence[float] | np.ndarray | None,
    rule: str = "weighted",
    grade_equal: Callable[[str, str], bool] | None = None,
    ties: str | None = None,
    temperature: float = 1.0,
) -> int | None:
    """Choose among the answers to a single question; `choose` tells the rules.

    Args:
        answers: `[N]` final answers; `None` is unparsable.
        scores: `[N]` verifier scores; a majority needs none.
        rule: One of `RULES`.
        grade_equal: Passed to `group_answers`.
        ties: One of `TIES`; that of the rule if not given.
        temperature: Temperature of `softmax`'s votes.

    Returns:
        Index of a sample with the chosen answer, or `None` if no answer is parsable.

    Raises:
        UserError: As `choose`.
    """
    groups = group_answers(answers, grade_equal)
    weights = None if scores is None else np.asarray(scores, np.float64)[None]
    index = int(choose(groups[None], weights, rule, ties, temperature)[0])
    return None if index < 0 else index


def group_answers(answers: Sequence[str | None], grade_equal: Callable[[str, str], bool] | None = None) -> np.ndarray:
    """Number the groups of equal answers of one question.

    Equal strings are one group at no cost. If `grade_equal` is given, each distinct string is then compared
    with the first string of every earlier group and joins the first that it equals, so the callback runs at
    most `distinct * groups` times and need not be transitive.

    Args:
        answers: `[N]` canonical answers; `None` is unparsable.
        grade_equal: Says whether two different strings are the same answer, e.g. `1/2` and `0.5`.

    Returns:
        Group ids, `[N]` int32, counted from 0 in order of first appearance; -1 for `None`.
    """
    ids: dict[str, int] = {}
    leaders: list[str] = []
    for answer in answers:
        if answer is None or answer in ids:
            continue
        same = (i for i, leader in enumerate(leaders) if grade_equal is not None and grade_equal(answer, leader))
        ids[answer] = next(same, len(leaders))
        if ids[answer] == len(leaders):
            leaders.append(answer)
    return np.array([-1 if answer is None else ids[answer] for answer in answers], np.int32)


def _check_name(what: str, name: str, known: Sequence[str]) -> None:
    if name not in known:
        raise UserError(f"unknown {what} {name!r}: use one of {', '.join(known)}")


def _softmax(scores: np.ndarray, temperature: float, starts: np.ndarray, sizes: np.ndarray) -> np.ndarray:
    """Return each score's weight in its run, up to a factor common to the run: the highest weighs 1."""
    if not temperature > 0:
        raise UserError(f"the temperature of softmax votes must be positive, not {temperature:g}")
    if len(scores) and not 0 <= scores.min() <= scores.max() <= 1:
        raise UserError("softmax votes need scores from 0 to 1: take select=weighted or select=best")
    # Scores are float32 sigmoids, which come no nearer to 1 than this without being 1.
    inside = np.clip(scores, np.finfo(np.float32).tiny, 1 - np.finfo(np.float32).epsneg)
    logits = np.log(inside) - np.log1p(-inside)
    with np.errstate(over="ignore"):  # minus infinity, of which the exponential is 0
        return np.exp((logits - np.repeat(_reduce(np.maximum, logits, starts), sizes)) / temperature)


def _top(starts: np.ndarray, ranks: Sequence[np.ndarray]) -> np.ndarray:
    """Return, for each run of places that begins at `starts`, the place with the highest rank.

    Args:
        starts: Rising, from 0; no run is empty.
        ranks: The first decides, between equals the next; the last has no equals within a run.
    """
    places = np.arange(len(ranks[0])) if len(ranks) else starts
    for rank in ranks:
        if len(places) == len(starts):
            break
        values = rank[places]
        sizes = np.diff(starts, append=len(places))
        kept = np.flatnonzero(values == np.repeat(_reduce(np.maximum, values, starts), sizes))
        places, starts = places[kept], np.searchsorted(kept, starts)
    return places


def _reduce(how: np.ufunc, values: np.ndarray, starts: np.ndarray) -> np.ndarray:
    """Return `how` over each run of values that begins at `starts`; there may be no run at all."""
    return how.reduceat(values, starts) if len(starts) else values[:0]


def _starts(keys: np.ndarray) -> np.ndarray:
    """Return where runs of equal keys begin."""
    new = np.ones(len(keys), bool)
    new[1:] = keys[1:] != keys[:-1]
    return np.flatnonzero(new)


def _narrow(places: np.ndarray, limit: int) -> np.ndarray:
    """Return places below `limit` in half the memory where they fit: there may be many millions."""
    return places.astype(np.int32) if limit <= np.iinfo(np.int32).max else places
