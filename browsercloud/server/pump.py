"""Two upgraded connections as one: frames go from either to the other as they are.

Both sides have the same roles (what comes from the driver is masked, what comes from the browser is
not), and neither compresses, so the bytes of one are valid on the other. Only frame headers are
read: that is what counting takes, and knowing where a frame of our own may go in between.

Control frames belong to one connection, not to the way through: a ping is answered here, a pong
ends here, a close is told to whoever runs the pump.
"""

from __future__ import annotations

import asyncio
import logging
import os
from collections.abc import Iterable

from aiohttp import WSCloseCode

from browsercloud.server.traffic import Traffic

log = logging.getLogger(__name__)

WHOLE = 2**16
"""Frames up to so many bytes are passed on in one piece, bigger ones as they come.

Half a message is of no use to whoever gets it, and a goodbye can be said between frames only.
"""

CLOSE, PING, PONG = 8, 9, 10
LARGEST = 125
"""Bytes of payload that a control frame may have, and a frame with the shortest header."""

HEADER = 8
"""Bytes of the longest header that a frame of fewer than 64 KB has."""

ANSWER = b'{"id":'
"""How Chromium's answers begin, those of attached targets too; its events begin with a method."""


class Leg(asyncio.Protocol):
    """One of the two connections: what is heard here is said by the `peer`.

    The side that cannot write makes the other one stop reading, so that memory stays flat however
    slow a side is: at most what one read brings, beside the kernel's own buffers.
    """

    masking = False
    """Whether what we send has to be masked: a client's frames are, a server's are not."""

    counted = b""
    """What a message begins with that shows a driver at work."""

    def __init__(self, transport: asyncio.Transport, counters: Iterable[Traffic]) -> None:
        loop = asyncio.get_running_loop()
        self.transport = transport
        self.peer: Leg = self
        self.over: asyncio.Future[None] = loop.create_future()
        """Done when the other end has said goodbye or is gone."""

        self.answer_with = WSCloseCode.OK
        """The code that its goodbye deserves."""

        self.parted = False
        """Whether there was a goodbye: one that was killed says none."""

        self._gone: asyncio.Future[None] = loop.create_future()
        self._said: asyncio.Future[None] = loop.create_future()  # our own goodbye
        self._counters = tuple(counters)
        self._time = loop.time
        self._held = b""  # of a frame that is passed on when it is whole
        self.left = 0  # bytes to come of a frame that is passed on as it comes
        self._counting = False  # whether the message it belongs to shows a driver at work
        self.hearing = True  # whether what comes in is still passed on
        self.torn = False  # whether that stopped in the middle of a frame
        self.saying = True  # whether anything may still be written
        self.flowing = True  # whether the transport takes more
        self.waiting: dict[int, bytes] = {}  # control frames to be written between two others

    def send(self, opcode: int, payload: bytes = b"") -> None:
        """Send a control frame between two others, once the other end takes it.

        One of each kind waits at most: a later ping or pong takes the place of an earlier one.
        """
        self.waiting[opcode] = _control_frame(opcode, payload, masked=self.masking)
        self.send_waiting()

    async def close(self, code: WSCloseCode, reason: str, *, patience: float) -> None:
        """Pass on no more from here, say goodbye between two frames, wait for the answer.

        What is not done within *patience* seconds is cut off, and so is a connection whose last
        frame can never be completed. Safe to call again.
        """
        self._stop_hearing()
        if not self.transport.is_closing():
            self.transport.resume_reading()  # the answer is behind what nobody wants any more
        try:
            async with asyncio.timeout(patience):
                if not (self.peer.torn or self._said.done()):
                    self.send(CLOSE, code.to_bytes(2, "big") + reason.encode()[: LARGEST - 2])
                    await _first(self._said, self._gone)
                if not self.peer.torn:
                    await _first(self.over)
                    self.transport.close()  # what is written is still sent
                    await _first(self._gone)
        except TimeoutError:
            log.debug("a CDP socket did not take its goodbye")
        self.transport.abort()

    # What asyncio calls.

    def data_received(self, data: bytes) -> None:
        """Pass on what can be passed on, and hold the rest.

        Mostly a read brings one small message and nothing else is going on: that is told by as
        little as possible, and anything else walked through.
        """
        peer, size = self.peer, len(data)
        if size > HEADER and not (self.left or self._held or peer.waiting):
            length, body = data[1] & 0x7F, 2
            if length > LARGEST:
                # With a longer header it is no small message: no length is right for it.
                length, body = data[2] << 8 | data[3] if length == 126 else size, 4
            if data[1] & 0x80:
                body += 4
            if body + length == size and 0 < data[0] & 0x0F < CLOSE and not self.over.done():
                if self.hearing and peer.saying:
                    peer.transport.write(data)
                self._counting = data.startswith(self.counted, body)
                self._count(size, 1, heard=self._counting)
                return
        self._walk(data)

    def _walk(self, data: bytes) -> None:  # noqa: PLR0912
        """The same, whatever it is: no call for an ordinary frame, no copy of a big one."""
        if self.over.done():
            return
        if self._held:
            data, self._held = self._held + data, b""
        size, start, messages, control = len(data), 0, 0, 0
        at = min(self.left, size)
        self.left -= at
        heard = self._counting and at > 0
        while at < size:
            if self.peer.waiting:
                self._pass(data[start:at])
                start = at
                self.peer.send_waiting()
            if size - at < 2:
                break
            first, second, body = data[at], data[at + 1], at + 2
            length = second & 0x7F
            if length > LARGEST:
                body += 2 if length == 126 else 8
                length = int.from_bytes(data[at + 2 : body], "big")
            if second & 0x80:
                body += 4
            if first & 0x08 and second & 0x7F > LARGEST:
                self._pass(data[start:at])
                self._refuse()
                start = size = at
                break
            end = body + length
            # Of a big frame the header is enough, and how its payload begins.
            if end > size and (length <= WHOLE or body + len(self.counted) > size):
                break
            if first & 0x08:
                self._pass(data[start:at])
                start, control = end, control + end - at
                if not self._on_control(first & 0x0F, data[at:end], body - at):
                    size = end
                at = end
                continue
            if first & 0x0F:  # what continues a message is none of its own
                messages += 1
                self._counting = data.startswith(self.counted, body)
            heard = heard or self._counting
            at = min(end, size)
            self.left = end - at
        if at < size:
            self._held = data[at:]
        self._pass(data[start:at])
        self._count(at - control, messages, heard=heard)
        if self.peer.waiting:
            self.peer.send_waiting()

    def eof_received(self) -> None:
        """The other end sends no more: the transport closes itself."""
        _done(self.over)

    def connection_lost(self, exc: Exception | None) -> None:
        """It is gone, whoever ended it."""
        self._stop_hearing()
        self.saying = False
        _done(self._gone)
        _done(self.over)

    def pause_writing(self) -> None:
        """Too much waits to be sent: the peer reads no more."""
        self.flowing = False
        if not self.peer.transport.is_closing():
            self.peer.transport.pause_reading()

    def resume_writing(self) -> None:
        """It has been sent: first what waited for that, then the peer goes on."""
        self.flowing = True
        self.send_waiting()
        if self.flowing and not self.peer.transport.is_closing():
            self.peer.transport.resume_reading()

    # What the other methods share.

    def _pass(self, data: bytes) -> None:
        if data and self.hearing and self.peer.saying:
            self.peer.transport.write(data)

    def send_waiting(self) -> None:
        """Write the control frames that wait, if this is between two frames and they are taken."""
        in_frame = self.peer.left and self.peer.hearing
        if in_frame or self.peer.torn or not (self.saying and self.flowing):
            return
        waiting, self.waiting = self.waiting, {}
        for opcode, frame in waiting.items():
            self.transport.write(frame)
            if opcode == CLOSE:
                self.saying = False
                _done(self._said)
                return

    def _on_control(self, opcode: int, frame: bytes, body: int) -> bool:
        """What a control frame asks for. False: nothing that follows it is heard."""
        if opcode == CLOSE:
            self.parted = True
            self._stop_hearing()
            _done(self.over)
            return False
        if opcode == PING:
            masked = frame[1] & 0x80
            self.send(PONG, _mask(frame[body:], frame[body - 4 : body]) if masked else frame[body:])
        return True

    def _refuse(self) -> None:
        """A control frame is too long to be one: nothing that follows can be understood."""
        self.answer_with = WSCloseCode.PROTOCOL_ERROR
        self._stop_hearing()
        _done(self.over)

    def _stop_hearing(self) -> None:
        if self.hearing:
            self.hearing = False
            self.torn = self.left > 0

    def _count(self, size: int, messages: int, *, heard: bool) -> None:
        """Note what has been passed on; *heard*: it shows a driver at work."""
        raise NotImplementedError


