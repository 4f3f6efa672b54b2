"""Strategies in text, what they cost and what they come to."""

import contextlib
import dataclasses
import typing
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ttcjax.config import ConfigError
from ttcjax.search import registry
from ttcjax.search.strategies.beam import Beam
from ttcjax.search.strategies.best_of_n import BestOfN
from ttcjax.search.strategies.dvts import DVTS
from ttcjax.search.strategies.lookahead import Lookahead
from ttcjax.verify.select import Selector


@pytest.mark.parametrize(
    "strategy",
    [
        *(
            BestOfN(4),
            BestOfN(2, select="majority"),
            BestOfN(2, "softmax", 0.25),
            BestOfN(3, "softmax", temperature=0.6),
            BestOfN(2, "best", temperature=0.3),
        ),
        *(
            BestOfN(2, "majority", ties="verifier"),
            BestOfN(2, by="likelihood"),
            BestOfN(2, "best", by="likelihood", temperature=0.5),
        ),
        *(
            BestOfN(2, "softmax", 0.25, 1e-3),
            Beam(16, 4, temperature=0.7),
            Beam(16, "sqrt", 7, "compete", 1.5),
            Beam(16, 4),
            Beam(8, "sqrt"),
        ),
        *(Lookahead(8, 4, 2, 9, temperature=0.1), DVTS(8, 4, temperature=1.0), DVTS(8, "sqrt", 3, "compete", 0.7)),
        *(Lookahead(16, 4, k=3), Lookahead(8, "sqrt"), Lookahead(4, 2, k=0), DVTS(16, 4), DVTS(8, "sqrt")),
        *(Beam(16, 4, ended="compete"), Lookahead(16, 4, 3, ended="compete"), DVTS(16, 4, ended="compete")),
    ],
)
def test_names_round_trip(strategy):
    """Every setting stands in the name, none is lost on the way through a config or a file."""
    assert registry.parse(strategy.name) == strategy


@pytest.mark.parametrize("kind", ["best_of_n", "beam", "lookahead", "dvts"])
def test_names_tell_apart_what_differs_in_any_field(kind):
    """Whatever field comes to be: two strategies that differ in it have different names."""
    base = registry.STRATEGIES[kind](n=8)
    other = {
        "n": 16,
        "width": 2,
        "k": 3,
        "max_rounds": 5,
        "temperature": 0.6,
        "select": "best",
        "vote_temperature": 0.25,
    }
    other |= {"ended": "compete", "ties": "verifier", "by": "likelihood"}
    starts: dict[str, Any] = {"vote_temperature": BestOfN(8, "softmax"), "ties": BestOfN(8, "majority")}
    for field in dataclasses.fields(base):
        start = starts.get(field.name, base)
        changed = dataclasses.replace(start, **{field.name: other[field.name]})
        assert changed.name != start.name, field.name
        assert registry.parse(changed.name) == changed


def test_what_a_search_comes_to_keeps_its_temperature():
    for strategy in (Beam(2, 4, temperature=0.6), DVTS(2, 4, temperature=0.6), Lookahead(2, 4, 3, temperature=0.6)):
        assert strategy.plain() == BestOfN(2, temperature=0.6)
    assert Beam(16, "sqrt", 7, "compete", 0.6).plain() == Beam(16, 4, 7, "compete", 0.6)
    assert DVTS(16, "sqrt", 7, "compete", 0.6).plain() == DVTS(16, 4, 7, "compete", 0.6)
    assert (
        DVTS(4, 4, 7, "compete", 0.6).plain()
        == Lookahead(4, 4, 0, 7, "compete", 0.6).plain()
        == Beam(4, 4, 7, "compete", 0.6)
    )
    assert Lookahead(16, "sqrt", 2, 7, "compete", 0.6).plain() == Lookahead(16, 4, 2, 7, "compete", 0.6)
    assert registry.for_budget("lookahead:width=4,k=3,temperature=0.6", 15) == BestOfN(15, temperature=0.6)


def test_names_take_defaults():
    assert registry.parse("majority", n=8) == BestOfN(8, "majority", ties="first")
    assert registry.parse("majority:ties=verifier", n=8) == BestOfN(8, "majority", ties="verifier")
    assert registry.parse("beam:width=sqrt", n=8, max_rounds=7) == Beam(8, "sqrt", 7)
    assert registry.parse("lookahead:width=sqrt,k=3", n=8, max_rounds=7) == Lookahead(8, "sqrt", 3, 7)
    assert registry.parse("dvts:width=4", n=8, max_rounds=7) == DVTS(8, 4, 7)


def test_the_searches_of_the_paper_are_known():
    """Snell et al. 2024, Fig. 3 left: the settings at 64 beams."""
    paper = {
        "beam:width=sqrt": Beam(64, 8),
        "beam:width=4": Beam(64, 4),
        "lookahead:width=sqrt,k=1": Lookahead(64, 8, 1),
        "lookahead:width=sqrt,k=3": Lookahead(64, 8, 3),
        "lookahead:width=4,k=3": Lookahead(64, 4, 3),
    }
    for name, strategy in paper.items():
        assert registry.parse(name, n=64).plain() == strategy


