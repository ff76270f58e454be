"""Opens a bundle's ONNX graph in ONNX Runtime and checks it against the manifest."""

import ctypes
import hashlib
from collections import Counter
from collections.abc import Collection, Mapping, Sequence
from functools import cache
from pathlib import Path

import onnxruntime

from bundle import Bundle
from service.inference.external_data import external_files
from service.inference.graph_outputs import without_outputs
from service.inference.providers import CPU, Provider, ProviderUnavailable
from service.inputs.modality import Array, Modality

# Waiting threads spin for microseconds only: longer spinning takes cores from the event loop and other models, and
# without any spinning a call's threads are woken up for each layer. See docs/performance.md.
_SESSION_CONFIG = {
    "session.intra_op.allow_spinning": "1",
    "session.intra_op.spin_duration_us": "10",
    "session.force_spinning_stop": "1",
}
_CPU_CONFIG = _SESSION_CONFIG | {
    # All sessions of the process take working memory from one arena: together they need that of the calls that run at
    # the same time, not the sum of what each needs at most. Weights stay outside of it, because an arena returns a
    # region to the system only if nothing is left in it.
    "session.use_env_allocators": "1",
    "session.use_device_allocator_for_initializers": "1",
}
_SHRINK_ARENA = ("memory.enable_memory_arena_shrinkage", "cpu:0")
_RECORD_NODES = {"session.record_ep_graph_assignment_info": "1"}
# ONNX Runtime prints its messages as plain text between the service's log lines. Those of a call are in its exception,
# too; only those about a provider that cannot be loaded are not.
_WHILE_OPENING, _AFTERWARDS = 3, 4


class EngineError(Exception):
    """The bundle's graph cannot be served; the message gives the model, the reason and the remedy."""

    def __init__(self, bundle: Bundle, reason: str, remedy: str) -> None:
        super().__init__(f"{bundle.manifest.model}: {reason}. {remedy}.")


class BundleChanged(Exception):
    """A file of a served bundle has other content than when the bundle was loaded."""


def open_session(
    bundle: Bundle,
    provider: Provider,
    cores: int,
    *,
    graph: bool = False,
    without: Collection[str] = (),
    verify: bool = False,
) -> onnxruntime.InferenceSession:
    """Open the graph of `bundle`.

    ONNX Runtime's own fallback is off: it would replace a session by one on the CPU, also at a later call, unnoticed.

    Args:
        bundle: The bundle.
        provider: The execution provider of the session.
        cores: Threads that compute one call, on a CPU.
        graph: Whether the session records a CUDA graph.
        without: The outputs that the session does not have and computes nothing for.
        verify: Whether to compare the files with the manifest again, because they were loaded some time ago.

    Raises:
        BundleChanged: With `verify`, a file has changed or cannot be read.
        EngineError: ONNX Runtime refuses the graph, or the graph reads files that the manifest does not list.
        ProviderUnavailable: The graph can be opened on the CPU, but not on `provider`.
    """
    try:
        chain = provider.chain(graph=graph)
        session = _open(bundle, chain, cores if provider.first == CPU else 1, without, verify=verify)
    except (EngineError, BundleChanged):
        raise
    except Exception as error:
        refusal = EngineError(bundle, f"ONNX Runtime refuses the graph: {error}", "Export the bundle again")
        if provider.first == CPU or not _opens_on_cpu(bundle):
            raise refusal from error
        raise _unavailable(bundle, provider, str(error)) from error
    if session.get_providers()[0] != provider.first:
        raise _unavailable(bundle, provider, "its own message above says why")
    session.disable_fallback()
    return session


def nodes_by_provider(session: onnxruntime.InferenceSession) -> dict[str, Counter[str]]:
    """The operators of a CUDA session that each provider computes, with their numbers; empty for a CPU session."""
    if session.get_providers()[0] == CPU:
        return {}
    nodes: dict[str, Counter[str]] = {}
    for part in session.get_provider_graph_assignment_info():
        nodes.setdefault(part.ep_name, Counter()).update(node.op_type for node in part.get_nodes())
    return nodes


