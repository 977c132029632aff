"""Sessions that pass for a person's browser, before a page that looks for what gives them away."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest
import pytest_asyncio

from browsercloud.browser.launch import adopt
from browsercloud.browser.stealth import PLATFORMS, chrome, disguise
from browsercloud.browser.warm import Kind
from browsercloud.engines.local import LocalEngine
from browsercloud.options import Browser, Dimensions, SessionOptions
from browsercloud.stealth import Stealth
from browsercloud.wanted import Device
from tests.conftest import Site
from tests.killing import evaluate, go, nothing_is_left
from tests.processes import until

DETECTOR = (Path(__file__).parent / "detector.js").read_text()
LOOK = """<!doctype html><title>look</title><body><script src=/detector.js></script><script>
const seen = {};
const from = name => event => { seen[name] = event.data; };
onmessage = event => { seen[event.data.name] = event.data.seen; };
if (parent !== self || opener)
  detect().catch(error => ({error: error.stack})).then(
    seen => (opener || parent).postMessage({name: self.name, seen}, '*'));
</script>"""
ASK = """(async other => {
  document.body.append('x');
  const frame = (name, more) => {
    const made = Object.assign(document.createElement('iframe'), {name, ...more});
    document.body.append(made);
  };
  seen.main = await detect();
  frame('iframe', {src: '/'});
  frame('cross-site iframe', {src: other});
  const blank = document.body.appendChild(document.createElement('iframe')).contentWindow;
  const inside = blank.document.createElement('script');
  inside.textContent = document.querySelector('#source').textContent;
  blank.document.body.append(inside);
  seen['blank iframe'] = await blank.detect();
  frame('srcdoc iframe', {srcdoc: '<body><script src=/detector.js></script><script>detect().then('
    + 'seen => parent.postMessage({name: self.name, seen}, "*"))</script>'});
  // While a popup waits to be told, its opener hears nothing from other processes: one by one.
  for (let turn = 0; turn < 300 && !seen['cross-site iframe']; turn++)
    await new Promise(done => setTimeout(done, 50));
  open('/', 'popup', 'width=400,height=300');
  new Worker('/worker.js').onmessage = from('worker');
  new SharedWorker('/shared.js').port.onmessage = from('shared worker');
  for (let turn = 0; turn < 300 && Object.keys(seen).length < 8; turn++)
    await new Promise(done => setTimeout(done, 50));
  return seen;
})"""
PLACES = {
    "main",
    "iframe",
    "cross-site iframe",
    "blank iframe",
    "srcdoc iframe",
    "popup",
    "worker",
    "shared worker",
}


@pytest.fixture
def looking(site: Site) -> Site:
    """The detector, at every place where scripts run."""
    source = f"<script type=text/plain id=source>{DETECTOR}</script>"
    site.pages["/"] = LOOK.replace("<body>", f"<body>{source}")
    site.scripts["/detector.js"] = DETECTOR
    work = "importScripts('/detector.js'); "
    site.scripts["/worker.js"] = work + "detect().then(seen => postMessage(seen))"
    site.scripts["/shared.js"] = (
        work + "onconnect = e => detect().then(seen => e.ports[0].postMessage(seen))"
    )
    return site


@pytest_asyncio.fixture
async def engine(root: Path) -> AsyncIterator[LocalEngine]:
    """An engine that keeps two browsers ahead."""
    engine = LocalEngine(root / "data", pool_size=2)
    await engine.open()
    await engine.sweep()
    yield engine
    await engine.close()
    nothing_is_left(root / "data")


async def looked(engine: LocalEngine, site: Site, name: str, options: SessionOptions) -> Any:
    """What the detector found in a session, place by place."""
    handle = await engine.start(name, options)
    await go(handle.endpoint, f"{site.url}/")
    other = f"http://127.0.0.1:{site.server_address[1]}/"
    seen = await evaluate(handle.endpoint, f"{ASK}({other!r})")
    await engine.stop(handle, grace=0)
    return seen


def failing(found: dict[str, Any]) -> dict[str, Any]:
    """The checks that a place does not pass."""
    return {name: so for name, so in found.items() if name != "told" and so is not True}


OFF = {
    Browser.CHROMIUM: {
        "agent",
        "brands",
        "hints",
        "webgl",
        "cores",
        "webdriver",
        "pointer",
        "screen",
    },
}
OFF[Browser.HEADLESS_SHELL] = OFF[Browser.CHROMIUM] | {
    "languages",
    "plugins",
    "mime types",
    "permissions",
    "chrome",
    "scrollbars",
}
"""What gives away a session without stealth; `cores` only on a small machine."""


@pytest.mark.parametrize("browser", list(Browser))
async def test_a_detector_takes_it_for_a_persons(
    engine: LocalEngine, looking: Site, browser: Browser
) -> None:
    """Every check passes at every place, which all say the same; fresh, pooled, taken over."""
    options = SessionOptions(browser=browser, stealth=Stealth())
    fresh = await looked(engine, looking, "fresh", options)
    await until(lambda: Kind(browser, stealth=True) in kinds(engine), "one ahead", timeout=30)
    pooled = await looked(engine, looking, "pooled", options)
    for seen in (fresh, pooled):
        assert {name: {} for name in PLACES} == {n: failing(found) for n, found in seen.items()}
        assert 1 == len({found["told"] for found in seen.values()})
    sent = {headers["User-Agent"] for path, headers in looking.seen if "." not in path}
    agents = {json.loads(seen["main"]["told"])["userAgent"] for seen in (fresh, pooled)}
    assert agents == sent
    assert not [one for one in sent if "Headless" in one]


@pytest.mark.parametrize("browser", list(Browser))
async def test_without_it_the_detector_finds_out(
    engine: LocalEngine, looking: Site, browser: Browser
) -> None:
    """Named checks fail, so that they are worth something; `skip_fingerprint_injection` is that."""
    skipped = Stealth(skip_fingerprint_injection=True, humanize_interactions=True)
    stealth = skipped if browser is Browser.HEADLESS_SHELL else None
    seen = await looked(engine, looking, "one", SessionOptions(browser=browser, stealth=stealth))
    assert OFF[browser] - {"cores"} == set(failing(seen["main"])) - {"cores"}
    assert seen.keys() == PLACES
    assert all("agent" in failing(found) for found in seen.values())


PHONES = {"pointer", "screen", "scrollbars"}
"""Checks that a phone fails, as they ask for a computer."""


@pytest.mark.parametrize("kind", ["phone", "window"])
async def test_phones_and_windows_pass_too(engine: LocalEngine, looking: Site, kind: str) -> None:
    """The same agent, hints, cores and graphics card at every place, and nothing to be seen."""
    phone = kind == "phone"
    device = Device.MOBILE if phone else Device.DESKTOP
    options = SessionOptions(stealth=Stealth(), device=device, headless=phone)
    seen = await looked(engine, looking, "one", options)
    assert seen.keys() == PLACES
    for place, found in seen.items():
        # A frame of another site has the real screen, which is no phone's.
        expected = PHONES if phone and place != "cross-site iframe" else PHONES & {"pointer"}
        of_page = "worker" not in place
        assert set(failing(found)) == (expected if phone and of_page else set()), place
        assert found["told"] == seen["main"]["told"], place
    told = json.loads(seen["main"]["told"])
    assert phone == ("Adreno" in told["webgl"][1]) == ("Android" in told["userAgent"])


def kinds(engine: LocalEngine) -> list[Kind]:
    """What is kept ahead."""
    return [] if engine._pool is None else [one.kind for one in engine._pool._spares]


SIZE = "[innerWidth, innerHeight]"


async def test_a_session_keeps_what_it_has_picked(engine: LocalEngine, looking: Site) -> None:
    """Viewport and machine follow from the id: a later server that takes over tells the same."""
    options = SessionOptions(stealth=Stealth(), dimensions=Dimensions(1000, 600))
    picked = options.of("one").size
    assert picked != options.of("two").size
    handle = await engine.start("one", options)
    await go(handle.endpoint, f"{looking.url}/")
    before = await evaluate(handle.endpoint, "detect()")
    assert [picked.width, picked.height] == await evaluate(handle.endpoint, SIZE)
    assert handle.user_agent == json.loads(before["told"])["userAgent"]
    running = engine._browsers["one"]
    assert running.process is not None
    assert running.launched is not None
    assert running.launched.overrides is not None
    await running.launched.overrides.close()  # as when the server dies
    again = await adopt(options.of("one"), "one", running.process.mark, handle.endpoint)
    assert handle.user_agent == again.user_agent
    assert before == await evaluate(handle.endpoint, "detect()")
    await go(handle.endpoint, f"{looking.url}/?again")
    assert before == await evaluate(handle.endpoint, "detect()")
    assert again.overrides is not None
    await again.overrides.close()
    again.process.let_go()


def test_the_viewport_is_a_little_off() -> None:
    """Up to 20 pixels each way around what was asked for, within the bounds, the same again."""
    around = SessionOptions(stealth=Stealth(), dimensions=Dimensions(1000, 600))
    sizes = [around.of(str(n)).size for n in range(400)]
    assert sizes == [around.of(str(n)).size for n in range(400)]
    assert set(range(980, 1021)) == {size.width for size in sizes}
    assert set(range(580, 621)) == {size.height for size in sizes}
    least = SessionOptions(stealth=Stealth(), dimensions=Dimensions(100, 8192))
    assert {(True, True)} == {
        (size.width >= 100, size.height <= 8192)
        for size in (least.of(str(n)).size for n in range(99))
    }
    for stealth in (
        None,
        Stealth(randomize_viewport=False),
        Stealth(skip_fingerprint_injection=True),
    ):
        assert Dimensions(1280, 720) == SessionOptions(stealth=stealth).of("x").size


def test_the_agent_is_of_the_real_version() -> None:
    """Brands are spelled and ordered as Chrome's own of that version; all platforms are picked."""
    agent = chrome(PLATFORMS["Windows"], "156.0.8078.79", "15.0.0").override()
    assert agent["platform"] == "Win32"
    assert agent["userAgentMetadata"]["brands"] == [
        {"brand": "Not:A-Brand", "version": "8"},
        {"brand": "Chromium", "version": "156"},
        {"brand": "Google Chrome", "version": "156"},
    ]
    assert agent["userAgentMetadata"]["fullVersionList"][1]["version"] == "156.0.8078.79"
    options = SessionOptions(stealth=Stealth())
    worn = [disguise(options, "Chrome/156.0.8078.79", str(n), None) for n in range(60)]
    assert worn == [disguise(options, "Chrome/156.0.8078.79", str(n), None) for n in range(60)]
    words = {one.agent.user_agent.partition("(")[2].partition(")")[0] for one in worn if one}
    assert {platform.words for platform in PLATFORMS.values()} == words
    own = SessionOptions(stealth=Stealth(randomize_user_agent=False))
    assert {"X11; Linux x86_64"} == {
        one.agent.user_agent.partition("(")[2].partition(")")[0]
        for one in (disguise(own, "Chrome/156.0.8078.79", str(n), None) for n in range(9))
        if one
    }