@pytest.mark.parametrize("n", [1, 2, 4, 5, 16, 64])
def test_a_generation_costs_as_the_paper_counts(n):
    """Lookahead costs n (k + 1); what comes to another search costs what that does."""
    assert BestOfN(n).cost() == Beam(n, 4).cost() == DVTS(n, "sqrt").cost() == n
    assert Lookahead(n, 4, k=3).cost() == (4 * n if n >= 4 else n)
    for strategy in (Beam(n, 4), Lookahead(n, 4, 3), Lookahead(n, "sqrt", 1), Lookahead(n, 4, 0), DVTS(n, "sqrt")):
        assert strategy.cost() == strategy.plain().cost()
        assert strategy.plain().plain() == strategy.plain()


@pytest.mark.parametrize("kind", [Beam, Lookahead, DVTS])
@pytest.mark.parametrize(("n", "width"), [(1, 4), (2, 4), (2, "sqrt"), (1, "sqrt"), (3, "sqrt"), (5, 1)])
def test_small_budgets_fall_back_to_best_of_n(kind, n, width):
    assert kind(n, width).plain() == BestOfN(n)


def test_special_cases_are_what_they_come_to():
    assert Lookahead(16, "sqrt", k=0, max_rounds=7).plain() == Beam(16, 4, 7)
    assert DVTS(4, 4, max_rounds=7).plain() == Beam(4, 4, 7)
    assert Lookahead(16, 4, k=0, ended="compete").plain() == Beam(16, 4, ended="compete")
    assert DVTS(4, 4, ended="compete").plain() == Beam(4, 4, ended="compete")
    assert Lookahead(16, "sqrt", 2).plain() == Lookahead(16, 4, 2).plain() == Lookahead(16, 4, 2)
    assert DVTS(16, "sqrt").plain() == DVTS(16, 4).plain() == DVTS(16, 4)


@pytest.mark.parametrize(
    ("text", "hint"),
    [
        ("beem:n=4", "'beam'"),
        ("lokahead:n=4", "'lookahead'"),
        ("beam:n=4,widht=4", "'width'"),
        ("beam:n=4,k=1", "'k'"),
        ("beam:n=x", "whole number"),
        ("beam:n=0", "whole number from 1"),
        ("lookahead:n=4,k=-1", "whole number from 0"),
        ("lookahead:n=4,k=sqrt", "whole number from 0"),
        ("lookahead:n=0,k=0", "n in strategy"),
        ("beam:n=4,width=cube", "'sqrt'"),
        ("beam:n=4,ended=drop", "must be 'stay' or 'compete', not 'drop'"),
        ("best_of_n:n=4,select=worst", "'weighted'"),
        ("best_of_n:n=4,select=softmax,vote_temperature=0", "vote_temperature in strategy .* must be a number above 0"),
        ("beam:n=4,temperature=0", "temperature in strategy .* must be a number above 0"),
        ("best_of_n:n=4,select=softmax,temperature=0.5", "write vote_temperature=0.5 for that of the votes, or both"),
        ("best_of_n:n=4,select=softmax,vote_temperature=nan", "a number above 0"),
        ("best_of_n:n=4,vote_temperature=2", "with select=softmax only, not with select=weighted"),
        ("best_of_n:n=4,ties=verifier", "with select=majority only, not with select=weighted"),
        ("majority:n=4,by=likelihood", "select=weighted or select=best only, not with select=majority"),
        ("majority:n=4,ties=score", "must be 'first' or 'verifier', not 'score'"),
        ("beam", "needs n"),
        ("beam:n=\u00b2", "whole number"),
        ("beam:n=99999999999999999999", "up to 65536"),
        ("beam:n=4,width=4,beam:width=2", "blanks separate strategies"),
        ("majority best_of_n:n=4", "leave out the quotes"),
        ("beam:n=4,n=8", "'n' stands twice"),
        ("lookahead:n=4,k=1,width=2,k=1", "'k' stands twice"),
        ("majority:n=4,n=4", "'n' stands twice"),
        ("majority:n=4,select=best", "best_of_n:select=best"),
        ("dvts:n=10,width=4", "take n=8, n=12 or width=sqrt"),
    ],
)
def test_bad_names_say_what_is_meant(text, hint):
    with pytest.raises(ConfigError, match=hint):
        registry.parse(text)


def test_a_rollout_cannot_go_back():
    with pytest.raises(ConfigError, match="from 0"):
        Lookahead(4, 2, k=-1)


