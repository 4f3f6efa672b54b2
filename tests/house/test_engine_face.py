"""The engine's face: what other rooms use of an engine, and how large it is."""

import ast
import inspect
import pathlib

import pytest

from tests.house.test_imports import ROOT, imported, room_of, source_files
from ttcjax.engine.engine import Engine

FACE = {
    "capacity",
    "compilations",
    "encode_prompt",
    "judge",
    "logprobs",
    "mesh",
    "on_batch",
    "policy",
    "policy_config",
    "prompt_logprobs",
    "resume",
    "sample",
    "sampler",
    "score",
    "search",
    "step_marks",
    "tokenizer",
    "verifier",
    "verifier_config",
}
"""Members that other rooms may use; a new one is a promise to all of them."""


def engine_members(path: pathlib.Path) -> list[tuple[int, str]]:
    """Return (line, member) of every use of a member of something called an engine, where the file has engines."""
    # A driver of strategies calls scripted engines by this name too.
    if not {name for _, name in imported(path)} & {"ttcjax.engine.engine.Engine", "ttcjax.engine.loading.load_engine"}:
        return []
    found = []
    for node in ast.walk(ast.parse(path.read_text(), str(path))):
        if isinstance(node, ast.Attribute):
            owner = node.value
            name = owner.id if isinstance(owner, ast.Name) else owner.attr if isinstance(owner, ast.Attribute) else ""
            if name.strip("_") == "engine":
                found.append((node.lineno, node.attr))
    return found


OTHERS = [path for path in source_files() if room_of(path) != "engine" and engine_members(path)]


def test_the_walk_sees_engines():
    assert {room_of(path) for path in OTHERS} >= {"search", "bench", "train", "eval"}, "nothing is looked at below"
    assert {name for path in OTHERS for _, name in engine_members(path)} >= {"sample", "score", "search"}


@pytest.mark.parametrize("path", OTHERS, ids=lambda path: str(path.relative_to(ROOT)))
def test_other_rooms_use_the_face_alone(path):
    wrong = [f"{path}:{line}: engine.{name}" for line, name in engine_members(path) if name not in FACE]
    assert not wrong, "these are the engine's own: add what is needed to its face, or do it there"


def test_the_face_is_there():
    """Attributes are set by `__init__`; the others are methods and properties with a docstring."""
    source = inspect.getsource(Engine)
    for name in FACE:
        member = inspect.getattr_static(Engine, name, None)
        if member is None:
            assert f"self.{name} " in source or f"self.{name}:" in source, f"an engine has no {name}"
        else:
            assert inspect.getdoc(member), f"Engine.{name} says nothing of itself"


def test_the_face_is_no_more_than_a_face():
    lines = len(inspect.getsource(Engine).splitlines())
    assert lines < 200, f"Engine has {lines} lines: calls are run by the scheduler, shapes and memory have modules"
