"""vLLM's Prometheus series (those used for health and scaling), moved only by what the simulator really does."""

from __future__ import annotations

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, generate_latest

from hack.engine_sim.blocks import BLOCK_TOKENS, CAPACITY_BLOCKS

_ITERATION_BUCKETS = (1, 8, 16, 32, 64, 128, 256, 512, 1024, 2048, 4096, 8192, 16384)
_SECONDS = (0.001, 0.005, 0.01, 0.02, 0.04, 0.06, 0.08, 0.1, 0.25, 0.5, 0.75, 1, 2.5, 5, 7.5, 10, 20, 40, 80, 160, 640)
_LABELS = ("model_name", "engine")
FINISH_REASONS = ("stop", "length", "abort", "error", "repetition")


class Metrics:
    """All series of one engine; those with fixed labels exist from the start, as in vLLM."""

    def __init__(self, model_name: str):
        self.registry = CollectorRegistry()
        self._names = (model_name, "0")
        self.running = self._gauge("num_requests_running", "Requests in model execution batches.")
        self.waiting = self._gauge("num_requests_waiting", "Requests waiting to be processed.")
        by_reason = Gauge(
            "vllm:num_requests_waiting_by_reason",
            "Waiting requests by reason.",
            (*_LABELS, "reason"),
            registry=self.registry,
        )
        self.waiting_capacity = by_reason.labels(*self._names, "capacity")
        self.waiting_deferred = by_reason.labels(*self._names, "deferred")
        self.kv_usage = self._gauge("kv_cache_usage_perc", "KV-cache usage. 1 means 100 percent usage.")
        cache = Gauge(
            "vllm:cache_config_info",
            "Information of the LLMEngine CacheConfig",
            ("engine", "block_size", "num_gpu_blocks"),
            registry=self.registry,
        )
        cache.labels("0", str(BLOCK_TOKENS), str(CAPACITY_BLOCKS)).set(1)
        sleep = Gauge(
            "vllm:engine_sleep_state", "Engine sleep state.", (*_LABELS, "sleep_state"), registry=self.registry
        )
        for state in ("awake", "weights_offloaded", "discard_all"):
            sleep.labels(*self._names, state).set(state == "awake")
        self.prefix_queries = self._counter("prefix_cache_queries", "Prefix cache queries, in tokens.")
        self.prefix_hits = self._counter("prefix_cache_hits", "Prefix cache hits, in tokens.")
        self.mm_queries = self._counter("mm_cache_queries", "Multi-modal cache queries, in items.")
        self.mm_hits = self._counter("mm_cache_hits", "Multi-modal cache hits, in items.")
        self.preemptions = self._counter("num_preemptions", "Cumulative number of preemptions.")
        self.prompt_tokens = self._counter("prompt_tokens", "Number of prefill tokens processed.")
        self.generation_tokens = self._counter("generation_tokens", "Number of generation tokens processed.")
        success = Counter(
            "vllm:request_success",
            "Successfully processed requests.",
            (*_LABELS, "finished_reason"),
            registry=self.registry,
        )
        self.finished = {reason: success.labels(*self._names, reason) for reason in FINISH_REASONS}
        rejections = Counter(
            "vllm:admission_rejections",
            "Requests refused because the queue was full.",
            ("model_name", "reason"),
            registry=self.registry,
        )
        self.rejected_requests = rejections.labels(model_name, "max_num_queued_reqs")
        rejections.labels(model_name, "max_num_queued_tokens")
        self.iteration_tokens = self._histogram("iteration_tokens_total", "Tokens per engine step.", _ITERATION_BUCKETS)
        self.first_token_seconds = self._histogram("time_to_first_token_seconds", "Time to first token.")
        self.inter_token_seconds = self._histogram("inter_token_latency_seconds", "Time between tokens.")
        self.request_seconds = self._histogram("e2e_request_latency_seconds", "End to end request latency.")
        self.queue_seconds = self._histogram("request_queue_time_seconds", "Time spent waiting.")
        self.http_requests = Counter(
            "http_requests", "Requests by method, status and handler.", ("method", "status", "handler"),
            registry=self.registry,
        )  # fmt: skip

    def exposition(self) -> bytes:
        """Return all series in Prometheus text format."""
        return generate_latest(self.registry)

    def _gauge(self, name: str, text: str) -> Gauge:
        return Gauge(f"vllm:{name}", text, _LABELS, registry=self.registry).labels(*self._names)

    def _counter(self, name: str, text: str) -> Counter:
        return Counter(f"vllm:{name}", text, _LABELS, registry=self.registry).labels(*self._names)

    def _histogram(self, name: str, text: str, buckets: tuple[float, ...] = _SECONDS) -> Histogram:
        return Histogram(f"vllm:{name}", text, _LABELS, registry=self.registry, buckets=buckets).labels(*self._names)
