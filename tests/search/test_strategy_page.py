"""The strategies' page: the example in it runs, and the table names what there is."""

import dataclasses
import pathlib
import re

import jax
import jax.numpy as jnp

from ttcjax.search import contract, registry
from ttcjax.testing import ScriptedOps
from ttcjax.testing.scripted import by_number

PAGE = (pathlib.Path(__file__).parents[2] / "docs" / "strategies.md").read_text()


def test_the_example_is_a_strategy():
    [code] = re.findall(r"```python\n(.*?)```", PAGE, re.S)
    names = {"dataclass": dataclasses.dataclass, "jnp": jnp, **vars(contract)}
    exec(code, names)
    strategy = names["FirstSure"](8, sure=0.9)
    found = jax.jit(lambda: ScriptedOps(3, 8, min_steps=2, max_steps=6).search(strategy, 20))()
    finished = found.rows.finished.reshape(20, 8)
    last = by_number(found.rows.path, found.rows.done).reshape(20, 8)
    early = ~finished.all(axis=1)
    assert early.any(), "no question was stopped early"
    assert (finished & (last > 0.9)).any(axis=1)[early].all(), "a question was stopped that was not sure"


def test_the_table_has_every_kind():
    kinds = re.findall(r"^\| `(\w+)`", PAGE, re.M)
    assert kinds[0] == "majority"
    assert sorted(kinds[1:]) == sorted(registry.STRATEGIES)
    for row in re.findall(r"^\| `\w+`.*", PAGE, re.M)[1:]:
        kind, settings = re.match(r"\| `(\w+)`.*\| (.*) \|$", row).groups()  # type: ignore[union-attr]
        fields = {field.name: field.default for field in dataclasses.fields(registry.STRATEGIES[kind])}
        for name, told in re.findall(r"`(\w+)=(\w[\w.]*)`", settings):
            assert str(fields[name]) in (told, f"{told}.0"), f"{kind} has another default of {name}"
