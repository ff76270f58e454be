"""Parts of a job, scored by the workers of a Ray cluster: Ray Data hands out part numbers, files come back."""

import logging
import socket
from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
import ray
import ray.data
import ray.exceptions

from service.offline.errors import ClusterUnavailable
from service.offline.job import Job
from service.offline.parts import score_parts
from service.offline.scoring import BatchScorer

_SECONDS_TO_ANSWER = 10


def score_on_cluster(address: str, job: Job, parts: Sequence[int]) -> Iterator[tuple[int, bytes]]:
    """Each of `parts` with its parquet file, as workers of the cluster at `address` finish them.

    One worker per core of the cluster, or per GPU where the job's provider needs one, each with its own engine. They
    read the bundle and the source under the same paths as this process. Raises `ClusterUnavailable`.
    """
    if not parts:
        return
    _require_answer(address)
    try:
        with ray.init(address, logging_level=logging.WARNING):
            # There is a bar already, of inputs.
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


def _require_answer(address: str) -> None:
    """Ray itself goes on knocking for minutes."""
    host, _, port = address.rpartition(":")
    if not port.isdecimal():
        return
    try:
        socket.create_connection((host.removeprefix("ray://").strip("[]"), int(port)), _SECONDS_TO_ANSWER).close()
    except (OSError, OverflowError) as error:
        raise ClusterUnavailable(
            f"No Ray cluster answers at {address}: {error}. Name the address that `ray start --head` tells."
        ) from error


class _Worker:
    """One engine, and the parts that it scores."""

    def __init__(self, job: Job) -> None:
        self._job = job
        self._scorer = BatchScorer(job)

    def __call__(self, batch: dict[str, Any]) -> dict[str, Any]:
        parts = [int(part) for part in batch["part"]]
        files = [file for _, file in score_parts(self._job, self._scorer, parts, 1, lambda _: None)]
        return {"part": parts, "file": np.array(files, dtype=object)}
