"""Scores parts of a job on a Ray cluster: Ray Data distributes part numbers, and workers return parquet files."""

import logging
import socket
from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
import ray
import ray.data
import ray.exceptions

from service.offline.batch_scorer import BatchScorer
from service.offline.errors import ClusterUnavailable
from service.offline.job import Job
from service.offline.parts import score_parts

_CONNECT_TIMEOUT_SECONDS = 10


def score_on_cluster(address: str, job: Job, parts: Sequence[int]) -> Iterator[tuple[int, bytes]]:
    """Score parts of `job` on one worker per core of the cluster, or per GPU if the job's provider needs one.

    The workers have separate engines, and read the bundle and the source under the same paths as this process.

    Args:
        address: The cluster's address.
        job: The run.
        parts: The numbers of the parts.

    Yields:
        Each part with its parquet file, in the order in which the workers finish.

    Raises:
        ClusterUnavailable: The cluster cannot be reached, or it failed.
    """
    if not parts:
        return
    _require_reachable(address)
    try:
        with ray.init(address, logging_level=logging.WARNING):
            # The command shows its own progress bar, which counts inputs.
            logging.getLogger("ray.data").setLevel(logging.ERROR)
            ray.data.DataContext.get_current().enable_progress_bars = False
            on_cpu = job.provider == "cpu"
            slots = ray.cluster_resources().get("CPU" if on_cpu else "GPU", 0)  # type: ignore[no-untyped-call]  # Ray's gap
            scored = ray.data.from_items(
                [{"part": part} for part in parts], override_num_blocks=len(parts)
            ).map_batches(
                _Worker,
                fn_constructor_args=(job,),
                batch_size=1,
                compute=ray.data.ActorPoolStrategy(size=max(1, min(len(parts), int(slots)))),
                num_cpus=1 if on_cpu else None,
                num_gpus=None if on_cpu else 1,
            )
            for row in scored.iter_rows():
                yield int(row["part"]), row["file"]
    except (ConnectionError, ray.exceptions.RayError) as error:
        raise ClusterUnavailable(f"The Ray cluster at {address} failed: {error}") from error


def _require_reachable(address: str) -> None:
    """Fail within seconds if nothing listens at `address`; Ray would retry for minutes."""
    host, _, port = address.rpartition(":")
    if not port.isdecimal():
        return
    try:
        socket.create_connection((host.removeprefix("ray://").strip("[]"), int(port)), _CONNECT_TIMEOUT_SECONDS).close()
    except (OSError, OverflowError) as error:
        raise ClusterUnavailable(
            f"No Ray cluster answers at {address}: {error}. Name the address that `ray start --head` prints."
        ) from error


class _Worker:
    """A Ray actor that scores parts with one engine."""

    def __init__(self, job: Job) -> None:
        self._job = job
        self._scorer = BatchScorer(job)

    def __call__(self, batch: dict[str, Any]) -> dict[str, Any]:
        parts = [int(part) for part in batch["part"]]
        files = [file for _, file in score_parts(self._job, self._scorer, parts, 1, lambda _: None)]
        return {"part": parts, "file": np.array(files, dtype=object)}
