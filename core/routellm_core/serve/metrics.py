"""Counts and times for Prometheus: requests, win rates, decisions and servers; nothing of a prompt or a key."""

from __future__ import annotations

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram
from prometheus_client.exposition import CONTENT_TYPE_LATEST, generate_latest

from routellm_core.policy.decision import RoutingDecision

_WIN_RATES = [i / 10 for i in range(1, 11)]
_DECISION_SECONDS = (0.0001, 0.00025, 0.0005, 0.001, 0.0025, 0.005, 0.01, 0.05, 0.1, 0.5, 1, 5)
_UPSTREAM_SECONDS = (0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60, 300)

CONTENT_TYPE = CONTENT_TYPE_LATEST.encode()


class Metrics:
    """The metrics of one server, apart from those of the program that it may be mounted in."""

    def __init__(self) -> None:
        self._registry = CollectorRegistry()
        self._requests = Counter(
            "routellm_requests",
            "Routed requests, by the side that answered.",
            ["side", "reason"],
            registry=self._registry,
        )
        self._win_rate = Histogram(
            "routellm_win_rate", "Win rates that routers predicted.", buckets=_WIN_RATES, registry=self._registry
        )
        self._deciding = Histogram(
            "routellm_decision_seconds",
            "Time from the complete request to the decision.",
            buckets=_DECISION_SECONDS,
            registry=self._registry,
        )
        self._upstream = Histogram(
            "routellm_upstream_seconds",
            "Time from sending a request to the beginning of its reply.",
            ["side"],
            buckets=_UPSTREAM_SECONDS,
            registry=self._registry,
        )
        self._failures = Counter(
            "routellm_failures",
            "Requests to a server that failed: an error status, a broken reply, or none.",
            ["side", "error"],
            registry=self._registry,
        )
        self._failovers = Counter(
            "routellm_failovers", "Requests that the other side answered.", ["failed"], registry=self._registry
        )
        self._refused = Counter(
            "routellm_refused", "Requests that this server refused.", ["status"], registry=self._registry
        )
        self.open = Gauge("routellm_open_requests", "Requests being served.", registry=self._registry)

    def decided(self, decision: RoutingDecision, seconds: float) -> None:
        """A request was decided on."""
        self._deciding.observe(seconds)
        if decision.win_rate is not None:
            self._win_rate.observe(decision.win_rate)

    def settled(self, side: str, decision: RoutingDecision) -> None:
        """It is certain which side answers, or that none does."""
        self._requests.labels(side, decision.reason).inc()

    def failed_over(self, side: str) -> None:
        """A side failed, and the other one answers."""
        self._failovers.labels(side).inc()

    def answered(self, side: str, seconds: float) -> None:
        """A reply began."""
        self._upstream.labels(side).observe(seconds)

    def failed(self, side: str, error: str) -> None:
        """A server failed."""
        self._failures.labels(side, error).inc()

    def refused(self, status: int) -> None:
        """This server refused a request."""
        self._refused.labels(str(status)).inc()

    def text(self) -> bytes:
        """All of it, in Prometheus' text format."""
        return generate_latest(self._registry)
