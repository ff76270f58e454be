"""The engine: one bundle's ONNX graph in ONNX Runtime, checked against its manifest."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import astuple, replace
from functools import cache
from typing import Any

import numpy as np
import onnxruntime
import structlog
from numpy.typing import NDArray

from bundle import Bundle
from service.inference.batch_tuning import BatchPlan, batch_sizes, best_of, throughput, tune_batch_size
from service.inference.cuda_graphs import CudaGraphRunner
from service.inference.external_data import external_files
from service.inference.providers import CPU, CUDA, Provider, ProviderUnavailable
from service.inputs.explanation import PARTS
from service.inputs.modalities import modality_of
from service.inputs.modality import Array

log = structlog.stdlib.get_logger(__name__)

TunedPlan = tuple[int, float, float, int]
"""A pace, and how many streams of it the machine has."""
Memo = Callable[[Callable[[], TunedPlan]], TunedPlan]

PREDICTION = "prediction"
PROBABILITY = "probability"

# How far a row may be from what its input gives alone: kernels of other batch sizes round otherwise, in half precision
# by some thousandths. What a forgotten mask changes is larger.
_ROW_TOLERANCE = {"rtol": 0.02, "atol": 0.01}

INLINE_MAX_SECONDS = 1e-4
"""Of a CPU, for an input of an image model that is run on the spot.

On another thread it would wait for the interpreter's lock longer than that, and so would its outputs on their way back.
"""

_TRIALS = 2

# While it is tried nothing else computes. Under load the event loop takes a core again and again, and the others that
# share a batch wait for it: at concurrency 32 on two cores a GRU got 301-398 texts/s by one stream of both cores and
# 429-538 by two of one; WRN-40-2, for which the trial could go either way, as many by either.
_WORTH_SHARING = 1.15

# A batch that is run on the spot takes at most so long: the event loop stands still.
_TURN_SECONDS = 1e-3

# Threads that wait must not spin for long: the event loop and other models need the cores, and one that waits for a
# thread without a core would take its own. With ONNX Runtime's default WRN-40-2 had 0.77 of ONNX Runtime alone at
# concurrency 32 on two cores, and 0.85 without spinning; but then threads that share a call are woken up for each of
# its layers. The few microseconds that a layer's parts differ by are enough: a lone request takes 2.0 ms, 2.8 without;
# at 150 a second, 5 ms apart, p50 and p99 are 3.6 and 6.4 ms (4.5 and 5.6 without; 3.5 and 18 with spinning until a
# call ends).
_SESSION_CONFIG = {
    "session.intra_op.allow_spinning": "1",
    "session.intra_op.spin_duration_us": "10",
    "session.force_spinning_stop": "1",
}


class EngineError(Exception):
    """The bundle's graph cannot be served; the message names the file, the reason and the remedy."""

    def __init__(self, bundle: Bundle, reason: str, remedy: str) -> None:
        super().__init__(f"{bundle.manifest.model}: {reason}. {remedy}.")


