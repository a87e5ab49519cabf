"""What ``/metrics`` says: Prometheus counters of one service."""

from __future__ import annotations

from collections.abc import Sequence

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, ProcessCollector

from tunetrail.serving.models import Model

_SECONDS = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30)
_ROWS = (1, 2, 4, 8, 16, 32, 64, 128, 256, 512)


class Metrics:
    """Counters of one service. They hold numbers, paths and names, no text of a request."""

    def __init__(self) -> None:
        self.registry = registry = CollectorRegistry()
        ProcessCollector(registry=registry)
        self.responses = Counter(
            "tunetrail_serve_responses",
            "Responses, by path and status.",
            ["path", "status"],
            registry=registry,
        )
        self.seconds = Histogram(
            "tunetrail_serve_response_seconds",
            "From the head of a request to the end of its response.",
            ["path"],
            buckets=_SECONDS,
            registry=registry,
        )
        self.rows = Counter(
            "tunetrail_serve_rows", "Rows that were predicted.", ["name"], registry=registry
        )
        self.batch_rows = Histogram(
            "tunetrail_serve_batch_rows", "Rows of a batch.", buckets=_ROWS, registry=registry
        )
        self.batch_seconds = Histogram(
            "tunetrail_serve_batch_seconds",
            "A batch in the model.",
            buckets=_SECONDS,
            registry=registry,
        )
        self.waiting = Gauge(
            "tunetrail_serve_waiting_rows", "Rows that wait for the model.", registry=registry
        )
        self.loads = Counter(
            "tunetrail_serve_loads",
            "Models loaded, or refused while another was served.",
            ["outcome"],
            registry=registry,
        )
        self._model = Gauge(
            "tunetrail_serve_model_info",
            "1 for each model that is served.",
            ["name", "version", "sha256"],
            registry=registry,
        )

    def computed(self, model: Model, rows: int, seconds: float) -> None:
        """Count a batch."""
        self.rows.labels(model.name).inc(rows)
        self.batch_rows.observe(rows)
        self.batch_seconds.observe(seconds)

    def serves(self, models: Sequence[Model]) -> None:
        """Say which models there are from now on."""
        self.loads.labels("loaded").inc(len(models))
        self._model.clear()
        for model in models:
            self._model.labels(model.name, model.version or "", model.sha256).set(1)
