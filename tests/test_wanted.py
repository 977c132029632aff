"""Bad wishes are refused with their path and a remedy, and secrets among good ones stay secret."""

from __future__ import annotations

import json
from typing import Any

import pytest

from browsercloud import BrowserCloud, Coordinates, Device
from browsercloud.engines import testmu
from browsercloud.engines.endpoint import AttachingEngine
from browsercloud.errors import InvalidRequest, UsageError
from browsercloud.options import Dimensions, SessionOptions
from browsercloud.server.records import first_record
from browsercloud.stores.seal import Seal
from browsercloud.testing import IdleEngine
from browsercloud.wanted import OWN_HEADERS
from browsercloud.wire import dump, read, read_create

SECRET = "s3cret"


@pytest.mark.parametrize(
    ("body", "path", "reason"),
    [
        ({"deviceConfig": {"device": "tv"}}, "deviceConfig", "one of desktop, mobile"),
        ({"deviceConfig": {"tilt": 1}}, "deviceConfig.tilt", "unknown field"),
        ({"deviceConfig": "mobile"}, "deviceConfig", "must be an object"),
        ({"locale": "qq-QQ"}, "locale", "such as de or pt-BR"),
        ({"locale": "english"}, "locale", "such as de or pt-BR"),
        ({"timezone": "Mars/Olympus"}, "timezone", "such as Europe/Berlin"),
        ({"geoLocation": "XX"}, "geoLocation", "such as US, or coordinates"),
        ({"geoLocation": "us"}, "geoLocation", "two capital letters"),
        ({"geoLocation": {"latitude": 91, "longitude": 0}}, "geoLocation.latitude", "-90 and 90"),
        ({"geoLocation": {"latitude": 1}}, "geoLocation.longitude", "required"),
        ({"extraHeaders": {"User-Agent": SECRET}}, "extraHeaders", "use user_agent"),
        ({"extraHeaders": {"a b": SECRET}}, "extraHeaders", "no name of a header"),
        ({"extraHeaders": {"X": f"{SECRET}\r\nY: 1"}}, "extraHeaders", "printable ASCII"),
        ({"extraHeaders": {"X": SECRET, "x": SECRET}}, "extraHeaders", "twice"),
        ({"permissions": ["fly"]}, "permissions", "must be one of accelerometer"),
        ({"permissions": "camera"}, "permissions", "must be a list"),
        ({"startUrl": f"file:///{SECRET}"}, "startUrl", "must be http://"),
        ({"startUrl": f"http://a/{SECRET} x"}, "startUrl", "blanks written %20"),
        ({"startUrl": f"chrome://{SECRET}"}, "startUrl", "must be http://"),
    ],
)
def test_a_bad_wish_is_refused(body: dict[str, Any], path: str, reason: str) -> None:
    """Before anything is begun, and without a word of what may be secret."""
    with pytest.raises(InvalidRequest) as caught:
        read_create(body)
    (problem,) = caught.value.details
    assert path == problem["path"]
    assert reason in problem["reason"]
    assert SECRET not in str(caught.value)


@pytest.mark.parametrize("name", [*OWN_HEADERS, "Sec-CH-UA", "Proxy-Authorization"])
def test_headers_that_the_browser_writes_are_refused(name: str) -> None:
    """In any spelling."""
    for spelling in (name, name.upper()):
        with pytest.raises(InvalidRequest, match="written by the browser itself"):
            read_create({"extraHeaders": {spelling: "x"}})


def test_secrets_are_shown_nowhere() -> None:
    """Not in a repr, and in the record only by name and place; sealed where they are kept."""
    given = {"extraHeaders": {"X-Key": SECRET}, "startUrl": f"https://example.com/?t={SECRET}"}
    request = read_create(given)
    record = first_record(request)
    assert {"X-Key": "…"} == record.config["extraHeaders"]
    assert "https://example.com/…" == record.config["startUrl"]
    assert SECRET not in repr(request) + repr(record) + json.dumps(dump(record))
    seal = Seal(b"key")
    kept = seal.close(dump(request))
    assert SECRET not in json.dumps(kept)
    assert dump(request) == seal.open(kept)
    assert SECRET not in json.dumps(Seal(None).close(dump(request)))


def test_the_record_says_what_came_of_it() -> None:
    """The size that the device has, if none was given."""
    record = first_record(read_create({"deviceConfig": {"device": "mobile"}}))
    assert (Device.MOBILE, Dimensions(412, 915)) == (record.device, record.dimensions)
    assert {"device": "mobile"} == dump(record)["deviceConfig"]


def test_other_peoples_browsers_have_their_own_look() -> None:
    """What only our own are told is refused there by name."""
    wishes = {
        "deviceConfig": {"device": "mobile"},
        "locale": "de",
        "timezone": "Asia/Tokyo",
        "geoLocation": "US",
        "extraHeaders": {"X-Key": "x"},
        "permissions": ["midi"],
        "startUrl": "about:blank",
    }
    attaching = AttachingEngine(IdleEngine(), allowed=True)
    own = {"customWebSocketUrl": "ws://example.com/"}
    refused = attaching.refuses(read({**wishes, **own}, SessionOptions))
    assert set(wishes) == {name for name, _ in refused}
    assert [] == attaching.refuses(read(own, SessionOptions))
    there = testmu.TestMuEngine("user", "key").refuses(read(wishes, SessionOptions))
    assert set(wishes) == {name for name, _ in there}


def test_a_client_carries_defaults() -> None:
    """A session's options outrank them, and single ones those; bad ones are refused at once."""
    client = BrowserCloud(defaults={"geo_location": "US", "device": "mobile", "timeout": 60})
    assert SessionOptions(geo_location="US", device=Device.MOBILE, timeout=60) == client.defaults  # type: ignore[arg-type]
    point = Coordinates(latitude=1, longitude=2)
    session = client.session(SessionOptions(locale="de"), geo_location=point, timeout=5)
    wanted = session._options
    assert ("de", point, 5, Device.MOBILE) == (
        wanted.locale,
        wanted.geo_location,
        wanted.timeout,
        wanted.device,
    )
    assert "US" == client.session()._options.geo_location
    ready = SessionOptions(locale="fr")
    assert ready is BrowserCloud(defaults=ready).defaults
    with pytest.raises(InvalidRequest, match="locale"):
        BrowserCloud(defaults={"locale": "qq-QQ"})
    with pytest.raises(UsageError, match="no such option"):
        BrowserCloud(defaults={"colour": "red"})
    with pytest.raises(UsageError, match="a mapping"):
        BrowserCloud(defaults=5)  # type: ignore[arg-type]
