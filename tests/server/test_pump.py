"""The pump between driver and browser: bytes unchanged, memory flat, goodbyes between frames."""

from __future__ import annotations

import asyncio
import random
import tracemalloc
from collections.abc import AsyncIterator
from typing import Any

import pytest

from browsercloud.server import gateway, upgrade
from browsercloud.server.pump import WHOLE
from browsercloud.testing import IdleEngine
from tests.server.conftest import BODY, Cloud, StartCloud, until
from tests.server.raw import (
    BINARY,
    CLOSE,
    CONTINUE,
    PING,
    PONG,
    TEXT,
    RawBrowser,
    Side,
    closing,
    frame,
    mask,
    some_messages,
)

MASK = b"\x01\x02\x03\x04"
MB = 2**20


@pytest.fixture
async def raw(unwatched: None) -> AsyncIterator[RawBrowser]:
    """The browser's end."""
    async with RawBrowser() as browser:
        yield browser


@pytest.fixture
async def cloud(start_cloud: StartCloud, raw: RawBrowser) -> Cloud:
    """A server whose browsers are that end."""
    return await start_cloud(IdleEngine(endpoint=raw.endpoint))


@pytest.fixture
async def record(cloud: Cloud) -> BODY:
    """A session."""
    return await cloud.create()


@pytest.fixture
async def ends(record: BODY, raw: RawBrowser) -> tuple[Side, Side]:
    """A driver and its browser, connected through the gateway."""
    client = await raw.connect(record["websocketUrl"])
    return client, await raw.sides.get()


def traffic(cloud: Cloud, record: BODY) -> Any:
    """The session's counters."""
    found = cloud.parts.sessions.live(record["id"])
    assert found is not None
    return found.traffic


async def test_every_byte_arrives_as_it_was_sent(ends: tuple[Side, Side]) -> None:
    """1 000 messages of all sizes both ways at once, in any pieces; masks and fragments too."""
    chance = random.Random(7)

    async def send(source: Side, target: Side, *, masked: bool) -> None:
        sent = b"".join(some_messages(chance, 1000, masked=masked))
        reading = asyncio.create_task(target.reader.readexactly(len(sent)))
        at = 0
        while at < len(sent):
            step = chance.choice([1, 3, 100, 5_000, 70_000, 400_000])
            source.write(sent[at : at + step])
            at += step
            await source.writer.drain()
            await asyncio.sleep(0)
        assert await reading == sent

    client, browser = ends
    async with asyncio.timeout(60):
        await asyncio.gather(
            send(client, browser, masked=True), send(browser, client, masked=False)
        )


async def test_what_came_too_early_is_not_lost(record: BODY, raw: RawBrowser) -> None:
    """Frames in one piece with either handshake arrive first and whole, however many they are."""
    early = [frame(TEXT, b"x" * 5000, key=MASK) for _ in range(60)]
    raw.early = frame(TEXT, b'{"method":"early"}')
    client = await raw.connect(record["websocketUrl"], b"".join(early))
    browser = await raw.sides.get()
    assert await client.read_frame() == (TEXT, b'{"method":"early"}')
    client.write(frame(TEXT, b"late", key=MASK))
    assert await browser.read(sum(map(len, early))) == b"".join(early)
    assert await browser.read_frame() == (TEXT, b"late")
    await client.drop()


async def test_control_frames_belong_to_one_connection(ends: tuple[Side, Side]) -> None:
    """On both sides a ping among fragments is answered by the gateway, and a pong ends there."""
    client, browser = ends
    fragments = [
        frame(TEXT, b"one", key=MASK, fin=False),
        frame(CONTINUE, b"two", key=b"abcd", fin=False),
        frame(CONTINUE, b"", key=b"wxyz"),
    ]
    ping, pong = frame(PING, b"hello", key=MASK), frame(PONG, b"?", key=MASK)
    client.write(fragments[0], ping, pong, fragments[1], pong, fragments[2])
    assert await client.read_frame() == (PONG, b"hello")
    assert await browser.read(sum(map(len, fragments))) == b"".join(fragments)
    browser.write(frame(TEXT, b"three", fin=False), frame(PING, b"hi"), frame(CONTINUE, b"four"))
    assert await client.read_frame() == (TEXT, b"three")
    assert await client.read_frame() == (CONTINUE, b"four")
    head = await browser.read(2)
    assert head == bytes([0x80 | PONG, 0x80 | 2])  # masked, as ours is the client's side
    key = await browser.read(4)
    assert mask(await browser.read(2), key) == b"hi"


