"""The contracts between the folders: which layer may import which, and under which names."""

import ast
import pathlib
from collections.abc import Iterator

import pytest

ROOT = pathlib.Path(__file__).parents[2]
LINKED = ("kernels", "train", "eval")

LAYERS = (
    {"config", "runtime", "parallel", "text", "data", "kernels"},
    {"model"},
    {"engine", "verify"},
    {"search", "testing"},
    {"train", "eval", "bench"},
    {"pipeline"},
    {"cli"},
)
"""Lowest first; a module imports from its own layer and those below it."""
STRANGERS = {"train", "eval", "bench"}
LEVEL = {name: level for level, names in enumerate(LAYERS) for name in names}


def source_files() -> list[pathlib.Path]:
    own = [p for p in (ROOT / "ttcjax").rglob("*.py") if p.relative_to(ROOT / "ttcjax").parts[0] not in LINKED]
    linked = [p for name in LINKED for p in (ROOT / name).rglob("*.py")]
    return sorted(own + linked)


def room_of(path: pathlib.Path) -> str:
    """The first name after `ttcjax.` in the name the file is imported by."""
    parts = path.relative_to(ROOT).with_suffix("").parts
    return parts[0] if parts[0] in LINKED else parts[1]


def imported(path: pathlib.Path) -> Iterator[tuple[int, str]]:
    """Yield (line, dotted name) for everything a file imports, inside functions too."""
    for node in ast.walk(ast.parse(path.read_text(), str(path))):
        if isinstance(node, ast.Import):
            yield from ((node.lineno, alias.name) for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path}:{node.lineno}: relative import; the linked folders need absolute ones"
            yield from ((node.lineno, f"{node.module}.{alias.name}") for alias in node.names)


def test_the_walk_sees_the_code():
    rooms = {room_of(path) for path in source_files()}
    assert {"cli", "train", "eval", "model"} <= rooms, "an empty walk would pass every test below"


@pytest.mark.parametrize("path", source_files(), ids=lambda path: str(path.relative_to(ROOT)))
def test_imports_point_down(path):
    room = room_of(path)
    if room == "__init__":
        return
    assert room in LEVEL, f"{path} belongs to no layer: add {room!r} to LAYERS"
    for line, name in imported(path):
        parts = name.split(".")
        if parts[0] != "ttcjax" or len(parts) == 1 or parts[1] not in LEVEL:
            continue
        assert LEVEL[parts[1]] <= LEVEL[room], f"{path}:{line}: {room} imports {name}, which is a layer above it"
        apart = {parts[1], room} <= STRANGERS and parts[1] != room
        assert not apart, f"{path}:{line}: {room} imports {name}: these rooms do not know each other"


def test_the_linked_folders_are_imported_through_the_package():
    """`train.loop` and `ttcjax.train.loop` would be two modules, with two copies of every class."""
    files = source_files() + sorted((ROOT / "tests").rglob("*.py")) + sorted((ROOT / "configs").glob("*.py"))
    wrong = [f"{p}:{line}: {name}" for p in files for line, name in imported(p) if name.split(".")[0] in LINKED]
    assert not wrong


@pytest.mark.parametrize("name", LINKED)
def test_the_roots_stay_namespace_packages(name):
    """A regular package called `kernels` at the root would hide a library of that name from whoever starts here."""
    assert not (ROOT / name / "__init__.py").exists()


@pytest.mark.parametrize("name", LINKED)
def test_links_are_relative(name):
    link = ROOT / "ttcjax" / name
    assert link.is_symlink(), "checked out without symlinks? `git config core.symlinks true` and check out again"
    assert link.readlink() == pathlib.Path("..", name)


def test_test_files_have_unique_names_and_no_packages():
    """importlib mode loads them by path; packages or equal names would shadow one another in reports and caches."""
    names = [p.name for p in (ROOT / "tests").rglob("test_*.py")]
    assert len(names) == len(set(names))
    assert not list((ROOT / "tests").rglob("__init__.py"))


def test_no_file_is_too_long():
    long = {str(p.relative_to(ROOT)): n for p in source_files() if (n := len(p.read_text().splitlines())) > 600}
    assert not long, "a file past 600 lines is two files"


def test_no_folder_is_too_full():
    """A folder past twelve files is a drawer: what a newcomer looks for is in it somewhere."""
    folders: dict[pathlib.Path, int] = {}
    for path in [*source_files(), *(ROOT / "tests").rglob("*.py")]:
        folders[path.parent] = folders.get(path.parent, 0) + 1
    assert not {str(folder.relative_to(ROOT)): n for folder, n in folders.items() if n > 12}


def test_no_two_modules_have_one_name():
    """A kernel's folder has files of fixed names, and a package its `__init__`."""
    seen: dict[str, pathlib.Path] = {}
    for path in source_files():
        if path.name in ("__init__.py", "__main__.py") or room_of(path) == "kernels":
            continue
        assert path.name not in seen, f"{path} and {seen[path.name]}: say what each is for in its name"
        seen[path.name] = path
