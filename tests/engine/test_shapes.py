"""The shapes of programs follow from the request, and keep devices busy."""

from hypothesis import given
from hypothesis import strategies as st

from ttcjax.engine import batching

ANY = {
    "questions": st.integers(1, 5000),
    "n": st.integers(1, 300),
    "rows": st.integers(1, 512),
    "most": st.integers(1, 600),
    "cpu": st.booleans(),
}


@given(**ANY)
def test_no_more_rows_work_at_once_than_may(questions, n, rows, most, cpu):
    found = batching.choose(questions, n, rows=rows, most=most, cpu=cpu)
    assert 1 <= found.groups * found.group_rows <= rows, "more rows than fit into the memory"
    assert found.group_rows <= n
    assert 1 <= found.prefill <= most, "more prompts at once than were planned for"


@given(**ANY)
def test_counts_that_are_near_share_a_shape(questions, n, rows, most, cpu):
    """Else every number of questions would compile a program of its own."""
    found = batching.choose(questions, n, rows=rows, most=most, cpu=cpu)
    assert found == batching.choose(batching.rounded(questions), n, rows=rows, most=most, cpu=cpu)


@given(**ANY)
def test_all_rows_are_busy_where_there_is_work_for_eight_devices(questions, n, rows, most, cpu):
    found = batching.choose(questions, n, rows=rows, most=most, cpu=cpu)
    if questions * n >= batching.DEVICES * rows:
        assert 2 * found.groups * found.group_rows > rows, "half of the rows idle"


@given(**ANY)
def test_rows_given_stay_together(questions, n, rows, most, cpu):
    for reads in (False, True):
        found = batching.choose(questions, n, rows=rows, most=most, cpu=cpu, group_rows=n, reads=reads)
        assert found.group_rows == n
        assert found.groups == 1 or found.groups * n <= rows


def test_shapes_worked_out_by_hand():
    cpu = {"rows": 64, "most": 1000, "cpu": True}
    assert batching.choose(64, 80, **cpu) == batching.Shapes(groups=4, group_rows=16, prefill=8)
    assert batching.choose(13, 7, **cpu) == batching.Shapes(groups=2, group_rows=7, prefill=2)
    assert batching.choose(1, 16, **cpu) == batching.Shapes(groups=1, group_rows=16, prefill=1)
    assert batching.choose(1, 64, **cpu) == batching.Shapes(groups=1, group_rows=16, prefill=1)
    assert batching.choose(40, 5, **cpu) == batching.Shapes(groups=8, group_rows=5, prefill=8)
    accelerator = {"rows": 256, "most": 1000, "cpu": False}
    assert batching.choose(1, 64, **accelerator) == batching.Shapes(groups=1, group_rows=64, prefill=1)
    assert batching.choose(13, 7, **accelerator) == batching.Shapes(groups=16, group_rows=7, prefill=2)
    assert batching.choose(64, 80, **accelerator) == batching.Shapes(groups=16, group_rows=16, prefill=8)
