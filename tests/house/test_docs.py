"""The pages: links lead somewhere, commands exist, Python in them compiles and imports what there is."""

import ast
import importlib
import importlib.util
import pathlib
import re

import pytest

from ttcjax.cli import commands
from ttcjax.pipeline import stages

ROOT = pathlib.Path(__file__).parents[2]
PAGES = sorted([*ROOT.glob("*.md"), *(ROOT / "docs").glob("*.md")])
BLOCK = re.compile(r"```(\w*)\n(.*?)```", re.S)


def anchors(page):
    """Return the anchors of a page's headings, as GitHub makes them."""
    heads = re.findall(r"^#+ (.*)$", BLOCK.sub("", page.read_text()), re.M)
    return {re.sub(r"[^\w\- ]", "", head.lower()).replace(" ", "-") for head in heads}


def test_there_are_pages():
    assert {"README.md", "strategies.md", "cli.md"} <= {page.name for page in PAGES}


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_links_lead_somewhere(page):
    text = BLOCK.sub("", page.read_text())
    for target in re.findall(r"\]\(([^)\s]+)\)", text):
        if "://" in target:
            continue
        name, _, anchor = target.partition("#")
        there = (page.parent / name).resolve() if name else page
        assert there.exists(), f"{page.name} links to {target}, which is not there"
        assert not anchor or anchor in anchors(there), f"{page.name} links to {target}, and there is no such heading"


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_commands_exist(page):
    known = {*commands.CALLS, *(stage.name for stage in stages.STAGES), "--version"}
    for _, code in BLOCK.findall(page.read_text()):
        for words in re.findall(r"^(?:\.venv/bin/)?ttcjax ([\w|-]+)", code, re.M):
            assert set(words.split("|")) <= known, words


def test_python_imports_what_there_is():
    code = [code for page in PAGES for language, code in BLOCK.findall(page.read_text()) if language == "python"]
    imported = [
        (node.module, alias.name)
        for block in code
        for node in ast.walk(ast.parse(block))
        if isinstance(node, ast.ImportFrom) and node.module and node.module.startswith("ttcjax")
        for alias in node.names
    ]
    assert len(imported) > 5, "the pages' Python is not found"
    missing = [
        (module, name)
        for module, name in imported
        if not hasattr(importlib.import_module(module), name) and not importlib.util.find_spec(f"{module}.{name}")
    ]
    assert not missing
