"""What a search writes down of its rounds: enough to follow every final row back to its first step."""

import dataclasses

import jax
import numpy as np
import pytest

from ttcjax.search.ops import search
from ttcjax.search.strategies.beam import Beam
from ttcjax.search.strategies.dvts import DVTS
from ttcjax.search.strategies.lookahead import Lookahead
from ttcjax.search.strategies.particles import Particles
from ttcjax.search.strategies.rebase import REBASE
from ttcjax.testing import ScriptedOps


def lineages(parents, told, n):
    """Return for each final place what was told along its line, given parents and what was told by round and place."""
    lines = [[] for _ in range(n)]
    for parent, row in zip(parents, told, strict=True):
        grown = [[*line, *([one] if one is not None else [])] for line, one in zip(lines, row, strict=True)]
        lines = [grown[p] for p in parent]
    return lines


@pytest.mark.parametrize(
    "strategy",
    [Beam(8, 4), Beam(8, 4, 2), Lookahead(8, 4, k=2), DVTS(8, 4), REBASE(8), Particles(8)],
    ids=lambda s: s.name,
)
def test_every_row_can_be_followed_back(strategy):
    """Steps and their scores, told by place and round, are those of the final rows once parents are followed."""
    found = jax.jit(lambda: ScriptedOps(3, 8).search(strategy, 20, traced=True))()
    trace = found.trace
    assert trace is not None
    plain = jax.jit(lambda: ScriptedOps(3, 8).search(strategy, 20))()
    np.testing.assert_array_equal(found.rows.path, plain.rows.path, "writing down changed the search")
    parent, score, step = (np.asarray(x).reshape(20, 8, strategy.max_rounds, -1) for x in dataclasses.astuple(trace))
    dropped = 0
    for q in range(20):
        ran = int((parent[q, 0, :, 0] >= 0).sum())
        assert (parent[q, :, :ran] >= 0).all()
        assert (parent[q, :, ran:] == -1).all(), "a round was told that was not run"
        parents = parent[q, :, :ran, 0].T.tolist()
        dropped += sum(len({*range(8)} - {*row}) for row in parents)
        told = [
            [(int(s), float(v)) if s >= 0 else None for s, v in zip(step[q, :, r, 0], score[q, :, r, 0], strict=True)]
            for r in range(ran)
        ]
        for place, line in enumerate(lineages(parents, told, 8)):
            row = 8 * q + place
            assert len(line) == found.rows.steps[row]
            assert line[-1][0] == int(found.rows.path[row]) >> 1, "a line leads to another row"
            if not isinstance(strategy, Lookahead):  # there rounds are judged by where rollouts lead
                assert [v for _, v in line] == found.step_scores[row, : len(line)].tolist()
    assert dropped > 20, "hardly a row was dropped: the test says little of them"


def test_rounds_of_real_models_are_texts(engine, prompts):
    found = search(engine, Beam(4, 2), prompts, 3, traced=True)
    plain = search(engine, Beam(4, 2), prompts, 3)
    assert [[s.tokens for s in o.candidates] for o in found] == [[s.tokens for s in o.candidates] for o in plain]
    for outcome in found:
        told = [[step or None for step in one.steps] for one in outcome.rounds]
        for line, solution in zip(
            lineages([r.parents for r in outcome.rounds], told, 4), outcome.candidates, strict=True
        ):
            assert "".join("".join(line).split()) == "".join(solution.text.split())
    assert not plain[0].rounds
