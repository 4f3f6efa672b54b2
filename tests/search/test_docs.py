"""The strategies' page: the example in it runs, and the table names what there is."""

import dataclasses
import pathlib
import re

import jax
import jax.numpy as jnp

from ttcjax.search import contract, registry
from ttcjax.testing import ScriptedOps

PAGE = (pathlib.Path(__file__).parents[2] / "docs" / "strategies.md").read_text()


def test_the_example_is_a_strategy():
    [code] = re.findall(r"```python\n(.*?)```", PAGE, re.S)
    names = {"dataclass": dataclasses.dataclass, "jnp": jnp, **vars(contract)}
    exec(code, names)
    strategy = names["Greedier"](8, sure=0.9)
    found = jax.jit(lambda: ScriptedOps(3, 8, min_steps=3, max_steps=6).search(strategy, 20))()
    stopped = ~found.rows.finished.reshape(20, 8).any(axis=1)
    best = found.step_scores.reshape(20, 8, -1).max(axis=(1, 2))
    assert stopped.any(), "no question was stopped early"
    assert (best[stopped] > 0.9).all(), "a question was stopped that was not sure"


def test_the_table_has_every_kind():
    kinds = re.findall(r"^\| `(\w+)`", PAGE, re.M)
    assert kinds[0] == "majority"
    assert sorted(kinds[1:]) == sorted(registry.STRATEGIES)
    for row in re.findall(r"^\| `\w+`.*", PAGE, re.M)[1:]:
        kind, settings = re.match(r"\| `(\w+)`.*\| (.*) \|$", row).groups()  # type: ignore[union-attr]
        fields = {field.name for field in dataclasses.fields(registry.STRATEGIES[kind])}
        assert set(re.findall(r"`(\w+)=", settings)) <= fields, kind
