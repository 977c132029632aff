"""`session.screenshot`, `frames` and `viewer_url`, and `browsercloud view`, against a browser."""

from __future__ import annotations

import asyncio
import webbrowser

import pytest

from browsercloud import BrowserCloud, UsageError
from browsercloud.cli.view import view
from tests.conftest import Site


@pytest.mark.usefixtures("pool")
async def test_a_session_is_watched_from_code(
    site: Site, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Pictures come in both formats, frames until the end, and the links open what they say."""
    opened: list[str] = []
    monkeypatch.setattr(webbrowser, "open", opened.append)
    async with BrowserCloud() as client:
        session = await client.session().open()
        await session.page.goto(site.url)
        assert (await session.screenshot()).startswith(b"\x89PNG")
        assert (await session.screenshot(format="jpeg")).startswith(b"\xff\xd8")
        assert "watch-" in await session.viewer_url()
        assert "reach-" in await session.viewer_url(interactive=True, expires_in=None)
        await asyncio.to_thread(view, session.id, url=client.url, only_look=True)
        assert len(opened) == 1
        assert "watch-" in opened[0]
        assert opened[0] in capsys.readouterr().out
        await asyncio.to_thread(view, session.id, url=client.url, only_print=True)
        assert len(opened) == 1
        with pytest.raises(UsageError):
            await anext(session.frames(max_fps=0))
        frames = session.frames(max_fps=20)
        async with asyncio.timeout(10):
            frame = await anext(frames)
            assert frame.picture.startswith(b"\xff\xd8")
            assert frame.width > 0
            assert frame.height > 0
            assert frame.page_id in [
                page.id for page in (await client.sessions.live(session.id)).pages
            ]
            await session.release()
            async for _ in frames:
                pass
