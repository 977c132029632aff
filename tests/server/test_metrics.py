"""What the server tells Prometheus."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import pytest
from prometheus_client.parser import text_string_to_metric_families

from browsercloud.engines.base import Usage
from browsercloud.models import ReleaseReason, SessionStatus
from browsercloud.server.metrics import Figures, Metrics
from browsercloud.server.traffic import Traffic
from browsercloud.testing import IdleEngine
from tests.server.conftest import KEY, OTHER_KEY, Cloud, StartCloud

FIGURES = Figures(sessions={"live": 2, "queued": 3}, line=3, slots=8, slots_in_use=2)


class TellingEngine(IdleEngine):
    """Tells what it was made with, or raises it."""

    def __init__(self, told: Mapping[str, Usage] | Exception) -> None:
        super().__init__()
        self.told = told

    async def usage(self) -> Mapping[str, Usage]:
        """That."""
        if isinstance(self.told, Exception):
            raise self.told
        return self.told


def metrics(**more: Any) -> Metrics:
    """Metrics of a server that does not exist."""
    given = {"figures": lambda: FIGURES, "engine": IdleEngine(), "traffic": Traffic()}
    return Metrics(**{**given, **more})


async def samples(source: Metrics | Cloud) -> dict[str, float]:
    """Every value by its name and labels, as Prometheus would read the page."""
    if isinstance(source, Metrics):
        text = (await source.page())[0].decode()
    else:
        async with source.http.get(f"{source.url}/metrics", headers={"x-api-key": KEY}) as reply:
            assert reply.status == 200
            assert reply.content_type == "text/plain"
            text = await reply.text()
    found = {}
    for family in text_string_to_metric_families(text):
        for sample in family.samples:
            labels = ",".join(f"{name}={value}" for name, value in sorted(sample.labels.items()))
            found[f"{sample.name}{{{labels}}}" if labels else sample.name] = sample.value
    return found


async def test_every_status_and_reason_is_there_from_the_start() -> None:
    """A graph of what has not happened yet shows 0, and a first time is an increase."""
    found = await samples(
        metrics(figures=lambda: Figures(sessions={}, line=0, slots=1, slots_in_use=0))
    )
    for status in SessionStatus:
        assert (found.get(f"browsercloud_sessions{{status={status}}}") == 0) is not status.ended
    for reason in ReleaseReason:
        assert found[f"browsercloud_sessions_ended_total{{reason={reason}}}"] == 0
    for code in ("no_capacity", "rate_limited", "shutting_down"):
        assert found[f"browsercloud_creates_refused_total{{code={code}}}"] == 0


async def test_what_happened_is_counted_and_timed() -> None:
    """Each of the four calls shows in its counter or histogram, in seconds."""
    told = metrics()
    told.created(0.2)
    told.created(2)
    told.waited(5)
    told.released(ReleaseReason.TIMEOUT, 0.3)
    told.refused("no_capacity")
    told.refused("conflict")
    found = await samples(told)
    assert found["browsercloud_create_seconds_count"] == 2
    assert found["browsercloud_create_seconds_sum"] == pytest.approx(2.2)
    assert found["browsercloud_create_seconds_bucket{le=0.2}"] == 1
    assert found["browsercloud_wait_seconds_sum"] == 5
    assert found["browsercloud_release_seconds_count"] == 1
    assert found["browsercloud_sessions_ended_total{reason=timeout}"] == 1
    assert found["browsercloud_sessions_ended_total{reason=shutdown}"] == 0
    assert found["browsercloud_creates_refused_total{code=no_capacity}"] == 1
    assert found["browsercloud_creates_refused_total{code=conflict}"] == 1


async def test_gauges_are_read_when_they_are_looked_at() -> None:
    """Line, slots, traffic and what the browsers use, summed over sessions."""
    traffic = Traffic(bytes_in=1, bytes_out=2, messages_in=3, messages_out=4)
    used = {"a": Usage(processes=5, memory=100), "b": Usage(processes=6, memory=1)}
    told = metrics(traffic=traffic, engine=TellingEngine(used))
    found = await samples(told)
    assert found["browsercloud_sessions{status=live}"] == 2
    assert found["browsercloud_sessions{status=starting}"] == 0
    assert found["browsercloud_line_length"] == 3
    assert (found["browsercloud_slots"], found["browsercloud_slots_in_use"]) == (8, 2)
    assert found["browsercloud_gateway_bytes_total{direction=in}"] == 1
    assert found["browsercloud_gateway_bytes_total{direction=out}"] == 2
    assert found["browsercloud_gateway_messages_total{direction=in}"] == 3
    assert found["browsercloud_gateway_messages_total{direction=out}"] == 4
    assert found["browsercloud_browser_processes"] == 11
    assert found["browsercloud_browser_memory_bytes"] == 101
    assert found["process_resident_memory_bytes"] > 2**20
    traffic.bytes_in += 41
    assert (await samples(told))["browsercloud_gateway_bytes_total{direction=in}"] == 42


async def test_an_engine_that_fails_hides_nothing_else() -> None:
    """What it would have told is left out; a 0 would be a lie."""
    found = await samples(metrics(engine=TellingEngine(OSError("no /proc"))))
    assert "browsercloud_browser_processes" not in found
    assert found["browsercloud_slots"] == 8


async def test_two_servers_in_one_process_do_not_add_up() -> None:
    """Each has a registry of its own."""
    one, other = metrics(), metrics()
    one.refused("no_capacity")
    name = "browsercloud_creates_refused_total{code=no_capacity}"
    assert ((await samples(one))[name], (await samples(other))[name]) == (1, 0)


async def test_openmetrics_for_those_who_ask() -> None:
    """The newer form, as Prometheus itself prefers it, ends with its mark."""
    body, kind = await metrics().page("application/openmetrics-text; version=1.0.0")
    assert kind.startswith("application/openmetrics-text")
    assert body.endswith(b"# EOF\n")


async def test_a_server_tells_its_sessions(start_cloud: StartCloud) -> None:
    """Live ones, the engine's room, and what its browsers use."""
    cloud = await start_cloud(IdleEngine(room=7))
    await cloud.create()
    await cloud.create()
    found = await samples(cloud)
    assert found["browsercloud_sessions{status=live}"] == 2
    assert (found["browsercloud_slots"], found["browsercloud_slots_in_use"]) == (7, 2)
    assert found["browsercloud_browser_processes"] == 2
    assert found["browsercloud_browser_memory_bytes"] == 2 * 2**20
    await cloud.call("DELETE", "/v1/sessions")
    assert (await samples(cloud))["browsercloud_sessions{status=live}"] == 0


async def test_no_label_names_a_session_or_project(cloud: Cloud) -> None:
    """The set of series does not grow with use, and one project learns no name of another."""
    before = (await samples(cloud)).keys()
    record = await cloud.create(name="a-name", metadata={"team": "a-label"})
    await cloud.call("POST", "/v1/sessions", key=OTHER_KEY)
    after = await samples(cloud)
    assert before == after.keys()
    words = " ".join(after)
    assert not [word for word in (record["id"], "a-name", "a-label", "other") if word in words]


async def test_metrics_ask_for_a_key(cloud: Cloud) -> None:
    """As all else: a server that is open to others must not tell everyone how busy it is."""
    for key in (None, "wrong"):
        status, answer = await cloud.call("GET", "/metrics", key=key)
        assert (status, answer["error"]["code"]) == (401, "not_authorized")
    token = cloud.token(await cloud.create())
    status, _ = await cloud.call("GET", f"/metrics?token={token}", key=None)
    assert status == 401
