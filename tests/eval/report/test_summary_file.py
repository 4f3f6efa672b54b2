"""The summary on disk: what is written is read, files of before are read too, and others are refused in one line."""

import copy
import dataclasses
import json
import types
import typing
from typing import Any

import pytest
from etils import epath
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from tests.eval.report.test_report import CONFIG, make_rows, write
from ttcjax.eval.report import catalogue, coding, report, summary_file
from ttcjax.eval.sections import accuracy
from ttcjax.runtime.errors import UserError
from ttcjax.testing import folders

FLOATS = st.floats(-1e6, 1e6).map(lambda x: round(x, coding.PLACES) + 0.0)  # no number is written as -0.0
KEYS = {str: st.text(max_size=4), int: st.integers(0, 99).map(str), float: st.integers(0, 9).map(lambda i: str(i / 4))}


def in_json(hint: Any, optional: bool) -> st.SearchStrategy:
    """Anything that JSON may hold of a type that sections have, fields with a default among it or not."""
    origin, args = typing.get_origin(hint), typing.get_args(hint)
    if dataclasses.is_dataclass(hint):
        fields = coding._fields(typing.cast(type, hint))
        needed = {key: in_json(kind, optional) for key, (_, kind, default) in fields.items() if not default}
        others = {key: in_json(kind, optional) for key, (_, kind, default) in fields.items() if default and optional}
        return st.fixed_dictionaries(needed, optional=others)
    if origin in (typing.Union, types.UnionType):
        return st.none() | in_json(next(a for a in args if a is not type(None)), optional)
    if origin is dict:
        return st.dictionaries(KEYS[args[0]], in_json(args[1], optional), max_size=2)
    if origin is list or (origin is tuple and args[1] is ...):
        return st.lists(in_json(args[0], optional), max_size=2)
    if origin is tuple:
        return st.tuples(*(in_json(a, optional) for a in args)).map(list)
    if origin is typing.Literal:
        return st.sampled_from(args)
    # An unknown number is null.
    known = {Any: st.integers(), float: FLOATS | st.none(), int: st.integers(-9, 10**12), bool: st.booleans()}
    return {**known, str: st.text(max_size=5)}[hint]


@pytest.mark.parametrize("section", catalogue.SECTIONS, ids=lambda section: section.name)
def test_whatever_a_section_finds_is_read_as_it_was_written(section):
    @settings(deadline=None, max_examples=8, suppress_health_check=[HealthCheck.too_slow, HealthCheck.data_too_large])
    @given(in_json(section.result, False), in_json(section.result, True))
    def check(bare, full):
        assert coding.encode(coding.decode(section.result, bare, section.name)) == bare
        found = coding.decode(section.result, full, section.name)
        written = json.dumps(coding.encode(found), allow_nan=False)
        # `repr`, as NaN is not equal to itself; it shows every field with its type.
        assert repr(coding.decode(section.result, json.loads(written), section.name)) == repr(found)

    check()


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    """A workdir with a report, and its summary."""
    workdir = epath.Path(tmp_path_factory.mktemp("made"))
    write(workdir, *make_rows())
    return workdir, report.results(CONFIG, workdir)


def test_a_report_is_read_as_it_was_written(made, tmp_path):
    _, results = made
    path = epath.Path(tmp_path) / "summary.json"
    summary_file.write(path, results.summary)
    again = summary_file.read(path)
    assert repr(again) == repr(results.summary)
    assert json.loads(path.read_text())["version"] == 1
    assert again.of(accuracy.SECTION).strategies["majority"][8].known


