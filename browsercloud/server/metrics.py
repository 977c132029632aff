"""What the server tells Prometheus: counts of what happened, and how things are at the moment.

Labels take few values that are known beforehand: no session, key or project is ever one.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Iterator, Mapping

from attrs import frozen
from prometheus_client import CollectorRegistry, Counter, Histogram, ProcessCollector
from prometheus_client.exposition import choose_encoder
from prometheus_client.metrics_core import CounterMetricFamily, GaugeMetricFamily, Metric
from prometheus_client.registry import Collector

from browsercloud.engines.base import Engine, Usage
from browsercloud.models import ReleaseReason, SessionStatus
from browsercloud.server.traffic import Traffic

log = logging.getLogger(__name__)

USAGE_PATIENCE = 5.0
"""How long the engine may take to tell what its browsers use, in seconds."""

REFUSALS = ("no_capacity", "rate_limited", "shutting_down")
"""Codes that are there from the start, with 0; others appear with their first refusal."""

_CREATE = (0.025, 0.05, 0.1, 0.2, 0.3, 0.5, 0.75, 1, 1.5, 2, 3, 5, 10, 20, 30, 60, 120)
_WAIT = (0.01, 0.05, 0.1, 0.5, 1, 2, 5, 10, 20, 30, 60, 120, 300, 600)
_RELEASE = (0.01, 0.025, 0.05, 0.1, 0.2, 0.3, 0.5, 1, 2, 3, 5, 10, 20)


@frozen(kw_only=True)
class Figures:
    """How things are at the moment."""

    sessions: Mapping[str, int]
    """Sessions that have not ended, by status; a status that is missing has none."""

    line: int
    """Creates that wait for their turn."""

    slots: int
    """For how many sessions there is room."""

    slots_in_use: int


class Metrics:
    """Counts and times of one server, and the page that shows them.

    *figures* and *engine* are asked at each look; *traffic* is that of all sessions together, ended
    ones too.
    """

    def __init__(
        self,
        *,
        figures: Callable[[], Figures],
        engine: Engine,
        traffic: Traffic,
    ) -> None:
        self._engine = engine
        # Of its own: two servers in one process must not add up, nor meet names of the program.
        self._registry = registry = CollectorRegistry()
        self._create = Histogram(
            "browsercloud_create_seconds",
            "From the arrival of a create until the session was live.",
            buckets=_CREATE,
            registry=registry,
        )
        self._wait = Histogram(
            "browsercloud_wait_seconds",
            "Time that a create spent in the line.",
            buckets=_WAIT,
            registry=registry,
        )
        self._release = Histogram(
            "browsercloud_release_seconds",
            "From the beginning of a session's close to its end.",
            buckets=_RELEASE,
            registry=registry,
        )
        self._ended = Counter(
            "browsercloud_sessions_ended_total",
            "Sessions that have ended.",
            ["reason"],
            registry=registry,
        )
        self._refused = Counter(
            "browsercloud_creates_refused_total",
            "Creates that were refused.",
            ["code"],
            registry=registry,
        )
        for reason in ReleaseReason:
            self._ended.labels(str(reason))
        for code in REFUSALS:
            self._refused.labels(code)
        self._now = _Now(figures, traffic)
        registry.register(self._now)
        ProcessCollector(registry=registry)

    def created(self, seconds: float) -> None:
        """A session is live, so long after its create arrived."""
        self._create.observe(seconds)

    def waited(self, seconds: float) -> None:
        """A create has left the line, for whatever reason, after so long."""
        self._wait.observe(seconds)

    def released(self, reason: str, seconds: float) -> None:
        """A session has ended; its close took so long."""
        self._ended.labels(str(reason)).inc()
        self._release.observe(seconds)

    def refused(self, code: str) -> None:
        """A create was refused with this code of the contract."""
        self._refused.labels(code).inc()

    async def page(self, accept: str = "") -> tuple[bytes, str]:
        """The page, and its content type: OpenMetrics if *accept* asks for it.

        What the browsers use is left out when the engine does not tell it in time.
        """
        usage: Mapping[str, Usage] | None = None
        try:
            async with asyncio.timeout(USAGE_PATIENCE):
                usage = await self._engine.usage()
        except Exception as error:
            # All the rest is worth having, above all when something is wrong.
            log.error("the engine does not tell what its browsers use: %r", error)
        # Nothing awaits from here on, so that no other look comes between.
        self._now.usage = usage
        encode, content_type = choose_encoder(accept)
        return encode(self._registry), content_type


class _Now(Collector):
    """Reads what changes by itself at the moment of a look."""

    def __init__(self, figures: Callable[[], Figures], traffic: Traffic) -> None:
        self._figures = figures
        self._traffic = traffic
        self.usage: Mapping[str, Usage] | None = None

    def describe(self) -> Iterator[Metric]:
        """Nothing: otherwise all would be read once for their names, before the server is made."""
        yield from ()

    def collect(self) -> Iterator[Metric]:
        """Every gauge, and the gateway's counters."""
        yield from self._of_sessions(self._figures())
        yield from self._of_the_gateway()
        if self.usage is not None:
            yield from self._of_browsers(self.usage)

    def _of_sessions(self, figures: Figures) -> Iterator[Metric]:
        sessions = GaugeMetricFamily(
            "browsercloud_sessions", "Sessions that have not ended.", labels=["status"]
        )
        for status in SessionStatus:
            if not status.ended:
                sessions.add_metric([status], figures.sessions.get(status, 0))
        yield sessions
        yield GaugeMetricFamily(
            "browsercloud_line_length", "Creates that wait for their turn.", figures.line
        )
        yield GaugeMetricFamily(
            "browsercloud_slots", "For how many sessions there is room.", figures.slots
        )
        yield GaugeMetricFamily(
            "browsercloud_slots_in_use", "How much of that is taken.", figures.slots_in_use
        )

    def _of_the_gateway(self) -> Iterator[Metric]:
        traffic = self._traffic
        size = CounterMetricFamily(
            "browsercloud_gateway_bytes",
            "Payload of CDP and WebDriver; in is to the browser.",
            labels=["direction"],
        )
        messages = CounterMetricFamily(
            "browsercloud_gateway_messages",
            "Messages of CDP and WebDriver; in is to the browser.",
            labels=["direction"],
        )
        size.add_metric(["in"], traffic.bytes_in)
        size.add_metric(["out"], traffic.bytes_out)
        messages.add_metric(["in"], traffic.messages_in)
        messages.add_metric(["out"], traffic.messages_out)
        yield size
        yield messages

    def _of_browsers(self, usage: Mapping[str, Usage]) -> Iterator[Metric]:
        yield GaugeMetricFamily(
            "browsercloud_browser_processes",
            "Processes of all browsers.",
            sum(each.processes for each in usage.values()),
        )
        yield GaugeMetricFamily(
            "browsercloud_browser_memory_bytes",
            "Memory of all browsers; shared pages are counted once (PSS).",
            sum(each.memory for each in usage.values()),
        )
