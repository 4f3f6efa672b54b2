"""Settings and stages: what a stage sees decides its fingerprint, every field of it and nothing else."""

import contextlib
import dataclasses
import functools
import types
import typing
from collections.abc import Callable, Iterator, Sequence
from typing import Any, Literal, NamedTuple

import pytest

from ttcjax.config import (
    ConfigError,
    DataConfig,
    DraftsConfig,
    ExperimentConfig,
    LargerConfig,
    ORMConfig,
    ReSTConfig,
    RevisionConfig,
    SweepConfig,
    hashed,
)
from ttcjax.pipeline import stages
from ttcjax.runtime.stage import Inputs, Sink

# Every stage, and a strategy that asks for scores while it runs.
FULL = ExperimentConfig(
    data=DataConfig(dir="elsewhere"),
    revision=RevisionConfig(True, rest_em=ReSTConfig(chains=2)),
    orm=ORMConfig(base=True, variants=("history", "no_history")),
    larger=LargerConfig(True),
    sweep=SweepConfig(
        strategies=(
            *("majority", "majority:temperature=validated", "beam:width=4", "beam:width=4,temperature=validated"),
            *("adaptive:wave=2,confidence=0.6,select=weighted", "revise:p=2", "refine:temperature=validated"),
        ),
        temperatures=(0.5, 1.0),
        verifiers=("judge=elsewhere",),
        verifiers_content=("judge=0123",),
    ),
)
# Settings that act only together: these may be changed here, and `drafts.restate` where there are no drafts.
DRAFTED = dataclasses.replace(FULL, drafts=DraftsConfig(several=0.5, restate=FULL.revision.restate))
BASES = (FULL, DRAFTED)
NAMES = tuple(stage.name for stage in stages.STAGES)

REPORTED = {"name", "sweep.bootstrap", "sweep.bootstrap_seed", "sweep.folds", "sweep.fold_repeats"}
"""Settings that decide the report alone."""
SWITCHES = {"revision.enabled"}
"""Settings that only turn stages on."""


class Leaf(NamedTuple):
    """One value in a tree of settings, and ways to change it alone."""

    path: str
    speed: bool
    """Whether its field, or one above it, is marked as of speed only."""
    others: Sequence[Callable[[], Any]]
    """Each returns the whole tree with another value there, or raises where validation refuses it."""


def leaves(value: Any, hint: Any) -> Iterator[Leaf]:
    """Find every leaf of settings: fields of dataclasses and elements of tuples, in whatever depth.

    Args:
        value: A dataclass, a tuple, or a leaf itself.
        hint: Its type.
    """
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        hints = typing.get_type_hints(type(value))
        for field in dataclasses.fields(value):
            put = functools.partial(_with_field, value, field.name)
            speed = bool(field.metadata.get("speed"))
            for leaf in leaves(getattr(value, field.name), hints[field.name]):
                path = f"{field.name}.{leaf.path}".rstrip(".").replace(".[", "[")
                yield Leaf(path, speed or leaf.speed, [functools.partial(put, other) for other in leaf.others])
    elif isinstance(value, tuple):
        hints = _of_elements(_not_none(hint), len(value))
        if not value:
            yield Leaf("[]", False, [lambda: (_made(hints[0]),)])
        for i, element in enumerate(value):
            put = functools.partial(_with_element, value, i)
            for leaf in leaves(element, hints[i]):
                # Without it, where no other element is allowed, as all that there are stand there already.
                others = [*(functools.partial(put, other) for other in leaf.others), functools.partial(put, None)]
                yield Leaf(f"[{i}].{leaf.path}".rstrip("."), leaf.speed, others)
    else:
        yield Leaf("", False, [functools.partial(lambda other: other, other) for other in _others(value, hint)])


def _with_field(value: Any, name: str, other: Callable[[], Any]) -> Any:
    return dataclasses.replace(value, **{name: other()})


def _with_element(value: tuple[Any, ...], i: int, other: Callable[[], Any] | None) -> tuple[Any, ...]:
    return (*value[:i], *([] if other is None else [other()]), *value[i + 1 :])