class ClientLeg(Leg):
    """The driver's connection. *former* is the protocol that had it; it hears of the end."""

    def __init__(
        self,
        transport: asyncio.Transport,
        counters: Iterable[Traffic],
        former: asyncio.BaseProtocol,
    ) -> None:
        super().__init__(transport, counters)
        self._former = former

    def connection_lost(self, exc: Exception | None) -> None:
        """It is gone; the HTTP server has to know too."""
        super().connection_lost(exc)
        self._former.connection_lost(exc)

    def _count(self, size: int, messages: int, *, heard: bool) -> None:
        for counter in self._counters:
            counter.bytes_in += size
            counter.messages_in += messages
            if heard:
                counter.last = self._time()


class BrowserLeg(Leg):
    """The browser's connection, whose client we are."""

    masking = True
    counted = ANSWER

    def _count(self, size: int, messages: int, *, heard: bool) -> None:
        for counter in self._counters:
            counter.bytes_out += size
            counter.messages_out += messages
            if heard:
                counter.last = self._time()


def join(client: Leg, browser: Leg, early: tuple[bytes, bytes]) -> None:
    """Let both pass on what they hear, first what each of them has said too *early*."""
    client.peer, browser.peer = browser, client
    legs = (client, browser)
    # Both before the first byte: what is passed on may be too much for the other side at once.
    for leg in legs:
        leg.transport.set_protocol(leg)
    for leg, data in zip(legs, early, strict=True):
        if leg.transport.is_closing():
            leg.connection_lost(None)  # or nobody would tell: it was lost under its former protocol
            continue
        leg.data_received(data)
        if leg.peer.flowing:
            leg.transport.resume_reading()


def _control_frame(opcode: int, payload: bytes, *, masked: bool) -> bytes:
    head = bytes((0x80 | opcode, len(payload) | (0x80 if masked else 0)))
    if not masked:
        return head + payload
    key = os.urandom(4)
    return head + key + _mask(payload, key)


def _mask(payload: bytes, key: bytes) -> bytes:
    size = len(payload)
    keys = (key * (size // 4 + 1))[:size]
    return (int.from_bytes(payload, "big") ^ int.from_bytes(keys, "big")).to_bytes(size, "big")


def _done(future: asyncio.Future[None]) -> None:
    if not future.done():
        future.set_result(None)


async def _first(*futures: asyncio.Future[None]) -> None:
    await asyncio.wait(futures, return_when=asyncio.FIRST_COMPLETED)
