"""`client.puppeteer`: Puppeteer lives in Node; this runs its scripts, and others, in sessions."""

from __future__ import annotations

import logging
import os
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Unpack

from browsercloud.client.lease import Lease
from browsercloud.client.options import SessionArgs, build_options
from browsercloud.client.scripts import ScriptRun, Stream, command_for
from browsercloud.client.sessions import Sessions
from browsercloud.errors import UsageError
from browsercloud.models import Session

if TYPE_CHECKING:
    from browsercloud.client.live import LiveSession

log = logging.getLogger(__name__)


class PuppeteerAdapter:
    """Existing scripts, unchanged, in sessions. An attribute of `BrowserCloud`.

    A program of Node that is written for sessions needs nothing of this:
    `puppeteer.connect({browserWSEndpoint: session.websocketUrl})`.
    """

    def __init__(self, sessions: Sessions, lease: Lease) -> None:
        self._sessions = sessions
        self._lease = lease

    async def run(
        self,
        script: str | os.PathLike[str],
        session: LiveSession | Session | None = None,
        args: Sequence[str] = (),
        *,
        node: str | os.PathLike[str] | None = None,
        python: str | os.PathLike[str] | None = None,
        cwd: str | os.PathLike[str] | None = None,
        env: Mapping[str, str] | None = None,
        stdin: Stream = None,
        stdout: Stream = None,
        stderr: Stream = None,
        **options: Unpack[SessionArgs],
    ) -> int:
        """Run a Puppeteer or Playwright script in *session*, release that, return the exit code.

        What the script launches is a connection to the session. Without *session* it gets one of
        its own, with these *options*. A `.py` file runs the same way, with Playwright or Selenium.

        *node* and *python* are what to run it with: by default Node from the PATH, or else
        Playwright's, and this interpreter. *env* comes on top of this process's environment. The
        streams are the process's own by default, or files, as for `subprocess`; pipes are not read.

        The code is 128 and the signal's number when a signal ended the script. Raises `UsageError`
        (no such script, no Node) before anything is made, `SessionTimedOut` when the script goes on
        after the session's `timeout`, and what `sessions.create` and `sessions.release` raise.
        Cancelled, it ends the script first (SIGTERM, after 5 s SIGKILL).
        """
        running = self.start(
            script, session, args, node=node, python=python, cwd=cwd, env=env,
            stdin=stdin, stdout=stdout, stderr=stderr, **options,
        )  # fmt: skip
        async with running:
            code = await running.wait()
        if not running.connected:
            log.warning("%s ended without launching a browser", os.fspath(script))
        return code

    def start(
        self,
        script: str | os.PathLike[str],
        session: LiveSession | Session | None = None,
        args: Sequence[str] = (),
        *,
        node: str | os.PathLike[str] | None = None,
        python: str | os.PathLike[str] | None = None,
        cwd: str | os.PathLike[str] | None = None,
        env: Mapping[str, str] | None = None,
        stdin: Stream = None,
        stdout: Stream = None,
        stderr: Stream = None,
        **options: Unpack[SessionArgs],
    ) -> ScriptRun:
        """The same for `async with`, to have the session, and send signals, while it runs."""
        env = {} if env is None else env
        record: Session | None
        if session is None:
            record = None
        elif options:
            raise UsageError("options are for a session of the script's own; leave session out")
        else:
            record = session if isinstance(session, Session) else session.info
            if "token=" not in record.websocket_url:
                raise UsageError(
                    "the URLs of a listed session hold no token: "
                    "give `await client.sessions.retrieve(session.id)`"
                )
        return ScriptRun(
            self._sessions,
            self._lease,
            command_for(script, args, node=node, python=python, environ={**os.environ, **env}),
            # A script speaks CDP, and at TestMu the adapter decides what a session speaks.
            record
            or build_options(None, {"adapter": "puppeteer", **options}, self._sessions.defaults),
            env=env,
            cwd=cwd,
            streams=(stdin, stdout, stderr),
            release=None if session is None or isinstance(session, Session) else session.release,
        )
