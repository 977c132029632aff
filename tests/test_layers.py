"""Who may import whom, and where each third-party package lives (design, section 2)."""

import ast
from collections.abc import Iterator
from functools import cache
from pathlib import Path

import pytest

import browsercloud

PACKAGE = Path(browsercloud.__file__).parent
BASE = {
    "models",
    "options",
    "places",
    "bounds",
    "wanted",
    "stealth",
    "context",
    "wire",
    "errors",
    "_aio",
    "_later",
}

MAY_IMPORT: dict[str, set[str]] = {
    "places": set(),
    "bounds": set(),
    "context": {"bounds"},
    "wanted": {"places", "bounds", "_later"},
    "stealth": {"bounds"},
    "options": {"bounds", "wanted", "stealth", "context"},
    "models": {"options", "wanted", "stealth"},
    "errors": {"models"},  # for a type only
    "_aio": set(),
    "_later": set(),
    "wire": {"models", "options", "bounds", "wanted", "stealth", "context", "errors"},
    "client": BASE | {"local"},  # local inside one function only, see below
    "cdp": BASE,
    "stores": BASE,
    "browser": BASE | {"cdp"},
    "engines": BASE | {"browser", "cdp"},
    "server": BASE | {"engines", "stores", "cdp"},
    "local": BASE | {"server", "engines", "stores"},
    "testing": BASE | {"engines"},
    "cli": BASE | {"client", "server", "local", "engines", "stores"},
    "__init__": BASE | {"client"},
    "__main__": {"cli"},
}

HOMES: dict[str, set[str]] = {
    "cattrs": {"wire.py"},
    "tenacity": {"client/retries.py"},
    "playwright": {"client/adapters/playwright.py", "client/adapters/human.py", "client/live.py"},
    "selenium": {"client/adapters/selenium.py", "client/live.py"},  # the latter for types only
    "cyclopts": {"cli"},
    "rich": {"cli"},
    "cryptography": {"stores/seal.py"},
    "babel": {"places.py"},
    "tzdata": {"places.py"},
    "sqlite3": {"stores/sqlite.py", "stores/database.py"},
    "aiohttp": {"client/transport.py", "client/lease.py", "cdp", "server", "engines", "browser"},
    "prometheus_client": {"server/metrics.py"},
    "structlog": {"server/logs.py"},
    "platformdirs": {
        "client/adapters/playwright.py",
        "server/config.py",
        "browser/find.py",
        "engines/local.py",
    },
}

FILES = sorted(PACKAGE.rglob("*.py"))


def part_of(file: Path) -> str:
    """The room a file belongs to."""
    return file.relative_to(PACKAGE).parts[0].removesuffix(".py")


@cache
def imports(file: Path) -> tuple[tuple[str, bool], ...]:
    """Every module that *file* imports, and whether it does so inside a function or for types.

    A name that is handed on to be imported, as to `later`, counts as well.
    """
    return tuple(_imports(file))


def _imports(file: Path) -> Iterator[tuple[str, bool]]:
    tree = ast.parse(file.read_text())
    top = {id(node) for node in tree.body}
    for node in ast.walk(tree):
        if isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{file}: relative import"
            if node.module == "browsercloud":
                yield from (
                    (f"browsercloud.{alias.name}", id(node) not in top) for alias in node.names
                )
            elif node.module:
                yield node.module, id(node) not in top
        elif isinstance(node, ast.Import):
            yield from ((alias.name, id(node) not in top) for alias in node.names)
        elif isinstance(node, ast.Call) and (name := _imported_by_name(node)):
            yield name, True


def _imported_by_name(call: ast.Call) -> str | None:
    """The module in `later("…")`, `import_module("…")` or `partial(import_module, "…")`."""
    words = [call.func, *call.args]
    if isinstance(words[0], ast.Name) and words[0].id == "partial":
        del words[0]
    match words:
        case [ast.Name(id="later" | "import_module"), ast.Constant(value=str(name))]:
            return name
    return None


@pytest.mark.parametrize("file", FILES, ids=lambda file: str(file.relative_to(PACKAGE)))
def test_imports_follow_the_table(file: Path) -> None:
    """A part imports only what the table allows it."""
    part = part_of(file)
    names = [name.split(".") for name, _ in imports(file)]
    used = {name[1] for name in names if name[0] == "browsercloud" and len(name) > 1}
    public = {name for name in used if not (PACKAGE / name).exists() and f"{name}.py" not in TOP}
    assert set() == used - public - {part} - MAY_IMPORT[part]


TOP = {file.name for file in PACKAGE.glob("*.py")}


def test_the_client_loads_the_server_only_when_it_embeds_one() -> None:
    """`local` is imported in one place of the client, and not at the top of it."""
    users = [
        (file.name, lazy)
        for file in FILES
        if part_of(file) == "client"
        for name, lazy in imports(file)
        if name == "browsercloud.local"
    ]
    assert {("client.py", True)} == set(users)


def test_what_is_loaded_later_is_what_types_say() -> None:
    """`x = later("a.x")` stands beside an import of that very module for type checkers."""
    for file in FILES:
        tree = ast.parse(file.read_text())
        blocks = [node for node in tree.body if isinstance(node, ast.If) and node.orelse]
        for block in blocks:
            typed = {
                alias.name: f"{node.module}." if isinstance(node, ast.ImportFrom) else ""
                for node in block.body
                if isinstance(node, ast.ImportFrom | ast.Import)
                for alias in node.names
            }
            found = {
                ast.unparse(node.targets[0]): _imported_by_name(node.value)
                for node in block.orelse
                if isinstance(node, ast.Assign) and isinstance(node.value, ast.Call)
            }
            assert {name: home + name for name, home in typed.items()} == found, file


@pytest.mark.parametrize("package", HOMES)
def test_third_party_packages_have_one_home(package: str) -> None:
    """Each package is imported only where it lives."""
    users = {
        str(file.relative_to(PACKAGE))
        for file in FILES
        for name, _ in imports(file)
        if name.split(".")[0] == package
    }
    strangers = {
        user
        for user in users
        if not any(user == home or user.startswith(home + "/") for home in HOMES[package])
    }
    assert set() == strangers
