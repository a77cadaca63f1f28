"""What Prometheus reads: the counters, in its text format, on an address of their own. docs/metrics.md lists the names.

No metric has an asset as a label: a fleet has too many. The health of one asset is asked of `grpc.health.v1`.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass

from prometheus_client import CollectorRegistry, PlatformCollector, ProcessCollector, start_http_server
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, HistogramMetricFamily, Metric
from prometheus_client.registry import Collector
from wheeltapper.errors import CommandError

from wheeltapper_scorer.counters import BLOCK_SECONDS, HEALTH_NAMES, STATUS_NAMES, Counters
from wheeltapper_scorer.settings import host_and_port

_PREFIX = "wheeltapper_scorer_"


@dataclass(frozen=True, slots=True)
class Gauges:
    """How the scorer stands now."""

    ready: bool
    journal_failing: bool  # nothing can be made durable
    release: int
    streams: int
    blocks_waiting: int
    wait_seconds: float
    assets: dict[str, int]  # by class: held in windows
    silent: dict[str, int]  # by class: of them, without a recent reading
    blocked: dict[str, int]  # by class: of them, switched off


class Exposition(Collector):
    """Counters and gauges as metric families, read when Prometheus asks."""

    def __init__(self, counters: Counters, gauges: Callable[[], Gauges]) -> None:
        self._counters = counters
        self._gauges = gauges

    def describe(self) -> list[Metric]:
        """Nothing yet: registering must not ask a scorer that is still starting."""
        return []

    def collect(self) -> Iterator[Metric]:
        counters = self._counters
        yield _total("streams_opened", "Streams that began.", counters.streams)
        yield _total("calls", "Score calls that began.", counters.calls)
        yield _total("blocks", "Blocks answered.", counters.blocks)
        yield _total("faults", "Calls ended by an error of the scorer's own.", counters.faults)
        yield _total("expired", "Blocks given up before the kernel, because the caller's deadline had passed.",
                     counters.expired)  # fmt: skip
        yield _total("revisions", "Rows scored again because a late row changed their window.", counters.revisions)
        yield _labelled("rows", "Rows answered, by RowStatus.", "status", _known(STATUS_NAMES, counters.rows))
        yield _labelled("unhealthy_rows", "Rows answered with a Health bit, by bit.", "health",
                        _known(HEALTH_NAMES, counters.health))  # fmt: skip
        yield _labelled("refused", "Streams and calls ended with an error, by reason.", "reason", counters.reasons)
        yield _total("journal_failures", "Times the journal's disk failed.", counters.journal_failures)
        yield _total("journal_skipped", "Blocks scored and not kept, because the journal's disk failed.",
                     counters.journal_skipped)  # fmt: skip
        yield _total("snapshots", "Snapshots finished.", counters.snapshots)
        results = {"done": counters.reloads, "failed": counters.reloads_failed}
        yield _labelled("reloads", "Looks that found another release, by result.", "result", results)
        bounds = [*(f"{bound:g}" for bound in BLOCK_SECONDS), "+Inf"]
        cumulative = counters.block_seconds.cumsum().tolist()
        yield HistogramMetricFamily(
            f"{_PREFIX}block_seconds",
            "Seconds to answer a block, without waiting for its turn.",
            buckets=list(zip(bounds, cumulative, strict=True)),
            sum_value=counters.block_seconds_sum,
        )
        now = self._gauges()
        yield _now("ready", "1 while new streams are taken, 0 while draining.", int(now.ready))
        yield _now("journal_failing", "1 while the journal's disk fails: blocks are scored, none is durable.",
                   int(now.journal_failing))  # fmt: skip
        yield _now("registry_age_seconds", "Since the registry was last read: promotions and switches are not heard.",
                   time.monotonic() - counters.looked_at)  # fmt: skip
        yield _now("release", "The release that answers; 0: a pack without a registry.", now.release)
        yield _now("streams", "Streams open now.", now.streams)
        yield _now("blocks_waiting", "Blocks that wait for their turn.", now.blocks_waiting)
        yield _now("wait_seconds", "How long blocks wait for their turn.", now.wait_seconds)
        for name, text, by_class in (
            ("assets", "Assets held in windows.", now.assets),
            ("assets_silent", "Assets without a recent reading: their last score is stale.", now.silent),
            ("assets_blocked", "Assets switched off by an operator.", now.blocked),
        ):
            family = GaugeMetricFamily(_PREFIX + name, text, labels=["asset_class"])
            for asset_class, count in by_class.items():
                family.add_metric([asset_class], count)
            yield family


def expose(listen: str, exposition: Exposition) -> tuple[str, Callable[[], None]]:
    """Serve the metrics at HOST:PORT from a thread; what it got, and how to stop. Raises CommandError."""
    host, port = host_and_port(listen)
    registry = CollectorRegistry()
    registry.register(exposition)
    ProcessCollector(registry=registry)
    PlatformCollector(registry=registry)
    try:
        server, thread = start_http_server(port, addr=host, registry=registry)
    except OSError as error:
        raise CommandError(f"cannot show metrics on {listen}: {error}", "another process may hold the port") from error

    def stop() -> None:
        server.shutdown()
        server.server_close()
        thread.join(5)

    shown = f"[{host}]" if ":" in host else host
    return f"{shown}:{server.server_port}", stop


def _total(name: str, text: str, value: float) -> Metric:
    return CounterMetricFamily(_PREFIX + name, text, value=value)


def _now(name: str, text: str, value: float) -> Metric:
    return GaugeMetricFamily(_PREFIX + name, text, value=value)


def _labelled(name: str, text: str, label: str, values: dict[str, int]) -> Metric:
    family = CounterMetricFamily(_PREFIX + name, text, labels=[label])
    for key, value in values.items():
        family.add_metric([key], value)
    return family


def _known(names: dict[int, str], counts: object) -> dict[str, int]:
    return {name: int(counts[number]) for number, name in names.items()}  # type: ignore[index]
