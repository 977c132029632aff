"""The public surface is what `__init__.py` names."""

import ast
import subprocess
import sys
from pathlib import Path

import browsercloud

INIT = Path(browsercloud.__file__)


def test_all_is_what_is_imported() -> None:
    """Every public name is imported by name, and `__all__` lists exactly those, sorted."""
    imported = [
        alias.asname or alias.name
        for node in ast.parse(INIT.read_text()).body
        if isinstance(node, ast.ImportFrom)
        for alias in node.names
    ]
    assert sorted(imported) == browsercloud.__all__


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


def test_import_is_light() -> None:
    """`import browsercloud` loads no server, no engine, no Playwright and no command line."""
    code = "import sys, browsercloud; print(*sorted(sys.modules), sep='\\n')"
    loaded = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True
    ).stdout.split()
    heavy = ("playwright", "aiohttp.web", "cyclopts", "rich", "browsercloud.local")
    parts = ("server", "engines", "stores", "browser", "cdp", "cli")
    banned = (*heavy, *(f"browsercloud.{part}" for part in parts))
    found = [
        name for name in loaded if any(name == ban or name.startswith(ban + ".") for ban in banned)
    ]
    assert [] == found
