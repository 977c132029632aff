"""What is repeated, how long, and what comes out."""

import asyncio
import time

import pytest

from browsercloud import ConnectionFailed, InvalidRequest, LaunchFailed, NoCapacity, ServiceError
from browsercloud.client.retries import (
    AGAIN_IS_FINE,
    CHANGES_NOTHING,
    SAME_ID,
    UNREACHABLE_ATTEMPTS,
    Policy,
    repeat,
)


class Answers:
    """Fails with each of *errors* in turn, then answers."""

    def __init__(self, *errors: Exception) -> None:
        self.errors = list(errors)
        self.calls = 0

    async def __call__(self) -> str:
        """Fail, or answer."""
        self.calls += 1
        if self.errors:
            raise self.errors.pop(0)
        return "done"


async def run(policy: Policy, work: Answers, deadline: float = 10) -> str:
    """Repeat with a deadline in seconds."""
    return await repeat(policy, work, deadline=deadline, what="test", endpoint="http://h")


def unavailable(retry_after: float | None = None) -> ServiceError:
    """The server says: not now."""
    return ServiceError("not now", status=503, code="shutting_down", retry_after=retry_after)


async def test_passing_faults_are_repeated() -> None:
    """Unreachable and unavailable may pass."""
    work = Answers(unavailable(), ConnectionFailed("refused", endpoint="http://h"))
    assert await run(SAME_ID, work) == "done"
    assert work.calls == 3


@pytest.mark.parametrize("error", [InvalidRequest("no"), LaunchFailed("no"), ValueError("no")])
async def test_answers_are_not_repeated(error: Exception) -> None:
    """What would be answered the same way again is raised at once."""
    work = Answers(error)
    with pytest.raises(type(error)):
        await run(SAME_ID, work)
    assert work.calls == 1


async def test_a_proxy_on_the_way_may_fail() -> None:
    """502 with another code than `launch_failed` is not our server's answer."""
    work = Answers(ServiceError("bad gateway", status=502, code="http_502"))
    assert await run(SAME_ID, work) == "done"


async def test_release_outlives_an_internal_error() -> None:
    """A release is tried again after a 500, a create is not."""
    internal = ServiceError("oops", status=500)
    assert await run(AGAIN_IS_FINE, Answers(internal)) == "done"
    with pytest.raises(ServiceError, match="oops"):
        await run(SAME_ID, Answers(internal))


async def test_retry_after_is_obeyed() -> None:
    """The server's time is waited, not our own."""
    begun = time.monotonic()
    assert await run(CHANGES_NOTHING, Answers(NoCapacity("full", retry_after=0.7))) == "done"
    assert 0.7 <= time.monotonic() - begun < 1.5


async def test_retry_after_zero_is_no_hot_loop() -> None:
    """A server that says 0 is asked with the usual pauses."""
    work = Answers(*[NoCapacity("full", retry_after=0)] * 9999)
    with pytest.raises(NoCapacity):
        await run(SAME_ID, work, deadline=1)
    assert work.calls < 8


async def test_deadline_is_total() -> None:
    """No try begins that could not wait its turn: the last error comes out before the deadline."""
    begun = time.monotonic()
    with pytest.raises(NoCapacity):
        await run(SAME_ID, Answers(*[NoCapacity("full", retry_after=0.4)] * 99), deadline=1)
    assert time.monotonic() - begun < 1.2


async def test_deadline_ends_a_try() -> None:
    """A try that hangs is ended by the deadline; the error names the server."""

    async def hang() -> None:
        await asyncio.sleep(60)

    with pytest.raises(ConnectionFailed, match="http://h within 0.2 s"):
        await repeat(SAME_ID, hang, deadline=0.2, what="test", endpoint="http://h")


async def test_unreachable_is_given_up() -> None:
    """Five times in a row is an answer, long before the deadline."""
    errors = [ConnectionFailed("refused", endpoint="http://h") for _ in range(99)]
    work = Answers(*errors)
    with pytest.raises(ConnectionFailed, match="refused"):
        await run(SAME_ID, work, deadline=60)
    assert work.calls == UNREACHABLE_ATTEMPTS


async def test_cancellation_is_not_repeated() -> None:
    """Cancelled while it waits between two tries, it ends at once."""
    work = Answers(NoCapacity("full", retry_after=30))
    task = asyncio.create_task(run(SAME_ID, work, deadline=60))
    while not work.calls:
        await asyncio.sleep(0)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert work.calls == 1
