"""The engine: computes batches of one model in ONNX Runtime."""

import threading
from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import replace
from functools import partial

import onnxruntime
import structlog

from bundle import Bundle
from service.inference.batch_invariance import check_batch_invariance
from service.inference.capture_lock import CAPTURE_LOCK
from service.inference.cuda_graphs import record_graphs
from service.inference.engine_monitor import EngineMonitor, EngineState
from service.inference.execution_plan import ExecutionMode
from service.inference.fixed_batches import FixedBatches, PlainBatch, fixed_sizes
from service.inference.onnx_session import (
    BundleChanged,
    EngineError,
    check_signature,
    nodes_by_provider,
    open_session,
    release_memory,
)
from service.inference.providers import CPU, Provider, ProviderUnavailable, largest_batch
from service.inference.sample_check import check_sample
from service.inputs.explanation import NEIGHBOUR_DISTANCES, NEIGHBOURS, PARTS
from service.inputs.modalities import modality_of
from service.inputs.modality import Array, Run

log = structlog.stdlib.get_logger(__name__)

# Memory that is short for a moment does not make an engine broken.
_ATTEMPTS = 3

PREDICTION = "prediction"
PROBABILITY = "probability"

_OWN = "model/"
_OWN_TYPES = {
    "BOOL": "bool",
    "FP16": "float16",
    "FP32": "float",
    "FP64": "double",
    "BYTES": "string",
}


def own_output(name: str) -> str:
    """The key of the wrapped classifier's own output `name` among the outputs of `Engine.run`."""
    return _OWN + name


def _tensor_type(datatype: str) -> str:
    """ONNX Runtime's name of a datatype of the Open Inference Protocol."""
    return f"tensor({_OWN_TYPES.get(datatype, datatype.lower())})"