def without_a_version(summary) -> dict[str, Any]:
    """The same numbers as files had them before there was a version."""
    new = copy.deepcopy(summary_file.encode(summary))
    sections = new["sections"]
    old: dict[str, Any] = {key: new[key] for key in ("name", "config_hash", "questions", "missing")}
    old |= {"seconds": {"bank": 1.0}, "compile_seconds": 0.5, "peak_rss_bytes": 7}
    old |= sections["policy"] | {"aggregation": sections["aggregation"]["accuracy"], "luck": sections["luck"]["share"]}
    told, once = sections["accuracy"], sections["greedy"]
    old |= {"accuracy": told["strategies"], "monte_carlo_error": told["monte_carlo_error"]}
    at = once.pop("per_level")
    old["per_level"] = {level: cells | {"greedy": at[level]} for level, cells in told["per_level"].items()}
    comparisons = sections["paired"].pop("comparisons")
    old["comparisons"] = [{**row, "difference": row["mean"]} for row in comparisons]
    for row in old["comparisons"]:
        del row["mean"]
    old |= {"by_subject": sections["by_subject"]["subjects"], "greedy": once}
    same = ("prm", "temperatures", "paired", "compute_optimal", "budget", "weak_verifiers", "over_optimisation")
    old |= {key: sections[key] for key in same}
    old["claims"] = [
        claim | {"measure": "comparisons" if claim["measure"] == "paired.comparisons" else claim["measure"]}
        for claim in new["claims"]
    ]
    return old


def test_a_file_of_before_there_was_a_version_has_the_same_numbers(made):
    summary = made[1].summary
    again = summary_file.decode(json.loads(json.dumps(without_a_version(summary))))
    assert (again.seconds, again.compile_seconds, again.peak_rss_bytes) == ({"bank": 1.0}, 0.5, 7)
    timed = dataclasses.replace(summary, seconds={"bank": 1.0}, compile_seconds=0.5, peak_rss_bytes=7)
    assert repr(again) == repr(timed)


def test_draws_of_such_a_file_find_their_estimates(made, tmp_path):
    results = made[1]
    workdir = epath.Path(tmp_path)
    (workdir / "report").mkdir()
    old = {}
    for path, drawn in results.drawn.items():
        keys = path.split("\t")[1:]
        if keys[:2] == ["accuracy", "strategies"]:
            old["\t".join(["accuracy", *keys[2:]])] = drawn
        elif keys[:2] == ["paired", "comparisons"]:
            old["\t".join(keys[1:])] = drawn
    assert len(old) > 20
    summary_file.write_draws(workdir / "report" / summary_file.DRAWS, old, 20)
    (workdir / "summary.json").write_text(json.dumps(without_a_version(results.summary)))
    folders.complete(workdir / "report")
    _, draws, questions = summary_file.read_run(workdir)
    assert questions == 20
    kept = [
        path
        for path in results.drawn
        if path.split("\t")[1:3] in (["accuracy", "strategies"], ["paired", "comparisons"])
    ]
    assert set(draws) == set(kept)
    for path in kept:
        assert draws[path].share == results.drawn[path].share
        assert draws[path].values == pytest.approx(results.drawn[path].values[: summary_file.KEPT], rel=1e-6)


def test_what_cannot_be_read_is_refused_with_what_makes_it_anew(made, tmp_path):
    new = summary_file.encode(made[1].summary)
    with pytest.raises(UserError, match="version 99 of a report, this program knows up to 1: update it"):
        summary_file.decode({**new, "version": 99})
    old = without_a_version(made[1].summary)
    del old["greedy"]
    with pytest.raises(UserError, match=r"cannot be read \(it has no 'greedy'\): run `ttcjax report CONFIG"):
        summary_file.decode(old)

    def changed(section, **values):
        return {**new, "sections": {**new["sections"], section: {**new["sections"][section], **values}}}

    for broken, told in (
        (changed("policy", samples="many"), "policy.samples must be int, not 'many'"),
        (changed("policy", more=1), "policy has an entry 'more' that is not known"),
        (changed("policy", pass_at_k={"eight": {}}), "policy.pass_at_k has an entry 'eight' where int is expected"),
        (changed("luck", share={"all": {"mean": 1.0}}), "luck.share.all has no 'low'"),
        ({**new, "sections": {**new["sections"], "x": {}}}, "it has a section 'x' that is not known"),
    ):
        with pytest.raises(UserError, match=told):
            summary_file.decode(broken)
    path = epath.Path(tmp_path) / "summary.json"
    for text in ("{", "[1]"):
        path.write_text(text)
        with pytest.raises(UserError, match=r"summary.json is damaged"):
            summary_file.read(path)
