import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from ttcjax.runtime.errors import UserError
from ttcjax.verify.aggregate import AGGREGATIONS, Ragged, aggregate, token_likelihood

REFERENCE = {
    "last": lambda row: row[-1],
    "min": min,
    "product": lambda row: float(np.prod(row)),
    "mean": lambda row: sum(row) / len(row),
}
rows = st.lists(st.lists(st.floats(0, 1, width=32), max_size=5), max_size=8)


@given(rows)
def test_matches_plain_python_for_every_name_and_empty_rows_score_zero(steps):
    assert set(REFERENCE) == set(AGGREGATIONS)
    for how, reference in REFERENCE.items():
        expected = [reference(row) if row else 0.0 for row in steps]
        np.testing.assert_allclose(aggregate(steps, how), expected, rtol=1e-12, atol=1e-300)


@given(rows, st.data())
def test_ragged_keeps_rows_whole(steps, data):
    mask = np.array(data.draw(st.lists(st.booleans(), min_size=len(steps), max_size=len(steps))), bool)
    kept = Ragged.from_lists(steps).keep(mask)
    cut = [list(kept.values[a:b]) for a, b in zip(kept.offsets, kept.offsets[1:], strict=False)]
    assert cut == [row for row, keep in zip(steps, mask, strict=True) if keep]


def test_a_likelihood_is_the_geometric_mean_of_the_tokens_whatever_their_number():
    chances = np.array([0.5, 0.25, 0.125])
    logprob = np.array([np.log(chances).sum(), 2 * np.log(chances).sum(), 0.0], np.float32)
    found = token_likelihood(logprob, np.array([3, 6, 1]))
    np.testing.assert_allclose(found, [np.prod(chances) ** (1 / 3)] * 2 + [1.0], rtol=1e-6)


def test_unknown_name_lists_the_known_ones():
    with pytest.raises(UserError, match=r"'max'.*last, min, product, mean"):
        aggregate([[0.5]], "max")