class Engine:
    """Computes batches of one model. Thread-safe, except for `warm_up` and `set_mode`.

    Attributes:
        modality: The kind of the model's inputs.
        cores: Cores of a call that uses all of them, on a CPU.
        max_batch: Most inputs of a batch, set by `warm_up`.
        monitor: Records the calls that are running.
        nodes: On a GPU, the operators that each provider computes, with their numbers.
        sample_outputs: The outputs of one input of the warm-up, each `[1, ...]`.
        on_shape_change: Called after a call in which a GPU had to plan convolutions for another shape.
    """

    def __init__(self, bundle: Bundle, provider: Provider, *, cores: int) -> None:
        """Load the graph and check it against the manifest.

        Raises:
            EngineError: The graph cannot be opened, or is not what the manifest says.
            ProviderUnavailable: `provider` cannot run the graph, and the CPU can.
        """
        self.modality = modality_of(bundle)
        self.cores = cores
        self.max_batch = 1
        self.monitor = EngineMonitor(bundle.manifest.model)
        self._bundle = bundle
        self._wanted_provider = provider
        self._outputs = {score.name: score.output for score in bundle.manifest.scores}
        output_types = dict.fromkeys(self._outputs.values(), "tensor(float)")
        if bundle.manifest.task == "classification":
            self._outputs |= {PREDICTION: "prediction", PROBABILITY: "probability"}
            output_types |= {"prediction": "tensor(int64)", "probability": "tensor(float)"}
        for tensor in bundle.manifest.model_outputs:
            self._outputs[own_output(tensor.name)] = tensor.output
            output_types[tensor.output] = _tensor_type(tensor.datatype)
        explanations: dict[str, str] = {}
        if bundle.manifest.likelihood is not None:
            explanations[PARTS] = bundle.manifest.likelihood.parts
        if bundle.manifest.evidence is not None:
            explanations[PARTS] = bundle.manifest.evidence.output
        output_types |= dict.fromkeys(explanations.values(), "tensor(float)")
        if (neighbours := bundle.manifest.neighbours) is not None:
            explanations |= {NEIGHBOURS: neighbours.output, NEIGHBOUR_DISTANCES: neighbours.distances}
            output_types |= {neighbours.output: "tensor(int64)", neighbours.distances: "tensor(float)"}
        self._explained_outputs = self._outputs | explanations
        session = open_session(bundle, provider, cores)
        check_signature(session, bundle, self.modality, output_types)
        self.nodes = nodes_by_provider(session)
        # The parts of a likelihood are steps on the way to its scores: a session without them computes as much. On a
        # GPU the sessions are for fixed batches, which have all outputs.
        has_likelihood = bundle.manifest.likelihood is not None
        self._left_out = () if has_likelihood or not self.on_cpu else tuple(explanations.values())
        self._explaining_sessions: dict[int, onnxruntime.InferenceSession] = {}
        self._explaining_lock = threading.Lock()
        if self._left_out:
            self._explaining_sessions[cores] = session
            session = self._open_session(cores)
        self._exclusive_session = self._shared_session = session
        self._sessions = {cores: session}
        self._fixed_batches: FixedBatches | None = None
        self._shape_changes = 0
        self.sample_outputs: Mapping[str, Array] = {}
        self.on_shape_change: Callable[[], object] = lambda: None

    @property
    def provider(self) -> str:
        """The execution provider that the sessions have."""
        sessions = [*self._sessions.values()] if self._fixed_batches is None else self._fixed_batches.sessions
        providers = {str(session.get_providers()[0]) for session in sessions}
        return providers.pop() if len(providers) == 1 else CPU

    @property
    def on_cpu(self) -> bool:
        """Whether the engine computes on the CPU."""
        return self._wanted_provider.first == CPU

    @property
    def uses_cuda_graphs(self) -> bool:
        """Whether batches are computed by CUDA graphs."""
        return self._fixed_batches is not None and self._fixed_batches.uses_graphs

    @property
    def fixed_sizes(self) -> Sequence[int] | None:
        """The batch sizes that batches are filled up to, on a GPU; None if batches have their own sizes."""
        return None if self._fixed_batches is None else self._fixed_batches.sizes

    def run(self, items: Sequence[Array], *, exclusive: bool = True) -> Mapping[str, Array]:
        """Compute a batch, in several calls of ONNX Runtime where its inputs differ much in size.

        Args:
            items: N prepared inputs.
            exclusive: Whether no other call runs at the same time, so that this one may use all cores. Other calls
                use one core each in the mode `SHARED`.

        Returns:
            The scores by name, float32 `[N]`; a classifier's `prediction`, int64 `[N]`, and `probability`, float32
            `[N]`; a wrapped classifier's own outputs `[N, ...]` under `own_output` of their names.
        """
        return self._run_in_buckets(self._run_padded, items, exclusive=exclusive)

    def explain(self, items: Sequence[Array], *, exclusive: bool = True) -> Mapping[str, Array]:
        """Compute a batch with the outputs that explain its scores.

        On a CPU the first call opens a session with these outputs, from the files of the bundle.

        Args:
            items: As for `run`.
            exclusive: As for `run`.

        Returns:
            The outputs of `run`, a likelihood's `parts` or the evidence of positions, `[N, ...]`, and the numbers and
            distances of the nearest training examples `[N, K]`; each may be an object array of N arrays, where the
            lengths of texts differ.

        Raises:
            BundleChanged: The files are not those that were loaded. `run` still computes.
        """
        return self._run_in_buckets(partial(self._run_padded, explain=True), items, exclusive=exclusive)

    def _run_in_buckets(self, run: Run, items: Sequence[Array], *, exclusive: bool) -> Mapping[str, Array]:
        try:
            return self.modality.run_in_buckets(run, items, exclusive=exclusive)
        except BundleChanged:
            raise
        except Exception:
            self._check_itself()
            raise

    def try_batch(
        self, items: Sequence[Array], *, exclusive: bool = True, explain: bool = False
    ) -> Mapping[str, Array]:
        """Compute a batch in one call of ONNX Runtime, as a test of the graph.

        Raises:
            EngineError: The graph fails on the batch.
        """
        try:
            return self._run_padded(items, exclusive=exclusive, explain=explain)
        except Exception as error:
            reason = f"the graph fails on a batch of {len(items)}: {error}"
            remedy = f"Export the bundle again so that its graph runs for every size of {self.modality.signature}"
            raise EngineError(self._bundle, reason, remedy) from error

    def warm_up(self, max_batch: int) -> None:
        """Run batches of up to `max_batch` inputs: ONNX Runtime allocates memory, and the graph is tested.

        Raises:
            EngineError: The graph fails on a batch, an input's scores depend on its batch, or the sample's scores are
                not those of the export.
            ProviderUnavailable: The sessions compute on another provider after these batches.
        """
        self.max_batch = max_batch
        if not self.on_cpu and (self.modality.size_of is None or self._has_convolutions):
            self._fix_batch_sizes(max_batch)
        for size in self.fixed_sizes or sorted({1, max_batch}):
            for batch in self.modality.warm_up_batches(size):
                self.sample_outputs = {name: rows[:1] for name, rows in self.try_batch(batch).items()}
                if self._explaining_sessions:
                    self.try_batch(batch, explain=True)
        if self._wanted_provider.cuda.graphs and self.fixed_sizes and self.modality.size_of is None:
            self._record_graphs()
        if max_batch > 1:
            check_batch_invariance(self._bundle, self.try_batch, self.modality.probe_pair())
        check_sample(self._bundle, self.modality, self.try_batch, self._wanted_provider)
        if self.provider != self._wanted_provider.first:
            model = self._bundle.manifest.model
            raise ProviderUnavailable(f"{model} runs on {self.provider} instead of {self._wanted_provider.first}.")
        self._shape_changes = self._count_shape_changes()
        # Opened again by the first request for an explanation: until then it would hold a second copy of the weights.
        self._explaining_sessions.clear()

    def close(self) -> None:
        """Close the sessions; call it on the thread that made the calls. The engine cannot be used afterwards."""
        # Closing frees memory of the device, which another model's recording must not overlap.
        with self._calling():
            self._sessions.clear()
            self._explaining_sessions.clear()
            self._fixed_batches = None
            del self._exclusive_session, self._shared_session

    def set_mode(self, mode: ExecutionMode) -> None:
        """Open the sessions that calls in `mode` need, and close the others. On a GPU all modes have the same."""
        if not self.on_cpu:
            return
        all_cores, one_core = self.cores, 1
        exclusive, shared = {
            ExecutionMode.INLINE: (one_core, one_core),
            ExecutionMode.EXCLUSIVE: (all_cores, all_cores),
            ExecutionMode.SHARED: (all_cores, one_core),
        }[mode]
        self._sessions = {
            cores: self._sessions.get(cores) or self._open_session(cores) for cores in {exclusive, shared}
        }
        self._exclusive_session, self._shared_session = self._sessions[exclusive], self._sessions[shared]

    def release_memory(self, max_batch: int) -> None:
        """Return the memory that only larger batches than those of `max_batch` inputs needed to the system."""
        if self.on_cpu:
            names, sample = list(self._outputs.values()), self.modality.sample_batch(1)
            release_memory(self._shared_session, names, self.modality.feed(sample))
            for exclusive in (True, False):
                self.try_batch(self.modality.sample_batch(max_batch), exclusive=exclusive)

    def _run_padded(self, items: Sequence[Array], *, exclusive: bool, explain: bool = False) -> Mapping[str, Array]:
        """Compute a batch in one call, padded to its largest input."""
        feed = self.modality.feed(items)
        # Fixed batches have all outputs.
        outputs = self._explained_outputs if explain or self._fixed_batches is not None else self._outputs
        with self._calling(), self.monitor.call() as options:
            if self._fixed_batches is not None:
                rows = self._fixed_batches.run(feed, options)
            else:
                session = self._exclusive_session if exclusive else self._shared_session
                if explain and self._left_out:
                    session = self._explaining_session(self.cores if session is self._sessions.get(self.cores) else 1)
                rows = session.run(list(outputs.values()), feed, options)
        if (changes := self._count_shape_changes()) != self._shape_changes:
            self._shape_changes = changes
            self.on_shape_change()
        for name, row in zip(outputs, rows, strict=True):
            is_score = name in self._outputs and not name.startswith(_OWN)
            if row.shape[: None if is_score else 1] != (len(items),):
                raise ValueError(f"output {outputs[name]!r} has shape {row.shape} for {len(items)} inputs, not [N]")
        return dict(zip(outputs, rows, strict=True))

    def _open_session(self, cores: int) -> onnxruntime.InferenceSession:
        """A session for `cores` that computes no explanations, where they take computations of their own."""
        return open_session(self._bundle, self._wanted_provider, cores, without=self._left_out)

    def _explaining_session(self, cores: int) -> onnxruntime.InferenceSession:
        """The session for `cores` with all outputs of the graph."""
        with self._explaining_lock:
            if cores not in self._explaining_sessions:
                self._explaining_sessions[cores] = open_session(self._bundle, self._wanted_provider, cores, verify=True)
            return self._explaining_sessions[cores]

    def _check_itself(self) -> None:
        """Compute the sample after a failed call: an engine that fails on it, too, is broken.

        An input on which the graph fails must not end the process, however often a client sends it.
        """
        for _ in range(_ATTEMPTS):
            try:
                self._run_padded(self.modality.sample_batch(1), exclusive=True)
            except Exception as error:
                self.monitor.on_failure()
                failure = f"{type(error).__name__}: {error}"
            else:
                return
        self.monitor.broken = failure

    def _calling(self) -> AbstractContextManager[None]:
        """The context of a call: on a GPU it excludes recordings of CUDA graphs."""
        return nullcontext() if self.on_cpu else CAPTURE_LOCK.call()

    @property
    def _has_convolutions(self) -> bool:
        return any("Conv" in operator for operators in self.nodes.values() for operator in operators)

    def _count_shape_changes(self) -> int:
        return 0 if self._fixed_batches is None else self._fixed_batches.shape_changes

    def _fix_batch_sizes(self, max_batch: int) -> None:
        """Open a session for each batch size."""
        first, *others = fixed_sizes(max_batch)
        names = list(self._explained_outputs.values())
        sessions = {first: self._exclusive_session}
        for size in others:
            sessions[size] = open_session(self._bundle, self._wanted_provider, self.cores)
        self._use(FixedBatches({size: PlainBatch(session, names) for size, session in sessions.items()}))

    def _record_graphs(self) -> None:
        """Switch to CUDA graphs if the model supports them and they reproduce its outputs."""
        assert self._fixed_batches is not None, "graphs are for fixed batch sizes"
        try:
            graphs = record_graphs(
                self._fixed_batches,
                list(self._explained_outputs.values()),
                lambda size: self.modality.feed(self.modality.sample_batch(size)),
                lambda: open_session(self._bundle, self._wanted_provider, self.cores, graph=True),
                device_index=self._wanted_provider.cuda.device,
            )
        except Exception as error:
            log.warning("CUDA graphs unavailable", model=self._bundle.manifest.name, reason=str(error))
        else:
            self._use(graphs)

    def _use(self, batches: FixedBatches) -> None:
        """Compute by `batches` from now on, and close the other sessions."""
        self._fixed_batches = batches
        self._exclusive_session = self._shared_session = batches.sessions[0]
        self._sessions = {self.cores: self._exclusive_session}


