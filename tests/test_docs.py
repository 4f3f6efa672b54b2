"""The pages: links lead somewhere, commands exist, Python in them compiles and imports what there is."""

import ast
import importlib
import pathlib
import re

import pytest

from ttcjax import stages
from ttcjax.cli import commands

ROOT = pathlib.Path(__file__).parents[1]
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


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_python_imports_what_there_is(page):
    for language, code in BLOCK.findall(page.read_text()):
        if language != "python":
            continue
        for node in ast.walk(ast.parse(code)):
            if isinstance(node, ast.ImportFrom) and (node.module or "").startswith("ttcjax"):
                module = importlib.import_module(node.module or "")
                for alias in node.names:
                    if not hasattr(module, alias.name):
                        importlib.import_module(f"{node.module}.{alias.name}")
