"""The arithmetic of a sweep's plan: times of cells that have not run, and how numbers are shown."""

import pytest

from ttcjax.config import ExperimentConfig
from ttcjax.eval.collect.amounts import Seen, Units
from ttcjax.pipeline import plan
from ttcjax.runtime.shards import Shard


@pytest.mark.parametrize(("generations", "expected"), [(1, 0.5), (2, 1.0), (4, 1.5), (8, 2.5), (16, 5.0)])
def test_time_of_other_budgets_is_in_proportion_or_between(generations, expected):
    def shard(n, number):
        return Shard("beam", (("beam", n),), 3, number, 5 * number, 5, n)

    def took(seconds):
        return Seen(
            questions=5, tokens=0, lookahead_tokens=0, verifier_tokens=0, seconds=seconds, shown=0, rows=1, revised=0
        )

    # The second shard of 8 compiled too.
    seen = {"search": {shard(2, 0): took(1.0), shard(8, 0): took(2.5), shard(8, 1): took(9.5)}}
    units = Units(prompt=9.0, token=20.0, inputs={})
    costs = plan._Costs(ExperimentConfig(), {}, {}, units, token_from="bank", seen=seen, scoring=None)
    assert costs._seconds("search", [], generations) == (pytest.approx(expected), "other budgets")
    assert costs._seconds("search", [took(9.5), took(2.5)], 8) == (2.5, "its own shards")
    assert costs._seconds("rescore", [], 0) == (None, None)


@pytest.mark.parametrize(
    ("value", "text"), [(0, "0"), (999, "999"), (1000, "1 k"), (12_345, "12.3 k"), (1.5e12, "1.5 T"), (2e21, "2 Z")]
)
def test_counts_read_well(value, text):
    assert plan._short(value) == text
