"""Ray Serve: a replica per core behind its HTTP proxy, in the high-throughput mode of its documentation."""

import asyncio
import os
import signal

# Set before the import: Ray reads them then, and its processes inherit them.
os.environ["RAY_SERVE_THROUGHPUT_OPTIMIZED"] = "1"
os.environ["RAY_SERVE_ENABLE_HA_PROXY"] = "1"
os.environ["RAY_USAGE_STATS_ENABLED"] = "0"

import ray
from ray import serve
from scorer import MAX_BATCH, PORT, THREADS, WORKERS, Scorer
from starlette.requests import Request


# `max_ongoing_requests` must allow one batch to form while another one is computed; the default is 5.
@serve.deployment(num_replicas=WORKERS, max_ongoing_requests=2 * MAX_BATCH, ray_actor_options={"num_cpus": THREADS})
class Scoring:
    def __init__(self) -> None:
        self._scorer = Scorer()

    # No timer: a batch consists of the requests that arrived while the previous one was computed.
    @serve.batch(max_batch_size=MAX_BATCH, batch_wait_timeout_s=0)
    async def score(self, bodies: list[bytes]) -> list[float]:
        return await asyncio.to_thread(self._scorer.score, bodies)

    async def __call__(self, request: Request) -> dict[str, float]:
        return {"msp": await self.score(await request.body())}


if __name__ == "__main__":
    ray.init(num_cpus=WORKERS * THREADS, include_dashboard=False, object_store_memory=100 * 2**20)
    serve.start(http_options={"host": "127.0.0.1", "port": PORT})
    serve.run(Scoring.bind(), route_prefix="/score")
    signal.pause()