class Engine:
    """Runs batches of one model. `modality` is what it takes, `provider` the one that the session really got.

    `streams` is how many threads should call `run` at a time under load; `warm_up` finds it out. On a CPU it may be one
    for each core, each computing with one thread: cores that share one batch wait for each other after every layer,
    and for the core that also answers requests most of all. It is 0 for a model that takes less time than to hand over
    to another thread and back: whoever has the inputs should call `run` at once. Each of several `workers` has a share.
    """

    def __init__(self, bundle: Bundle, provider: Provider, *, threads: int, workers: int = 1) -> None:
        """Load the graph. Raises `EngineError`, or `ProviderUnavailable` where a required provider cannot run it.

        `workers` is how many processes, this one among them, have such an engine on the same cores.
        """
        self._bundle = bundle
        self._wanted = provider
        self._threads = threads
        self._workers = workers
        self.streams = 1
        self.modality = modality_of(bundle)
        self._outputs = {score.name: score.output for score in bundle.manifest.scores}
        if bundle.manifest.task == "classification":
            self._outputs |= {PREDICTION: "prediction", PROBABILITY: "probability"}
        if bundle.manifest.likelihood is not None:
            self._outputs[PARTS] = bundle.manifest.likelihood.parts
        self._output_names = list(self._outputs.values())
        self._session = self._shared = self._open(threads)
        self._bound: CudaGraphRunner | None = None
        self.provider = str(self._session.get_providers()[0])
        if provider.required and self.provider != provider.first:
            raise ProviderUnavailable(
                f"{provider.first} is required, but ONNX Runtime could only open {bundle.model_path} with "
                f"{self.provider}; its own message above says why. Drivers and CUDA libraries must match."
            )
        if self.provider != provider.first:
            log.warning("provider fallback", model=bundle.manifest.name, wanted=provider.first, got=self.provider)
        self._check_signature()

    def run(self, items: Sequence[NDArray[Any]], *, exclusive: bool = True) -> Mapping[str, NDArray[Any]]:
        """Scores by name, float32 `[N]`, of N prepared inputs; a classifier's `prediction` and `probability` too.

        A likelihood's `parts` are `[N, ...]`: intermediate values of its score, which cost nothing to hand out.
        `exclusive` takes all cores, for a call beside which no other one runs; without it `streams` calls share them.
        """
        feed = self.modality.feed(items)
        if self._bound is not None:
            rows = self._bound.run(feed)
        else:
            session = self._session if exclusive else self._shared
            rows = session.run(self._output_names, feed)
        for name, row in zip(self._outputs, rows, strict=True):
            if row.shape[: 1 if name == PARTS else None] != (len(items),):
                output = self._outputs[name]
                raise ValueError(f"output {output!r} has shape {row.shape} for {len(items)} inputs, not [N]")
        return dict(zip(self._outputs, rows, strict=True))

    def warm_up(self, max_batch: int, longest_seconds: float = 0.25, memo: Memo = lambda learn: learn()) -> BatchPlan:
        """Run batches of up to `max_batch`: memory is planned, kernels are chosen, the contract is proven, speed known.

        The pace is that of each of the `streams`, with batches that take at most `longest_seconds`. It is measured
        inside `memo`, which may know it already of another worker's engine. Raises `EngineError` where the graph does
        not hold what its manifest says.
        """
        for size in sorted({1, max_batch}):
            for batch in self.modality.examples(size):
                self._try(batch)
        if self._wanted.graphs and self.provider == CUDA and self.modality.size_of is None:
            self._record_graphs(max_batch)
        if max_batch > 1:
            self._check_rows()
        most, seconds_per_input, positions, streams = memo(lambda: self._measure(max_batch, longest_seconds))
        if streams != 1 and self._threads > 1 and self._shared is self._session:
            # It was another worker's engine that tried both.
            self._shared = self._open(1)
        if streams == 0:
            self._session = self._shared
        self.streams = min(streams, max(1, streams // self._workers))
        return BatchPlan(most, seconds_per_input, positions)

    def _record_graphs(self, max_batch: int) -> None:
        """Compute by CUDA graphs from now on, where the model allows them and they give the scores that it gives."""
        sample_batch = cache(self.modality.sample_batch)
        sizes = batch_sizes(max_batch)
        one = self.modality.feed(sample_batch(1))
        outputs = dict(zip(self._output_names, self._session.run(self._output_names, one), strict=True))
        try:
            session = self._open(self._threads, graphs=True)
            bound = CudaGraphRunner(session, one, outputs, sizes, "cuda")
            for size in sizes:
                feed = self.modality.feed(sample_batch(size))
                own = self._session.run(self._output_names, feed)
                # The first call records, the second replays.
                for given in (bound.run(feed), bound.run(feed)):
                    if not all(map(_alike, own, given)):
                        raise ValueError(f"graphs give other scores for a batch of {size}")
        except Exception as error:
            log.warning("no CUDA graphs", model=self._bundle.manifest.name, reason=str(error))
        else:
            self._bound = bound

    def _measure(self, max_batch: int, longest_seconds: float) -> TunedPlan:
        pace = self._learn(max_batch, longest_seconds, exclusive=True)
        if self.provider != CPU:
            return *astuple(pace), 1
        shared = pace
        if self._threads > 1:
            self._shared = self._open(1)
            shared = self._learn(max_batch, longest_seconds, exclusive=False)
        if self.modality.size_of is None and shared.seconds_per_input <= INLINE_MAX_SECONDS:
            batch = min(shared.batch, int(_TURN_SECONDS / shared.seconds_per_input))
            return *astuple(replace(shared, batch=batch)), 0
        if self._threads == 1:
            return *astuple(pace), 1
        # In turns, and the best of each: what else the machine does should not decide.
        trials = [
            (self._per_second(pace, 1, exclusive=True), self._per_second(shared, self._threads, exclusive=False))
            for _ in range(_TRIALS)
        ]
        if max(whole for whole, _ in trials) > _WORTH_SHARING * max(several for _, several in trials):
            self._shared = self._session
            return *astuple(pace), 1
        return *astuple(shared), self._threads

    def _learn(self, max_batch: int, longest_seconds: float, *, exclusive: bool) -> BatchPlan:
        """The pace on typical inputs, with large ones bounded to batches that take no longer than it may, either."""
        # Kept: to make a batch is no part of what is measured.
        sample_batch = cache(self.modality.sample_batch)
        streams = 1 if exclusive else self._threads
        pace = tune_batch_size(
            lambda size: self._try(sample_batch(size), exclusive=exclusive), max_batch, longest_seconds, streams
        )
        if self.modality.size_of is None:
            return pace
        _, large = self.modality.probe_pair()
        seconds = best_of(lambda: self._try([large], exclusive=exclusive), streams)
        return replace(pace, positions=longest_seconds / seconds * self.modality.size_of(large))

    def _per_second(self, pace: BatchPlan, streams: int, *, exclusive: bool) -> float:
        batch = self.modality.sample_batch(pace.batch)
        return pace.batch * throughput(lambda: self.run(batch, exclusive=exclusive), streams)

    def _try(self, batch: Sequence[NDArray[Any]], *, exclusive: bool = True) -> Mapping[str, NDArray[Any]]:
        try:
            return self.run(batch, exclusive=exclusive)
        except Exception as error:
            reason = f"the graph fails on a batch of {len(batch)}: {error}"
            remedy = f"Export the bundle again so that its graph runs for every size of {self.modality.signature}"
            raise EngineError(self._bundle, reason, remedy) from error

    def _check_rows(self) -> None:
        """An input's scores must be its own: neither padding nor the rest of its batch may change them."""
        probe_pair = self.modality.probe_pair()
        together = self._try(probe_pair)
        for index, item in enumerate(probe_pair):
            exclusive = self._try([item])
            for score in self._bundle.manifest.scores:
                given, own = together[score.name][index], exclusive[score.name][0]
                if not _alike(given, own):
                    reason = f"an input's {score.name} is {own:g} alone and {given:g} in a batch with another input"
                    remedy = "Export the bundle again; padding and other inputs must not change a row"
                    raise EngineError(self._bundle, reason, remedy)

    def _open(self, threads: int, *, graphs: bool = False) -> onnxruntime.InferenceSession:
        bundle = self._bundle
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = threads
        options.inter_op_num_threads = 1
        options.execution_mode = onnxruntime.ExecutionMode.ORT_SEQUENTIAL
        options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_ENABLE_ALL
        for key, value in _SESSION_CONFIG.items():
            options.add_session_config_entry(key, value)
        try:
            # Their content, not their paths: ONNX Runtime would map the files, and one that is truncated while it is
            # served (a copy over it, a full disk) would kill the process at its next batch.
            weights = self._external_files(bundle.model_path.read_bytes())
            options.add_external_initializers_from_files_in_memory(
                list(weights), list(weights.values()), [len(content) for content in weights.values()]
            )
            return onnxruntime.InferenceSession(bundle.model_path, options, providers=self._wanted.chain(graphs=graphs))
        except EngineError:
            raise
        except Exception as error:
            raise EngineError(bundle, f"ONNX Runtime refuses the graph: {error}", "Export the bundle again") from error

    def _external_files(self, model: bytes) -> dict[str, bytes]:
        """The content of each file that `model` reads weights from, by the name it has there."""
        folder = self._bundle.model_path.parent
        found: dict[str, bytes] = {}
        listed = {self._bundle.path / name for name in self._bundle.manifest.files}
        for location in sorted(external_files(model)):
            if folder / location not in listed:
                raise EngineError(
                    self._bundle,
                    f"the graph reads weights from {location!r}, which the manifest does not list",
                    "Export the bundle with its weights inside it",
                )
            found[location] = (folder / location).read_bytes()
        return found

    def _check_signature(self) -> None:
        inputs = {node.name: (node.type, node.shape) for node in self._session.get_inputs()}
        if not self.modality.matches(inputs):
            raise EngineError(
                self._bundle,
                f"the graph takes {inputs}, not {self.modality.signature}",
                "Export the bundle again, or correct manifest field `input`",
            )
        wanted = dict.fromkeys(self._outputs.values(), "tensor(float)")
        if PREDICTION in self._outputs:
            wanted["prediction"] = "tensor(int64)"
        given = {node.name: node.type for node in self._session.get_outputs()}
        for name, kind in wanted.items():
            if given.get(name) != kind:
                raise EngineError(
                    self._bundle,
                    f"output {name!r} must be {kind}, the graph has {given.get(name, 'no such output')}",
                    "Export the bundle again, or correct manifest field `scores`",
                )


def _alike(given: Array, own: Array) -> bool:
    return np.allclose(given, own, **_ROW_TOLERANCE, equal_nan=True)
