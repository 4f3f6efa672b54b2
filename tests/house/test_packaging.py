"""What is built and installed: one top-level name, with everything under it."""

import pathlib
import subprocess
import sys
import tarfile
import zipfile

import pytest

import ttcjax

ROOT = pathlib.Path(__file__).parents[2]
EXPECTED = {"ttcjax/__init__.py", "ttcjax/cli/program.py", "ttcjax/py.typed"} | {
    f"ttcjax/{p.relative_to(ROOT)}" for name in ("kernels", "train", "eval") for p in (ROOT / name).rglob("*.py")
}
EXPECTED |= {f"ttcjax/text/prompts/{path.name}" for path in (ROOT / "ttcjax/text/prompts").glob("*.txt")}


def python(*arguments: str, cwd: pathlib.Path) -> str:
    done = subprocess.run([sys.executable, *arguments], cwd=cwd, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr[-2000:]
    return done.stdout


@pytest.fixture(scope="module")
def source(tmp_path_factory) -> pathlib.Path:
    """A copy of what is packaged, so that a build leaves nothing in the repository."""
    copy = tmp_path_factory.mktemp("source")
    names = ["pyproject.toml", "README.md", "LICENSE", "ttcjax", "kernels", "train", "eval", "configs", "tests"]
    subprocess.run(["cp", "-a", *(str(ROOT / name) for name in names), str(copy)], check=True)
    return copy


def test_wheel_has_one_top_level_name(source, tmp_path):
    python(
        "-m", "pip", "wheel", ".", "--no-deps", "--no-build-isolation", "-q", "-w", str(tmp_path), cwd=source
    )  # fmt: skip
    (wheel,) = tmp_path.glob("*.whl")
    with zipfile.ZipFile(wheel) as archive:
        names = set(archive.namelist())
        archive.extractall(tmp_path / "installed")
    info = f"ttcjax-{ttcjax.__version__}.dist-info"
    assert {name.split("/")[0] for name in names} == {"ttcjax", info}
    assert names >= EXPECTED
    assert f"{info}/licenses/LICENSE" in names

    # Isolated from the environment and the checkout: the module must come from the wheel.
    code = f"import sys; sys.path.insert(0, {str(tmp_path / 'installed')!r}); import ttcjax.cli as c; print(c.__file__)"
    assert str(tmp_path) in python("-I", "-c", code, cwd=tmp_path)


def test_sdist_has_real_files_where_the_repository_has_links(source, tmp_path):
    code = "import sys; from setuptools.build_meta import build_sdist; print(build_sdist(sys.argv[1]))"
    python("-c", code, str(tmp_path), cwd=source)
    (sdist,) = tmp_path.glob("*.tar.gz")
    with tarfile.open(sdist) as archive:
        files = {m.name.split("/", 1)[1] for m in archive.getmembers() if m.isfile()}
    assert files >= EXPECTED, "a wheel built from this sdist would miss files"


def test_root_folders_do_not_shadow_installed_packages():
    """Started in the repository root, `import kernels` must lose against an installed package of that name."""
    code = "import kernels; print(kernels.__file__, type(kernels.__path__).__name__)"
    assert python("-c", code, cwd=ROOT).split() == ["None", "_NamespacePath"]


def test_importing_the_package_does_not_import_jax():
    """`ttcjax --help` answers at once."""
    code = "import sys, ttcjax.cli; print(sorted({'jax', 'tyro', 'matplotlib', 'flax'} & set(sys.modules)))"
    assert python("-c", code, cwd=ROOT).strip() == "[]"
