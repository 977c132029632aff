"""The public surface is what `__init__.py` names."""

import ast
import subprocess
import sys
from pathlib import Path

import pytest

import browsercloud

INIT = Path(browsercloud.__file__)


def types_imports() -> list[tuple[str, str]]:
    """What type checkers and editors see: every name with the module it comes from."""
    blocks = [node for node in ast.parse(INIT.read_text()).body if isinstance(node, ast.If)]
    assert {"TYPE_CHECKING"} == {ast.unparse(block.test) for block in blocks}
    return [
        (alias.asname or alias.name, str(node.module))
        for block in blocks
        for node in block.body
        if isinstance(node, ast.ImportFrom)
        for alias in node.names
    ]


def test_all_is_what_is_imported() -> None:
    """Every public name is imported by name for types, and `__all__` lists those, sorted."""
    assert sorted(name for name, _ in types_imports()) == browsercloud.__all__


def test_types_and_table_agree() -> None:
    """At run time each name comes from the module that type checkers are told."""
    assert dict(types_imports()) == browsercloud._HOME_OF
    for name, home in types_imports():
        assert getattr(browsercloud, name) is getattr(sys.modules[home], name)


def test_the_module_shows_what_it_has() -> None:
    """`dir()`, as editors and notebooks ask, knows the names that are not loaded yet."""
    assert {*browsercloud.__all__, "__version__"} <= set(dir(browsercloud))
    with pytest.raises(AttributeError, match="no attribute 'Browsercloud'"):
        browsercloud.Browsercloud  # noqa: B018
    with pytest.raises(ImportError, match="NoSuchName"):
        exec("from browsercloud import NoSuchName")


def test_every_error_is_public() -> None:
    """Whatever the package can raise on purpose can be caught by a public name."""
    from browsercloud import errors

    classes = {
        name
        for name, value in vars(errors).items()
        if isinstance(value, type) and issubclass(value, errors.BrowserCloudError)
    }
    assert classes <= set(browsercloud.__all__)


def test_version_is_looked_up() -> None:
    """`__version__` is there without being imported at the start."""
    assert browsercloud.__version__.count(".") == 2


def loaded_by(line: str) -> set[str]:
    """The modules that a fresh process has after *line*."""
    code = f"import sys\n{line}\nprint(*sorted(sys.modules), sep='\\n')"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    return set(done.stdout.split())


HEAVY = {
    *("aiohttp", "cattrs", "tenacity", "playwright", "sqlite3", "platformdirs", "structlog"),
    *("prometheus_client", "cyclopts", "rich", "importlib.metadata", "email", "http.client"),
    *("IPython", "browsercloud.client.notebook"),
}


def test_import_is_light() -> None:
    """`import browsercloud` loads none of its parts, no other package, and not even asyncio."""
    loaded = loaded_by("import browsercloud") - loaded_by("pass")
    assert {"browsercloud", "browsercloud._later"} == {
        name for name in loaded if name.startswith("browsercloud")
    }
    assert set() == loaded & (HEAVY | {"asyncio", "attrs", "attr", "ssl", "logging"})


@pytest.mark.parametrize(
    "line",
    [
        "from browsercloud import *",
        "import browsercloud; browsercloud.BrowserCloud(); browsercloud.SessionOptions()",
    ],
)
def test_a_client_that_is_not_open_is_light(line: str) -> None:
    """Until a client is opened, nothing is loaded that only an open one needs."""
    loaded = loaded_by(line)
    parts = ("server", "engines", "stores", "browser", "cdp", "cli", "local", "wire")
    assert set() == loaded & (HEAVY | {f"browsercloud.{part}" for part in parts})


def test_what_starts_the_first_browser_is_light() -> None:
    """The embedded server begins to start a browser before anything slow is loaded."""
    loaded = loaded_by("import browsercloud.local")
    assert "browsercloud.engines.local" in loaded
    assert set() == loaded & (HEAVY | {"browsercloud.server.app", "browsercloud.wire"})
