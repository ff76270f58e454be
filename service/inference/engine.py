"""The engine: computes batches of one model in ONNX Runtime."""

from collections.abc import Mapping, Sequence

import structlog

from bundle import Bundle
from service.inference.batch_invariance import check_batch_invariance
from service.inference.batch_tuning import batch_sizes
from service.inference.cuda_graphs import CudaGraphRunner, record_graphs
from service.inference.engine_monitor import EngineMonitor
from service.inference.execution_plan import ExecutionMode
from service.inference.onnx_session import EngineError, check_signature, open_session
from service.inference.providers import CPU, CUDA, Provider, ProviderUnavailable
from service.inputs.explanation import PARTS
from service.inputs.modalities import modality_of
from service.inputs.modality import Array

log = structlog.stdlib.get_logger(__name__)

PREDICTION = "prediction"
PROBABILITY = "probability"


class Engine:
    """Computes batches of one model. Thread-safe, except for `warm_up` and `set_mode`.

    Attributes:
        modality: The kind of the model's inputs.
        provider: The execution provider that the session got, which may be another than the one asked for.
        cores: Cores of a call that uses all of them, on a CPU.
        monitor: Records the calls that are running.
    """

    def __init__(self, bundle: Bundle, provider: Provider, *, cores: int) -> None:
        """Load the graph and check it against the manifest.

        Raises:
            EngineError: The graph cannot be opened, or is not what the manifest says.
            ProviderUnavailable: `provider` is required and cannot run the graph.
        """
        self.modality = modality_of(bundle)
        self.cores = cores
        self.monitor = EngineMonitor(bundle.manifest.model)
        self._bundle = bundle
        self._wanted_provider = provider
        self._outputs = {score.name: score.output for score in bundle.manifest.scores}
        output_types = dict.fromkeys(self._outputs.values(), "tensor(float)")
        if bundle.manifest.task == "classification":
            self._outputs |= {PREDICTION: "prediction", PROBABILITY: "probability"}
            output_types |= {"prediction": "tensor(int64)", "probability": "tensor(float)"}
        if bundle.manifest.likelihood is not None:
            self._outputs[PARTS] = bundle.manifest.likelihood.parts
            output_types[bundle.manifest.likelihood.parts] = "tensor(float)"
        self._output_names = list(self._outputs.values())
        self._exclusive_session = self._shared_session = open_session(bundle, provider, cores)
        self._sessions = {cores: self._exclusive_session}
        self._graph_runner: CudaGraphRunner | None = None
        self.provider = str(self._exclusive_session.get_providers()[0])
        if provider.required and self.provider != provider.first:
            raise ProviderUnavailable(
                f"{provider.first} is required, but ONNX Runtime could only open {bundle.model_path} with "
                f"{self.provider}; its own message above says why. Drivers and CUDA libraries must match."
            )
        if self.provider != provider.first:
            log.warning("provider fallback", model=bundle.manifest.name, wanted=provider.first, got=self.provider)
        check_signature(self._exclusive_session, bundle, self.modality, output_types)

    @property
    def on_cpu(self) -> bool:
        """Whether the engine computes on the CPU."""
        return self.provider == CPU

    @property
    def uses_cuda_graphs(self) -> bool:
        """Whether batches are computed by CUDA graphs."""
        return self._graph_runner is not None

    def run(self, items: Sequence[Array], *, exclusive: bool = True) -> Mapping[str, Array]:
        """Compute a batch, in several calls of ONNX Runtime where its inputs differ much in size.

        Args:
            items: N prepared inputs.
            exclusive: Whether no other call runs at the same time, so that this one may use all cores. Other calls
                use one core each in the mode `SHARED`.

        Returns:
            The scores by name, float32 `[N]`; a classifier's `prediction`, int64 `[N]`, and `probability`, float32
            `[N]`; a likelihood's `parts` `[N, ...]`, or an object array of N arrays where their lengths differ.
        """
        return self.modality.run_in_buckets(self._run_padded, items, exclusive=exclusive)

    def try_batch(self, items: Sequence[Array], *, exclusive: bool = True) -> Mapping[str, Array]:
        """Compute a batch in one call of ONNX Runtime, as a test of the graph.

        Raises:
            EngineError: The graph fails on the batch.
        """
        try:
            return self._run_padded(items, exclusive=exclusive)
        except Exception as error:
            reason = f"the graph fails on a batch of {len(items)}: {error}"
            remedy = f"Export the bundle again so that its graph runs for every size of {self.modality.signature}"
            raise EngineError(self._bundle, reason, remedy) from error

    def warm_up(self, max_batch: int) -> None:
        """Run batches of up to `max_batch` inputs: ONNX Runtime allocates memory, and the graph is tested.

        Raises:
            EngineError: The graph fails on a batch, or an input's scores depend on its batch.
        """
        for size in sorted({1, max_batch}):
            for batch in self.modality.warm_up_batches(size):
                self.try_batch(batch)
        if self._wanted_provider.graphs and self.provider == CUDA and self.modality.size_of is None:
            self._record_graphs(max_batch)
        if max_batch > 1:
            check_batch_invariance(self._bundle, self.try_batch, self.modality.probe_pair())

    def set_mode(self, mode: ExecutionMode) -> None:
        """Open the sessions that calls in `mode` need, and close the others."""
        all_cores, one_core = self.cores, 1
        exclusive, shared = {
            ExecutionMode.INLINE: (one_core, one_core),
            ExecutionMode.EXCLUSIVE: (all_cores, all_cores),
            ExecutionMode.SHARED: (all_cores, one_core),
        }[mode]
        self._sessions = {
            cores: self._sessions.get(cores) or open_session(self._bundle, self._wanted_provider, cores)
            for cores in {exclusive, shared}
        }
        self._exclusive_session, self._shared_session = self._sessions[exclusive], self._sessions[shared]

    def _run_padded(self, items: Sequence[Array], *, exclusive: bool) -> Mapping[str, Array]:
        """Compute a batch in one call, padded to its largest input."""
        feed = self.modality.feed(items)
        session = self._exclusive_session if exclusive else self._shared_session
        with self.monitor.call() as options:
            if self._graph_runner is not None:
                rows = self._graph_runner.run(feed)
            else:
                rows = session.run(self._output_names, feed, options)
        for name, row in zip(self._outputs, rows, strict=True):
            if row.shape[: 1 if name == PARTS else None] != (len(items),):
                output = self._outputs[name]
                raise ValueError(f"output {output!r} has shape {row.shape} for {len(items)} inputs, not [N]")
        return dict(zip(self._outputs, rows, strict=True))

    def _record_graphs(self, max_batch: int) -> None:
        """Switch to CUDA graphs if the model supports them and they reproduce its outputs."""
        try:
            session = open_session(self._bundle, self._wanted_provider, self.cores, graphs=True)
            feeds = [self.modality.feed(self.modality.sample_batch(size)) for size in batch_sizes(max_batch)]
            self._graph_runner = record_graphs(session, self._exclusive_session, self._output_names, feeds)
        except Exception as error:
            log.warning("CUDA graphs unavailable", model=self._bundle.manifest.name, reason=str(error))
