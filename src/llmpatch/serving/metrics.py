"""What Prometheus reads at ``/metrics``.

    metrics = Metrics(desk, keeper)
    metrics.requests.labels("/v1/completions", "200").inc()
    metrics.render()

Numbers that somebody else keeps (rows, queue, swaps, canary) are read when they are asked for.
"""

from __future__ import annotations

from collections.abc import Iterator

from prometheus_client import CONTENT_TYPE_LATEST, CollectorRegistry, Counter, Histogram, generate_latest
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, Metric
from prometheus_client.registry import Collector

from llmpatch.serving.desk import Desk
from llmpatch.serving.keeper import Keeper

CONTENT_TYPE = CONTENT_TYPE_LATEST
MAX_LEVELS = 64
_SECONDS = (0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60, 120, 300)


class Metrics:
    """Counters of one server."""

    def __init__(self, desk: Desk, keeper: Keeper) -> None:
        self._levels: set[str] = set()
        self._registry = CollectorRegistry()
        self.requests = Counter(
            "llmpatch_requests", "Requests by path and status.", ["path", "status"], registry=self._registry
        )
        self.seconds = Histogram(
            "llmpatch_request_seconds", "Time to the end of a response.", ["path"], buckets=_SECONDS,
            registry=self._registry,
        )  # fmt: skip
        self.first_seconds = Histogram(
            "llmpatch_first_token_seconds", "Time to the first event of a stream.", buckets=_SECONDS,
            registry=self._registry,
        )  # fmt: skip
        self.answered = Counter(
            "llmpatch_answers", "Answered requests by patch level.", ["level"], registry=self._registry
        )
        self._registry.register(_Watched(desk, keeper))

    def count_answer(self, level: str) -> None:
        """One more answered request; requests may name any order of patches, and a label stays for ever."""
        if level not in self._levels and len(self._levels) >= MAX_LEVELS:
            level = "other"
        self._levels.add(level)
        self.answered.labels(level).inc()

    def render(self) -> bytes:
        """The text that Prometheus reads."""
        return generate_latest(self._registry)


class _Watched(Collector):
    def __init__(self, desk: Desk, keeper: Keeper) -> None:
        self.desk, self.keeper = desk, keeper

    def collect(self) -> Iterator[Metric]:
        desk, engine, check = self.desk, self.desk.engine, self.desk.check
        counts = engine.batch.counts
        yield from (
            _counter(
                "llmpatch_tokens_read", "Prompt tokens, those of the prefix cache included.", counts.prompt_tokens
            ),
            _counter("llmpatch_tokens_cached", "Prompt tokens out of the prefix cache.", counts.shared_tokens),
            _counter("llmpatch_tokens_written", "Tokens of answers.", counts.written_tokens),
            _counter("llmpatch_steps", "Steps of the batch.", counts.steps),
            _counter("llmpatch_step_failures", "Steps that failed.", engine.failures),
            _counter("llmpatch_swaps", "Changes of the active set.", desk.swapped),
            _counter("llmpatch_canary_runs", "Questions to the canary.", self.keeper.asked),
            _counter("llmpatch_canary_failures", "Times that it found a patch not applied.", self.keeper.failed),
            GaugeMetricFamily("llmpatch_rows", "Rows in use.", engine.busy),
            GaugeMetricFamily("llmpatch_row_limit", "Rows there are.", engine.limits.rows),
            GaugeMetricFamily("llmpatch_waiting", "Prompts that wait for a row.", engine.queued),
            GaugeMetricFamily("llmpatch_healthy", "1 if the canary's last word was good.", float(desk.healthy)),
            GaugeMetricFamily("llmpatch_store_generation", "Generation that is served.", desk.generation),
            GaugeMetricFamily(
                "llmpatch_store_trouble", "1 if the store cannot be followed.", float(bool(desk.trouble))
            ),
        )
        if check is not None:
            yield GaugeMetricFamily(
                "llmpatch_canary_delta", "Distance of what is served from what must be.", check.delta
            )
            yield GaugeMetricFamily(
                "llmpatch_canary_distance", "Distance of what is served from the base.", check.distance
            )
            yield GaugeMetricFamily("llmpatch_canary_time", "When it was asked, in seconds since 1970.", check.time)
        active = GaugeMetricFamily("llmpatch_active", "1 for the active patch level.", labels=["level"])
        active.add_metric([desk.active.level], 1)
        flying = GaugeMetricFamily("llmpatch_in_flight", "Prompts in flight by patch level.", labels=["level"])
        for level, number in engine.levels().items():
            flying.add_metric([level], number)
        yield active
        yield flying


def _counter(name: str, text: str, value: float) -> Metric:
    return CounterMetricFamily(name, text, value)
