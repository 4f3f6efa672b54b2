"""What `import ttcjax` offers is there, and costs nothing until it is asked for."""

import subprocess
import sys

import pytest

import ttcjax
from ttcjax import search


@pytest.mark.parametrize("name", ttcjax.__all__)
def test_every_name_is_there(name):
    assert getattr(ttcjax, name) is not None
    assert name in dir(ttcjax)


@pytest.mark.parametrize("name", search.__all__)
def test_every_name_of_searches_is_there(name):
    assert getattr(search, name) is not None


@pytest.mark.parametrize("module", [ttcjax, search], ids=lambda module: module.__name__)
def test_another_name_is_an_attribute_error(module):
    with pytest.raises(AttributeError, match=f"module '{module.__name__}' has no attribute 'nothing'"):
        module.nothing  # noqa: B018


def test_the_import_alone_loads_no_library():
    code = "import sys, ttcjax; print(sorted({'jax', 'numpy', 'pyarrow', 'tyro'} & set(sys.modules)))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert done.stdout.strip() == "[]", done.stderr
