"""The command line. Each command is a file of its own, imported when it is used."""

from __future__ import annotations

import sys

import cyclopts
from rich.console import Console

from browsercloud.errors import BrowserCloudError

INTERRUPTED = 130

app = cyclopts.App(
    name="browsercloud",
    help="Isolated Chromium sessions: run the cloud, and look after the machine it runs on.",
    version_flags=["--version"],
)
# By name, so that `--help` of the whole does not import the server and the client.
app.command("browsercloud.cli.serve:serve", name="serve", help="Run the cloud's server.")
app.command("browsercloud.cli.keys:app", name="keys", help="Make, list and revoke API keys.")
app.command("browsercloud.cli.run:run", name="run", help="Run an existing script in a session.")
app.command("browsercloud.cli.demo:demo", name="demo", help="Open a live session and show it.")
app.command("browsercloud.cli.view:view", name="view", help="Look at a live session.")
app.command("browsercloud.cli.install:install", name="install", help="Install Chromium.")
app.command("browsercloud.cli.doctor:doctor", name="doctor", help="Say what works here.")


def main() -> None:
    """Run the command line and end the process: 0 done, 1 failed, 2 misused, 130 interrupted."""
    try:
        code = app(
            _apart(sys.argv[1:]),
            result_action="return_int_as_exit_code_else_zero",
            exit_on_error=False,
        )
    except cyclopts.CycloptsError:  # has said so itself
        code = 2
    except BrowserCloudError as error:
        Console(stderr=True).print(str(error), style="red", markup=False, soft_wrap=True)
        code = 1
    except OSError as error:
        Console(stderr=True).print(str(error), style="red", markup=False, soft_wrap=True)
        code = 1
    except KeyboardInterrupt:
        code = INTERRUPTED
    sys.exit(code)


def _apart(tokens: list[str]) -> list[str]:
    """The words of `run` with a `--` before the script: what follows belongs to that one."""
    if tokens[:1] != ["run"]:
        return tokens
    place = 1
    while place < len(tokens) and tokens[place].startswith("-"):
        if tokens[place] in ("--", "--help", "-h"):
            return tokens
        place += 1 if "=" in tokens[place] else 2  # every option of `run` takes a value
    return [*tokens[:place], "--", *tokens[place:]]
