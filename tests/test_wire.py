"""The converter: strict with requests, lenient with replies, the same both ways."""

from __future__ import annotations

import json
import uuid
from datetime import UTC, datetime, timedelta, timezone
from typing import Any

import pytest

from browsercloud import wire
from browsercloud.errors import InvalidRequest
from browsercloud.models import (
    LiveDetails,
    LivePage,
    Released,
    ReleaseReason,
    Session,
    SessionFailure,
    SessionList,
    SessionStatus,
)
from browsercloud.options import Browser, Dimensions, Seconds, SessionOptions

FULL = Session(
    id="1",
    status=SessionStatus.FAILED,
    created_at=datetime(2030, 1, 31, 12, 0, 0, 123_000, tzinfo=UTC),
    started_at=datetime(2030, 1, 31, 12, 0, 1, tzinfo=UTC),
    timeout=Seconds(1.5),
    duration=Seconds(0.25),
    release_reason=ReleaseReason.BROWSER_CRASHED,
    error=SessionFailure(code="x", message="y", signal="SIGKILL", stderr=("a", "b")),
    websocket_url="ws://h/?token=t",
    browser=Browser.HEADLESS_SHELL,
    dimensions=Dimensions(800, 600),
    name="n",
    metadata={"a": "b"},
    config={"timeout": 1500, "dimensions": {"width": 800, "height": 600}},
)


def problems(body: Any) -> list[str]:
    """The paths that a create is refused for."""
    with pytest.raises(InvalidRequest) as caught:
        wire.read_create(body)
    return sorted(detail["path"] for detail in caught.value.details)


@pytest.mark.parametrize(
    "value",
    [
        FULL,
        SessionList(sessions=(FULL,), next_cursor="1", total_count=7),
        LiveDetails(pages=(LivePage(id="p", url="about:blank", title=""),), ws_url="ws://h"),
        Released(success=True, message="m", release_reason=ReleaseReason.TIMEOUT),
        SessionOptions(timeout=Seconds(2), user_agent="x", metadata={"a": "b"}),
    ],
    ids=lambda value: type(value).__name__,
)
def test_a_model_comes_back_as_it_was(value: Any) -> None:
    """Written as JSON and read again, it is equal."""
    assert wire.load(json.loads(json.dumps(wire.dump(value))), type(value)) == value


def test_json_is_in_the_wires_words_and_units() -> None:
    """camelCase, integer milliseconds, RFC 3339 with Z, enums by their value."""
    shown = wire.dump(FULL)
    assert shown["createdAt"] == "2030-01-31T12:00:00.123Z"
    assert (shown["timeout"], shown["duration"]) == (1500, 250)
    assert type(shown["timeout"]) is int
    assert (shown["status"], shown["releaseReason"]) == ("failed", "browser_crashed")
    assert shown["websocketUrl"] == "ws://h/?token=t"
    assert (shown["endedAt"], shown["browser"]) == (None, "headless-shell")


def test_times_of_another_zone_are_written_in_utc() -> None:
    """The moment counts, not where it was taken."""
    there = datetime(2030, 1, 1, 1, tzinfo=timezone(timedelta(hours=2)))
    session = Session(id="1", status=SessionStatus.LIVE, created_at=there)
    assert wire.dump(session)["createdAt"] == "2029-12-31T23:00:00.000Z"


def test_a_reply_of_a_newer_server_can_be_read() -> None:
    """Unknown fields are skipped, at every depth."""
    reply = wire.dump(FULL) | {"colour": "red"}
    reply["dimensions"]["depth"] = 3
    assert wire.load(reply, Session) == FULL


@pytest.mark.parametrize(
    "reply", [None, [], "x", {}, {"id": 1}, wire.dump(FULL) | {"status": "dreaming"}]
)
def test_a_reply_that_makes_no_sense_is_a_value_error(reply: Any) -> None:
    """One kind of error for whatever came."""
    with pytest.raises(ValueError, match=r".+"):
        wire.load(reply, Session)


def test_options_are_read_with_their_units() -> None:
    """Milliseconds become seconds; null counts as left out; the caller's words are kept."""
    body = {"timeout": 90_000, "name": None, "dimensions": {"width": 800, "height": 600}}
    request = wire.read_create(body)
    assert request.options == SessionOptions(timeout=Seconds(90), dimensions=Dimensions(800, 600))
    assert "name" not in request.given
    assert request.given["timeout"] == 90_000


def test_an_id_is_chosen_when_none_is_given() -> None:
    """A new one each time; a given one is brought to its usual spelling."""
    assert wire.read_create({}).session_id != wire.read_create({}).session_id
    given = uuid.uuid4()
    spellings = [str(given).upper(), given.hex, f"{{{given}}}", f"urn:uuid:{given}"]
    assert {wire.read_create({"sessionId": text}).session_id for text in spellings} == {str(given)}


def test_every_problem_is_found_at_once() -> None:
    """Ids, options not offered and unknown fields are told together."""
    body = {"sessionId": 1, "leaseId": "x", "proxy": "p", "blockAds": True, "colour": 1}
    assert problems(body) == ["blockAds", "colour", "leaseId", "proxy", "sessionId"]


@pytest.mark.parametrize(
    ("body", "path"),
    [
        ({"dimensions": {"width": 800}}, "dimensions.height"),
        ({"dimensions": {"width": 800, "height": True}}, "dimensions.height"),
        ({"dimensions": {"width": 800, "height": 10**6}}, "dimensions.height"),
        ({"metadata": {str(number): "" for number in range(51)}}, "metadata"),
        ({"metadata": {"a": "x" * 1001}}, "metadata"),
        ({"metadata": []}, "metadata"),
        ({"userAgent": " "}, "userAgent"),
        ({"userAgent": "é"}, "userAgent"),
        ({"name": "x" * 1001}, "name"),
        ({"timeout": 2**60}, "timeout"),
        ({"timeout": float("inf")}, "timeout"),
        ({"timeout": float("nan")}, "timeout"),
    ],
)
def test_a_problem_has_the_path_of_its_field(body: Any, path: str) -> None:
    """As the wire spells it, through objects."""
    assert problems(body) == [path]


def test_a_path_leads_into_lists() -> None:
    """The place in the list is part of it."""
    good = wire.dump(FULL)
    # The second name of inactivityTimeout, and what is there for Steel's programs: replies only.
    for name in ("idleTimeout", "isSelenium", *wire.STEEL_FACTS):
        del good[name]
    reply = {"sessions": [good, good | {"timeout": "long"}]}
    with pytest.raises(InvalidRequest) as caught:
        wire.read(reply, SessionList)
    assert [detail["path"] for detail in caught.value.details] == ["sessions[1].timeout"]


def test_a_reason_shows_little_of_the_value() -> None:
    """Long texts are cut and containers are named, so that errors stay short and say no secret."""
    with pytest.raises(InvalidRequest) as caught:
        wire.read_create({"timeout": "x" * 1000, "headless": {"password": "secret"}})
    assert len(str(caught.value)) < 300
    assert "secret" not in str(caught.value)


def test_an_unknown_word_of_a_reply_is_kept() -> None:
    """A newer server may end sessions for reasons that this client has no name for."""
    reply = wire.dump(Session(id="a", status=SessionStatus.RELEASED, created_at=datetime.now(UTC)))
    session = wire.load(reply | {"releaseReason": "moved_away", "browser": "other"}, Session)
    assert (session.release_reason, session.browser) == ("moved_away", "other")
