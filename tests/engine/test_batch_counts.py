"""What the engine tells of its progress: progress lines show these numbers and the time left from them."""

import pytest


@pytest.mark.parametrize(("n", "rows"), [(3, 64), (5, 2)])
def test_every_solution_is_counted_once(tiny, n, rows):
    """Padding rows, and samples drawn beyond the last one, are no solutions; equal ones that are read once are."""
    engine = tiny.engine(rows=rows)
    prompts = tiny.prompts(engine, count=3)
    counts: list[int] = []
    engine.on_batch = counts.append
    found = engine.sample(prompts, n, seed=0)
    assert sum(counts) == 3 * n
    assert all(counts), "a batch without solutions was run"

    counts.clear()
    engine.score(prompts, [solutions + solutions[:1] for solutions in found])
    assert sum(counts) == 3 * (n + 1)