def open_engine(
    bundle: Bundle,
    provider: Provider,
    *,
    cores: int,
    max_batch: int | None = None,
    watch: Callable[[EngineMonitor], object] = lambda _: None,
) -> Engine:
    """A warm engine on `provider`, or on the CPU if `provider` fails and is not required.

    Args:
        bundle: The bundle.
        provider: The execution provider.
        cores: Cores of a call that uses all of them, on a CPU.
        max_batch: Most inputs of a batch; None for `largest_batch` of the provider that computes.
        watch: Called with the monitor of an engine before its first call.

    Raises:
        EngineError: The graph cannot be served.
        ProviderUnavailable: `provider` is required, and only the CPU can run the graph.
    """
    try:
        engine = Engine(bundle, provider, cores=cores)
        watch(engine.monitor)
        try:
            engine.warm_up(max_batch or largest_batch(provider))
        except Exception:
            engine.monitor.state = EngineState.CLOSED
            raise
    except (EngineError, ProviderUnavailable) as error:
        if provider.required or provider.first == CPU:
            raise
        failure = str(error)
    else:
        _log_placement(engine, bundle)
        return engine
    log.warning("provider fallback", model=bundle.manifest.name, wanted=provider.first, got=CPU, reason=failure)
    return open_engine(bundle, replace(provider, first=CPU), cores=cores, max_batch=max_batch, watch=watch)


def _log_placement(engine: Engine, bundle: Bundle) -> None:
    """Log which operators of a model on the GPU the CPU computes, and what makes the model slow there."""
    if engine.on_cpu:
        return
    name = bundle.manifest.name
    on_cpu = dict(engine.nodes.get(CPU, {}))
    counts = {provider: operators.total() for provider, operators in engine.nodes.items()}
    log.info("model placed", model=name, nodes=counts, cpu_operators=on_cpu)
    loops = {"Scan", "Loop", "If"} & {operator for operators in engine.nodes.values() for operator in operators}
    reason = f"it has {', '.join(sorted(loops))}, whose steps are launched one by one" if loops else ""
    if bundle.manifest.precision == "int8":
        reason = "CUDA computes int8 graphs in float32, with conversions around each operator"
    if reason:
        log.warning("model is slow on a GPU", model=name, reason=reason, remedy=f"OOD_MODEL_PROVIDERS={name}=cpu")