def _not_none(hint: Any) -> Any:
    if typing.get_origin(hint) in (typing.Union, types.UnionType):
        [hint] = [one for one in typing.get_args(hint) if one is not type(None)]
    return hint


def _of_elements(hint: Any, count: int) -> list[Any]:
    args = typing.get_args(hint)
    return [args[0]] * max(1, count) if args[-1] is Ellipsis else list(args)


def _others(value: Any, hint: Any) -> list[Any]:
    """Return other values of a leaf, of which validation may refuse some."""
    hint = _not_none(hint)
    if value is None:
        return [_made(hint)]
    if typing.get_origin(hint) is Literal:
        return [other for other in typing.get_args(hint) if other != value]
    if isinstance(value, bool):
        return [not value]
    if isinstance(value, int):
        found = (value + 1, value - 1, 2 * value, value // 2, 10 * value, 128 * value, 128 + value)
        return [other for other in found if other != value]
    if isinstance(value, float):
        return [other for other in (value + 0.25, value / 2, 2 * value) if other != value]
    if isinstance(value, str):
        return [f"{value}x", "pair"]
    raise TypeError(f"no other value is known of {value!r}, of type {hint}")


def _made(hint: Any) -> Any:
    """Return a value of a type, for what holds none."""
    hint = _not_none(hint)
    if dataclasses.is_dataclass(hint):
        return hint(**{name: _made(field_hint) for name, field_hint in typing.get_type_hints(hint).items()})  # type: ignore[operator]
    if typing.get_origin(hint) is tuple:
        return tuple(map(_made, _of_elements(hint, 1)))
    if typing.get_origin(hint) is typing.Literal:
        return typing.get_args(hint)[0]
    return {int: 3, float: 0.25, str: "x", bool: True}[hint]


def changed(leaf: Leaf) -> Any:
    """Return the first other tree that is allowed, `None` where none is."""
    for other in leaf.others:
        try:
            return other()
        except ConfigError:
            continue
    return None


def alone(name: str, settings: Callable[[ExperimentConfig], Any] | None = None) -> stages.Stage:
    """Return a stage without those that it reads, so that its fingerprint is of its own settings.

    Args:
        name: Of the stage.
        settings: In place of its own.
    """
    stage = stages.get_stage(name)
    copy = dataclasses.replace(stage)
    given = stage.declared.settings if settings is None else settings
    vars(copy)["declared"] = dataclasses.replace(
        stage.declared, settings=given, needs=(), also_needs=lambda settings: ()
    )
    return copy


def prints(config: ExperimentConfig) -> Iterator[tuple[str, str]]:
    """Return the fingerprint of every stage but the report, early ones first."""
    for stage in stages.STAGES:
        if stage.wanted(config) and stage.name != "report":
            yield stage.name, stages.fingerprint(alone(stage.name), config)


def test_a_walk_finds_fields_in_fields_and_elements_and_changes_one_at_a_time():
    found = {leaf.path: changed(leaf) for leaf in leaves(FULL, ExperimentConfig)}
    assert found["model.rope_scaling.factor"].model.rope_scaling.factor != FULL.model.rope_scaling.factor
    for path, other in found.items():
        if other is not None:
            before, after = (dict(_flat(config)) for config in (FULL, other))
            top = path.partition("[")[0]
            assert {p for p in before | after if before.get(p) != after.get(p)} == {top}, path
    assert {path for path, other in found.items() if other is None} == {"drafts.kept", "drafts.several"}, (
        "only with drafts"
    )


def _flat(value: Any, path: str = "") -> Iterator[tuple[str, Any]]:
    if dataclasses.is_dataclass(value):
        for field in dataclasses.fields(value):
            yield from _flat(getattr(value, field.name), f"{path}.{field.name}".lstrip("."))
    else:
        yield path, value


def by_setting(config: ExperimentConfig) -> dict[str, Leaf]:
    """Return the settings of an experiment by name, lists as a whole."""
    found: dict[str, Leaf] = {}
    for leaf in leaves(config, ExperimentConfig):
        name = leaf.path.partition("[")[0]
        others = [*(found[name].others if name in found else ()), *leaf.others]
        found[name] = Leaf(name, leaf.speed, others)
    return found


def moves(leaf: Leaf, before: dict[str, str]) -> bool | None:
    """Return whether some other value changes a fingerprint; `None` where none is allowed.

    Not every one does: a strategy that the bank answers is not missed by any stage but the report.
    """
    moved = None
    for other in leaf.others:
        with contextlib.suppress(ConfigError):  # Of the settings, or of a strategy's name.
            moved = any(before[name] != now for name, now in prints(other()))
        if moved:
            break
    return moved


@pytest.mark.slow
def test_every_setting_decides_a_stage():
    """A setting that no stage sees would be changed without effect: stale results would be taken for new."""
    told: dict[str, bool | None] = {}
    for base in BASES:
        before = dict(prints(base))
        told |= {name: moves(leaf, before) for name, leaf in by_setting(base).items() if told.get(name) is None}
    assert not [name for name, moved in told.items() if moved is None], "no other value of these is allowed"
    speed = {name for name, leaf in by_setting(FULL).items() if leaf.speed}
    assert speed >= {"workdir", "policy.log_every", "sampler.rows"}, "a walk that finds no mark tests nothing"
    assert not [name for name in speed if told[name]], "marked as of speed only, and they decide a stage"
    idle = {name for name, moved in told.items() if not moved} - speed
    assert idle == REPORTED | SWITCHES, "these decide the report alone, or turn stages on, or nothing"


@pytest.mark.parametrize("name", NAMES)
def test_what_a_stage_sees_decides_its_fingerprint_but_for_what_is_of_speed_only(name):
    own = alone(name)
    allowed: dict[str, bool] = {}
    for base in BASES:
        seen, print_ = own.settings(base), stages.fingerprint(own, base)
        for leaf in leaves(seen, type(seen)):
            other = None if allowed.get(leaf.path) else changed(leaf)
            allowed[leaf.path] = allowed.get(leaf.path, False) or other is not None
            if other is not None:
                same = hashed(other) == hashed(seen)
                assert same is leaf.speed, f"{leaf.path} is {'' if leaf.speed else 'not '}marked as of speed only"
                # The stage as it is of an experiment that comes to these settings.
                found = stages.fingerprint(alone(name, lambda _, other=other: other), base)
                assert (found == print_) is leaf.speed, leaf.path
    assert allowed, "a stage that sees nothing"
    assert not [path for path, any_ in allowed.items() if not any_], "no other value of these is allowed"


@pytest.mark.parametrize("name", NAMES)
def test_a_stage_gets_its_own_settings_and_no_experiment(name):
    stage = stages.get_stage(name)
    hints = typing.get_type_hints(stage.declared.run)
    seen = stage.settings(FULL)
    assert list(hints.values())[:3] == [type(seen), Inputs, Sink]
    assert type(seen).__dataclass_params__.frozen, "what decides a fingerprint must not change afterwards"
    held = list(_types(type(seen)))
    assert ExperimentConfig not in held, f"{name} sees every setting of an experiment"


def _types(hint: Any) -> Iterator[Any]:
    """Return a type and all that it is made of."""
    if dataclasses.is_dataclass(hint):
        for field_hint in typing.get_type_hints(hint).values():
            yield from _types(field_hint)
    for arg in typing.get_args(hint):
        yield from _types(arg)
    yield hint


def test_the_revision_model_is_not_trained_again_for_what_only_a_second_training_samples():
    revision = alone("revision")
    sampled = dataclasses.replace(FULL.sampler, top_k=7)
    for chains, trained_again in ((0, False), (2, True)):
        base = dataclasses.replace(FULL, revision=RevisionConfig(True, rest_em=ReSTConfig(chains=chains)))
        other = dataclasses.replace(base, sampler=sampled)
        assert (stages.fingerprint(revision, other) != stages.fingerprint(revision, base)) is trained_again