async def test_our_pings_never_come_inside_a_frame(
    monkeypatch: pytest.MonkeyPatch, record: BODY, raw: RawBrowser
) -> None:
    """While big messages follow each other so that no read ends with one, pings come between."""
    monkeypatch.setattr(gateway, "PING_EVERY", 0.01)
    client = await raw.connect(record["websocketUrl"])
    browser = await raw.sides.get()
    messages = [bytes([number]) * (MB // 2) for number in range(20)]
    stream = b"".join(frame(BINARY, message) for message in messages)

    async def send() -> None:
        for at in range(0, len(stream), MB // 2):
            browser.write(stream[at : at + MB // 2])
            await asyncio.sleep(0.02)

    sending = asyncio.create_task(send())
    got, pings = [], 0
    while len(got) < len(messages):
        opcode, payload = await client.read_frame()
        if opcode == PING:
            pings += len(got) > 0
        else:
            got.append(payload)
    await sending
    assert got == messages
    assert pings > 5
    await client.drop()


async def test_the_counters_say_what_went_through(
    cloud: Cloud, record: BODY, ends: tuple[Side, Side]
) -> None:
    """Both ways, for the session and in all; fragments are one message, control frames none."""
    client, browser = ends
    commands = [frame(TEXT, b"a" * 10, key=MASK, fin=False), frame(CONTINUE, b"b", key=MASK)]
    client.write(*commands, frame(PING, key=MASK), frame(TEXT, b"c" * WHOLE * 2, key=MASK))
    size = sum(map(len, commands)) + 14 + WHOLE * 2
    await browser.read(size)
    answers = frame(TEXT, b'{"id":1}') * 3 + frame(TEXT, b'{"method":"x"}')
    browser.write(answers)
    assert (await client.read_frame())[0] == PONG
    await client.read(len(answers))
    for counts in (traffic(cloud, record), cloud.parts.totals):
        assert (counts.messages_in, counts.bytes_in) == (2, size)
        assert (counts.messages_out, counts.bytes_out) == (4, len(answers))


@pytest.mark.parametrize("size", [0, 1, 125, 126, 127, 200, WHOLE - 1, WHOLE, MB])
async def test_a_part_is_not_taken_for_a_whole(
    cloud: Cloud, record: BODY, ends: tuple[Side, Side], size: int
) -> None:
    """Wherever a read ends: once for each length that a header of another size would say."""
    client, browser = ends
    message = frame(BINARY, b"z" * size, key=MASK)
    cuts = [cut for cut in (1, 2, 7, 8, 9, 127, 131, 133, 135) if cut < len(message)]
    for cut in cuts:
        client.write(message[:cut])
        await asyncio.sleep(0.01)  # so that it is read by itself, mostly
        client.write(message[cut:])
        assert await browser.read(len(message)) == message
    counts = traffic(cloud, record)
    assert (counts.messages_in, counts.bytes_in) == (len(cuts), len(cuts) * len(message))


@pytest.mark.parametrize(
    ("sent", "by_driver", "counts"),
    [
        (frame(TEXT, b'{"id":1,"method":"x"}', key=MASK), True, True),
        (frame(PING, b"", key=MASK), True, False),
        (frame(TEXT, b'{"id":1,"result":{}}'), False, True),
        (frame(TEXT, b'{"id":1,"result":"' + b"x" * MB + b'"}'), False, True),
        (frame(TEXT, b'{"method":"x","params":{}}'), False, False),
        (frame(TEXT, b'{"method":"' + b"x" * MB + b'"}'), False, False),
        (frame(PING, b""), False, False),
    ],
)
async def test_commands_and_answers_show_a_driver_at_work(
    cloud: Cloud, record: BODY, ends: tuple[Side, Side], sent: bytes, by_driver: bool, counts: bool
) -> None:
    """Events and pings do not: a page makes those by itself."""
    client, browser = ends
    counted = traffic(cloud, record)
    counted.last = 0.0
    source, target = (client, browser) if by_driver else (browser, client)
    source.write(sent)
    if sent[0] & 0x0F == PING:
        await source.read(2)
    else:
        await target.read(len(sent))
    now = asyncio.get_running_loop().time()
    assert counted.last == pytest.approx(now if counts else 0.0, abs=5)
    assert (counted.last > 0) == counts


@pytest.mark.parametrize("outward", [True, False])
async def test_a_side_that_does_not_read_holds_the_other_one_back(
    ends: tuple[Side, Side], *, outward: bool
) -> None:
    """Of 200 MB that nobody takes few go, and memory stays where it was; then all arrive."""
    client, browser = ends
    source, target = (browser, client) if outward else (client, browser)
    target.writer.transport.pause_reading()
    message = frame(BINARY, bytes(MB), key=b"" if outward else MASK)
    sent = 0

    async def flood() -> None:
        nonlocal sent
        for _ in range(200):
            source.write(message)
            await source.writer.drain()
            sent += 1

    tracemalloc.start()
    flooding = asyncio.create_task(flood())
    await asyncio.wait({flooding}, timeout=1)
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert sent < 30
    assert peak < 8 * MB
    target.writer.transport.resume_reading()
    for _ in range(200):
        assert await target.read(len(message)) == message
    await flooding


async def test_pings_of_a_client_that_does_not_read_do_not_pile_up(
    ends: tuple[Side, Side],
) -> None:
    """Of those that came since the last answer only the last is answered (RFC 6455, 5.5.3)."""
    client, browser = ends
    client.writer.transport.pause_reading()
    filler = frame(BINARY, bytes(MB))
    stuffing = asyncio.create_task(write_all(browser, filler * 30))
    await asyncio.wait({stuffing}, timeout=0.5)
    for number in range(5_000):
        client.write(frame(PING, b"%0125d" % number, key=MASK))
    client.write(frame(TEXT, b"behind them", key=MASK))
    assert await browser.read_frame() == (TEXT, b"behind them")
    client.writer.transport.resume_reading()
    messages, pongs = 0, []
    while messages < 30 or not pongs:
        opcode, payload = await client.read_frame()
        messages += opcode == BINARY
        pongs += [payload] * (opcode == PONG)
    assert pongs[-1] == b"%0125d" % 4_999
    assert len(pongs) < 10
    await stuffing


async def test_the_goodbye_waits_for_the_end_of_the_frame(
    cloud: Cloud, record: BODY, ends: tuple[Side, Side]
) -> None:
    """A session that ends while a big message is under way: the message, then 1001."""
    client, browser = ends
    message = frame(BINARY, b"y" * MB)
    browser.write(message[: MB // 2])
    await until(lambda: traffic(cloud, record).bytes_out > WHOLE)
    releasing = asyncio.create_task(cloud.call("DELETE", f"/v1/sessions/{record['id']}"))
    await until(lambda: cloud.parts.sessions.live(record["id"]) is None)
    browser.write(message[MB // 2 :])
    assert await client.read(len(message)) == message
    goodbye = closing(1001, "session ended: user_requested")
    assert await client.read(len(goodbye)) == goodbye
    browser.write(frame(TEXT, b"nobody hears this"))
    client.write(frame(CLOSE, b"\x03\xe9", key=MASK))
    assert await client.ended() == b""
    await releasing


@pytest.mark.parametrize("size", [10, WHOLE, MB])
async def test_a_browser_that_dies_inside_a_frame(
    monkeypatch: pytest.MonkeyPatch, ends: tuple[Side, Side], size: int
) -> None:
    """Half a small message is not passed on, so there is a goodbye; half a big one is the end."""
    monkeypatch.setattr(gateway, "END_PATIENCE", 0.1)
    client, browser = ends
    whole = frame(TEXT, b"whole")
    half = frame(BINARY, b"z" * size)[: size // 2]
    browser.write(whole, half)
    assert await client.read(len(whole)) == whole
    browser.writer.close()
    if size <= WHOLE:
        assert await client.read_frame() == (
            CLOSE,
            (1011).to_bytes(2, "big") + b"the browser closed the connection",
        )
        client.write(frame(CLOSE, b"\x03\xf3", key=MASK))
        assert await client.ended() == b""
    else:
        rest = await client.ended()
        assert half.startswith(rest)


@pytest.mark.parametrize("stalled", ["client", "browser"])
async def test_who_stalls_inside_a_frame_is_cut_off(
    monkeypatch: pytest.MonkeyPatch,
    cloud: Cloud,
    record: BODY,
    ends: tuple[Side, Side],
    stalled: str,
) -> None:
    """A goodbye that cannot be said within its patience is not: both sockets end."""
    monkeypatch.setattr(gateway, "GOODBYE_PATIENCE", 0.2)
    client, browser = ends
    message = frame(BINARY, bytes(16 * MB))
    if stalled == "client":
        client.writer.transport.pause_reading()
        sending = asyncio.create_task(write_all(browser, message))
        await asyncio.wait({sending}, timeout=0.5)
        assert not sending.done()
    else:
        sending = asyncio.create_task(write_all(browser, message[: 8 * MB]))
        await client.read(8 * MB)
    await cloud.call("DELETE", f"/v1/sessions/{record['id']}")
    async with asyncio.timeout(2):
        await browser.reader.read()
    await sending
    client.writer.transport.resume_reading()
    assert message.startswith(await client.ended())


async def test_a_client_that_says_goodbye_gets_its_answer(
    ends: tuple[Side, Side], cloud: Cloud, record: BODY
) -> None:
    """Its close is answered, the browser's side is closed, nothing behind it is passed on."""
    client, browser = ends
    client.write(frame(TEXT, b"last", key=MASK), frame(CLOSE, b"\x03\xe8bye", key=MASK))
    client.write(frame(TEXT, b"after the end", key=MASK))
    assert await browser.read_frame() == (TEXT, b"last")
    assert await client.read_frame() == (CLOSE, b"\x03\xe8")
    assert await browser.read_frame() == (CLOSE, b"\x03\xe8")
    browser.write(frame(CLOSE, b"\x03\xe8"))
    assert await browser.ended() == b""
    assert await client.ended() == b""
    assert cloud.parts.sessions.live(record["id"]) is not None


@pytest.mark.parametrize("head", [b"\x89\xfe\x00\x7e", b"\x88\xff"])
async def test_a_control_frame_that_is_too_long_is_an_error(
    ends: tuple[Side, Side], head: bytes
) -> None:
    """Nothing of it is kept: 1002 and the end."""
    client, browser = ends
    client.write(head, bytes(1000))
    assert await client.read_frame() == (CLOSE, (1002).to_bytes(2, "big"))
    await client.drop()
    assert (await browser.read_frame())[0] == CLOSE


async def test_more_than_a_hundred_sockets_at_once(record: BODY, raw: RawBrowser) -> None:
    """No pool of connections is in between."""
    clients = [await raw.connect(record["websocketUrl"]) for _ in range(120)]
    for number, client in enumerate(clients):
        browser = await raw.sides.get()
        client.write(frame(TEXT, b"%d" % number, key=MASK))
        assert await browser.read_frame() == (TEXT, b"%d" % number)


@pytest.mark.parametrize(
    "answer",
    [
        b"HTTP/1.1 404 Not Found\r\nContent-Length: 0\r\n\r\n",
        b"HTTP/1.1 101 Switching Protocols\r\nSec-WebSocket-Accept: wrong\r\n\r\n",
        b"HTTP/1.1 101 Yes\r\nSec-WebSocket-Accept: ACCEPT\r\nSec-WebSocket-Extensions: x\r\n\r\n",
        b"SSH-2.0-OpenSSH_9.9 " * 5000,
        b"\r\n\r\n",
    ],
)
async def test_a_browser_that_does_not_upgrade_is_no_browser(
    cloud: Cloud, record: BODY, raw: RawBrowser, answer: bytes
) -> None:
    """502 before the client's own upgrade, whatever it answers."""
    raw.answer = answer
    path = record["websocketUrl"].removeprefix(f"ws://{cloud.host}")
    assert await cloud.refused(path) == 502


async def test_a_browser_that_never_answers_is_given_up(
    monkeypatch: pytest.MonkeyPatch, cloud: Cloud, record: BODY, raw: RawBrowser
) -> None:
    """After the patience for connecting: 502."""
    monkeypatch.setattr(upgrade, "CONNECT_TIMEOUT", 0.1)
    raw.answer = b""
    path = record["websocketUrl"].removeprefix(f"ws://{cloud.host}")
    assert await cloud.refused(path) == 502


async def test_what_is_in_an_endpoint_goes_where_it_belongs(
    start_cloud: StartCloud, raw: RawBrowser
) -> None:
    """User and password become a header, the query stays with the path."""
    host = raw.endpoint.removeprefix("ws://").partition("/")[0]
    cloud = await start_cloud(IdleEngine(endpoint=f"ws://me:p%40ss@{host}/a?b=c%20d"))
    client = await raw.connect((await cloud.create())["websocketUrl"])
    (request,) = raw.requests
    assert request.startswith(b"GET /a?b=c%20d HTTP/1.1\r\nHost: " + host.encode() + b"\r\n")
    assert b"\r\nAuthorization: Basic bWU6cEBzcw==\r\n" in request
    await client.drop()


async def write_all(side: Side, data: bytes) -> None:
    """Send it however long it takes, or until the other end is gone."""
    try:
        side.write(data)
        await side.writer.drain()
    except ConnectionError:
        return