@pytest.mark.parametrize(
    ("name", "hint"), [("beem", "'beam'"), ("beam:n=8,width=4", "must not fix n"), ("beam:width=0", "whole number")]
)
def test_a_sweep_refuses_what_it_could_not_run(name, hint):
    registry.check_for_sweep(["majority", "best_of_n:select=weighted", "beam:width=4", "lookahead:width=sqrt,k=1"])
    registry.check_for_sweep(
        [
            "best_of_n:select=softmax,vote_temperature=0.5",
            "majority",
            "majority:ties=verifier",
            "majority:temperature=0.5",
        ]
    )
    with pytest.raises(ConfigError, match="same strategy"):
        registry.check_for_sweep(["majority", "majority:ties=first"])
    with pytest.raises(ConfigError, match=hint):
        registry.check_for_sweep(["majority", name])


def test_a_sweep_refuses_budgets_that_subtrees_do_not_fill():
    registry.check_for_sweep(["dvts:width=4", "dvts:width=sqrt"], (1, 2, 4, 8, 12))
    with pytest.raises(ConfigError, match="n=6"):
        registry.check_for_sweep(["dvts:width=4"], (4, 6))


@pytest.mark.parametrize(
    ("name", "budget", "want"),
    [
        ("beam:width=4", 16, Beam(16, 4)),
        ("lookahead:width=4,k=3", 64, Lookahead(16, 4, 3)),
        ("lookahead:width=4,k=3", 16, Lookahead(4, 4, 3)),
        ("lookahead:width=4,k=3", 15, BestOfN(15)),
        ("lookahead:width=4,k=1", 64, Lookahead(32, 4, 1)),
        ("lookahead:width=sqrt,k=3", 64, Lookahead(16, "sqrt", 3)),
        ("lookahead:width=4,k=3", 1, Lookahead(1, 4, 3)),
        ("dvts:width=4", 8, DVTS(8, 4)),
    ],
)
def test_a_budget_pays_for_as_many_rows_as_their_cost_allows(name, budget, want):
    assert registry.for_budget(name, budget) == want
    assert want.cost() <= budget, "a strategy spends more than its budget"


def settings_of(hint, least):
    """Return values that a setting of that type may have."""
    options = typing.get_args(hint) if typing.get_origin(hint) is not None else (hint,)
    found = []
    for option in options:
        if typing.get_origin(option) is typing.Literal:
            found.append(st.sampled_from(typing.get_args(option)))
        elif isinstance(option, str):
            found.append(st.just(option))
        elif option is int:
            found.append(st.integers(least, 64))
        elif option is float:
            found.append(st.one_of(st.floats(0.01, 0.99), st.floats(1, 100)))
        elif option in (type(None), None):
            found.append(st.none())
        else:
            raise AssertionError(f"no values known of {option!r}: add them here")
    return st.one_of(found)


@pytest.mark.parametrize("kind", registry.STRATEGIES)
@given(data=st.data())
@settings(max_examples=60, deadline=None)
def test_every_setting_of_a_strategy_is_read_back_from_its_name(kind, data):
    cls = registry.STRATEGIES[kind]
    hints = typing.get_type_hints(cls)
    values = {
        field.name: data.draw(settings_of(hints[field.name], field.metadata.get("least", 1)), field.name)
        for field in dataclasses.fields(cls)
        if field.default is dataclasses.MISSING or data.draw(st.booleans(), f"give {field.name}")
    }
    strategy = None
    with contextlib.suppress(ConfigError):  # settings that exclude each other
        strategy = cls(**values)
    assert strategy is None or registry.parse(strategy.name) == strategy


@pytest.mark.parametrize("text", ["majority", "best_of_n:select=softmax,vote_temperature=0.5,temperature=0.6"])
def test_votes_are_no_searches(text):
    name = registry.named(text)
    assert not name.searches
    assert all(name.is_best_of_n(n) for n in (1, 7, 64))


def test_a_search_is_best_of_n_wherever_it_comes_to_that():
    """One meaning, whatever the width is called: the bank answers these budgets, and nothing is sampled anew."""
    assert [n for n in range(1, 10) if registry.named("beam:width=sqrt").is_best_of_n(n)] == [1, 2, 3, 5, 7]
    assert [n for n in range(1, 10) if registry.named("beam:width=4").is_best_of_n(n)] == [1, 2, 3]
    assert [n for n in range(1, 10) if registry.named("lookahead:width=2,k=3").is_best_of_n(n)] == [1, 2, 3, 4, 5, 6, 7]
    assert [n for n in range(1, 10) if registry.named("particles:temperature=validated").is_best_of_n(n)] == [1]
    assert registry.named("rebase").searches


@pytest.mark.parametrize(
    ("text", "selector"),
    [
        ("majority", Selector("majority", "first")),
        ("majority:ties=verifier", Selector("majority", "verifier")),
        ("best_of_n", Selector("weighted")),
        ("best_of_n:select=best,by=likelihood", Selector("best", by="likelihood")),
        ("best_of_n:select=softmax,vote_temperature=0.5", Selector("softmax", vote_temperature=0.5)),
        ("beam:width=4", Selector("weighted")),
    ],
)
def test_a_name_says_how_an_answer_is_chosen(text, selector):
    assert registry.named(text).selector == selector
    assert selector.asks_verifier == (text != "majority" and "likelihood" not in text)