def _open(
    bundle: Bundle,
    chain: list[tuple[str, dict[str, str]]],
    threads: int,
    without: Collection[str] = (),
    *,
    verify: bool = False,
) -> onnxruntime.InferenceSession:
    on_cpu = chain[0][0] == CPU
    options = onnxruntime.SessionOptions()
    if on_cpu:
        _share_arena()
        # A pattern is kept for each shape of a batch, and there is one for each length of texts and size of batches.
        options.enable_mem_pattern = False
    options.intra_op_num_threads = threads
    options.inter_op_num_threads = 1
    options.execution_mode = onnxruntime.ExecutionMode.ORT_SEQUENTIAL
    options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_ENABLE_ALL
    config = _CPU_CONFIG if on_cpu else _SESSION_CONFIG | _RECORD_NODES
    for key, value in config.items():
        options.add_session_config_entry(key, value)
    # The contents, not the paths: ONNX Runtime would map the files into memory, and a file truncated while it is
    # mapped (overwritten by a copy, a full disk) kills the process at its next batch.
    content = _read(bundle, bundle.model_path, verify=verify)
    weights = _external_weights(bundle, content, verify=verify)
    options.add_external_initializers_from_files_in_memory(
        list(weights), list(weights.values()), [len(content) for content in weights.values()]
    )
    graph: Path | bytes = bundle.model_path
    if without or verify:
        graph = without_outputs(content, without)
    # The session parses the graph into memory of its own.
    del content
    options.log_severity_level = _AFTERWARDS
    onnxruntime.set_default_logger_severity(_WHILE_OPENING)
    try:
        return onnxruntime.InferenceSession(graph, options, providers=chain, enable_fallback=0)
    finally:
        onnxruntime.set_default_logger_severity(_AFTERWARDS)


def _opens_on_cpu(bundle: Bundle) -> bool:
    try:
        _open(bundle, [(CPU, {})], 1)
    except Exception:
        return False
    return True


def _unavailable(bundle: Bundle, provider: Provider, reason: str) -> ProviderUnavailable:
    return ProviderUnavailable(
        f"{provider.first} cannot open {bundle.model_path}, which the CPU can: {reason}. Drivers and CUDA "
        "libraries must match."
    )


@cache
def _share_arena() -> None:
    """Create the arena of all sessions of this process, once."""
    memory = onnxruntime.OrtMemoryInfo(
        "Cpu", onnxruntime.OrtAllocatorType.ORT_ARENA_ALLOCATOR, 0, onnxruntime.OrtMemType.DEFAULT
    )
    onnxruntime.create_and_register_allocator(memory, onnxruntime.OrtArenaCfg({}))


def release_memory(session: onnxruntime.InferenceSession, outputs: Sequence[str], feed: Mapping[str, Array]) -> None:
    """Compute a batch, and return the memory that no call uses and no weights occupy to the system."""
    options = onnxruntime.RunOptions()
    options.add_run_config_entry(*_SHRINK_ARENA)
    session.run(outputs, feed, options)
    # Opening a session leaves much of the heap unused: the graph before its optimisation, weights in another layout.
    if (trim := getattr(ctypes.CDLL(None), "malloc_trim", None)) is not None:
        trim(0)


def check_signature(
    session: onnxruntime.InferenceSession, bundle: Bundle, modality: Modality, output_types: Mapping[str, str]
) -> None:
    """Raise `EngineError` unless the graph takes what `modality` feeds and has outputs of `output_types`, by name."""
    inputs = {node.name: (node.type, node.shape) for node in session.get_inputs()}
    if not modality.matches(inputs):
        raise EngineError(
            bundle,
            f"the graph takes {inputs}, not {modality.signature}",
            "Export the bundle again, or correct manifest field `input`",
        )
    graph_types = {node.name: node.type for node in session.get_outputs()}
    for name, output_type in output_types.items():
        if graph_types.get(name) != output_type:
            raise EngineError(
                bundle,
                f"output {name!r} must be {output_type}, the graph has {graph_types.get(name, 'no such output')}",
                "Export the bundle again, or correct manifest field `scores`",
            )


def _read(bundle: Bundle, path: Path, *, verify: bool) -> bytes:
    """The content of a file of `bundle`.

    Raises:
        BundleChanged: With `verify`, the content is not the one that the manifest states, or cannot be read.
    """
    if not verify:
        return path.read_bytes()
    try:
        content = path.read_bytes()
    except OSError as error:
        raise BundleChanged(f"{path} cannot be read again: {error}") from error
    if hashlib.sha256(content).hexdigest() != bundle.manifest.files[path.relative_to(bundle.path).as_posix()]:
        raise BundleChanged(f"{path} has changed since {bundle.manifest.model} was loaded")
    return content


def _external_weights(bundle: Bundle, graph: bytes, *, verify: bool) -> dict[str, bytes]:
    """The content of each file that `graph` reads weights from, by the name that the graph gives it."""
    folder = bundle.model_path.parent
    listed = {bundle.path / name for name in bundle.manifest.files}
    weights: dict[str, bytes] = {}
    for location in sorted(external_files(graph)):
        if folder / location not in listed:
            raise EngineError(
                bundle,
                f"the graph reads weights from {location!r}, which the manifest does not list",
                "Export the bundle with its weights inside it",
            )
        weights[location] = _read(bundle, folder / location, verify=verify)
    return weights
