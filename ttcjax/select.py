"""The choice of one final answer among many: majority, best-of-N and best-of-N weighted.

Answers are compared as groups of equal answers. Where the literature is silent, these rules hold:

* An unparsable answer has no group (id -1): it gets no vote, and counts as wrong when grading.
* If no answer is parsable, nothing is chosen.
* Ties go to the group with the higher summed score, then to the one with the lower sample index. So the
  verifier breaks ties of a majority vote too; `ties="first"` goes by sample index alone and needs no verifier.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np

from ttcjax.errors import UserError

RULES = ("majority", "best", "weighted")
CHAIN_RULES = ("hierarchical", "majority", "last", "best")
TIES = ("score", "first")


def choose(groups_QN: np.ndarray, scores_QN: np.ndarray, rule: str = "weighted", ties: str = "score") -> np.ndarray:
    """Choose one answer for each question and return a sample that gives it.

    The chosen group of equal answers has, under

    * `majority`, the most samples (Wang et al. 2022, self-consistency);
    * `best`, the sample with the highest score (plain best-of-N);
    * `weighted`, the highest sum of scores (best-of-N weighted, Li et al. 2023). Scores must not be
      negative for this rule to make sense; equal positive scores make it `majority`.

    Args:
        groups_QN: Ids of groups of equal answers, `[Q, N]` integers; -1 is unparsable (or padding). Ids need
            to agree within a question only.
        scores_QN: Verifier score of each sample, `[Q, N]`; those of unparsable samples are not looked at.
        rule: One of `RULES`.
        ties: One of `TIES`: between groups of equal weight the higher summed score decides, or only which
            group has the first sample.

    Returns:
        Sample index, `[Q]` int64: the highest-scoring sample of the chosen group (the first of equals);
        -1 where no answer is parsable.

    Raises:
        UserError: The rule or `ties` is unknown, the shapes differ, or a parsable sample's score is not finite.
    """
    _check_name("selection rule", rule, RULES)
    _check_name("tie rule", ties, TIES)
    groups_QN = np.asarray(groups_QN)
    scores_QN = np.asarray(scores_QN, np.float64)
    if groups_QN.ndim != 2 or groups_QN.shape != scores_QN.shape:
        raise UserError(
            f"groups and scores must be two arrays [questions, samples], not {groups_QN.shape} and {scores_QN.shape}"
        )
    chosen_Q = np.full(len(groups_QN), -1, np.int64)
    question, sample = np.nonzero(groups_QN >= 0)  # row-major: questions in order, samples in order within each
    if not len(question):
        return chosen_Q
    label, score = groups_QN[question, sample].astype(np.int64), scores_QN[question, sample]
    if not np.isfinite(score).all():
        raise UserError("a parsable sample has a score that is not finite: check the verifier's checkpoint")

    _, first, group = np.unique(question * (label.max() + 1) + label, return_index=True, return_inverse=True)
    total = np.bincount(group, weights=score)
    if rule == "majority":
        weight = np.bincount(group).astype(np.float64)
    elif rule == "best":
        weight = np.full(len(first), -np.inf)
        np.maximum.at(weight, group, score)
    else:
        weight = total
    second = total if ties == "score" else np.zeros_like(total)
    ranked = np.lexsort((first, -second, -weight, question[first]))
    won = np.zeros(len(first), bool)
    won[_first_of_runs(ranked, question[first])] = True

    members = np.flatnonzero(won[group])
    members = members[np.lexsort((sample[members], -score[members], question[members]))]
    members = _first_of_runs(members, question)
    chosen_Q[question[members]] = sample[members]
    return chosen_Q


def choose_in_chains(groups_QPS: np.ndarray, scores_QPS: np.ndarray, rule: str = "hierarchical") -> np.ndarray:
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
        scores_QPS: Verifier score of each answer, not negative; `majority` and `last` break ties with them.
        rule: One of `CHAIN_RULES`.

    Returns:
        `chain * S + place`, `[Q]` int64; -1 where no answer can be read.

    Raises:
        UserError: The rule is unknown, the shapes differ, or a parsable answer's score is not finite.
    """
    _check_name("selection rule", rule, CHAIN_RULES)
    groups_QPS, scores_QPS = np.asarray(groups_QPS), np.asarray(scores_QPS, np.float64)
    if groups_QPS.ndim != 3 or groups_QPS.shape != scores_QPS.shape:
        raise UserError(
            f"groups and scores must be two arrays [questions, chains, answers], not {groups_QPS.shape} and "
            f"{scores_QPS.shape}"
        )
    Q, P, S = groups_QPS.shape
    if rule in ("majority", "best"):
        return choose(groups_QPS.reshape(Q, P * S), scores_QPS.reshape(Q, P * S), rule)
    if rule == "last":
        place_QP = np.full((Q, P), S - 1)
    else:
        place_QP = choose(groups_QPS.reshape(Q * P, S), scores_QPS.reshape(Q * P, S), "weighted").reshape(Q, P)
    at = np.maximum(place_QP, 0)[..., None]
    winners_QP = np.where(place_QP < 0, -1, np.take_along_axis(groups_QPS, at, axis=2)[..., 0])
    score_QP = np.take_along_axis(scores_QPS, at, axis=2)[..., 0]
    chain_Q = choose(winners_QP, score_QP, "majority" if rule == "last" else "weighted")
    place_Q = np.take_along_axis(place_QP, np.maximum(chain_Q, 0)[:, None], axis=1)[:, 0]
    return np.where(chain_Q < 0, -1, chain_Q * S + place_Q)


def choose_one(
    answers: Sequence[str | None],
    scores: Sequence[float] | np.ndarray,
    rule: str = "weighted",
    grade_equal: Callable[[str, str], bool] | None = None,
    ties: str = "score",
) -> int | None:
    """Choose among the answers to a single question; `choose` tells the rules.

    Args:
        answers: `[N]` final answers; `None` is unparsable.
        scores: `[N]` verifier scores.
        rule: One of `RULES`.
        grade_equal: Passed to `group_answers`.
        ties: One of `TIES`.

    Returns:
        Index of a sample with the chosen answer, or `None` if no answer is parsable.

    Raises:
        UserError: As `choose`.
    """
    groups = group_answers(answers, grade_equal)
    index = int(choose(groups[None], np.asarray(scores, np.float64)[None], rule, ties)[0])
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


def _first_of_runs(order: np.ndarray, keys: np.ndarray) -> np.ndarray:
    """Return the first entry of `order` for each run of equal `keys[order]`."""
    sorted_keys = keys[order]
    starts = np.ones(len(order), bool)
    starts[1:] = sorted_keys[1:] != sorted_keys[:-1]
    return order[starts]
