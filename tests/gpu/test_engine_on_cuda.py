"""The engine on CUDA: no plan is built twice, graphs are recorded once by the serving thread, no silent fallback."""

import asyncio
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime
import pytest
from structlog.testing import capture_logs

from bundle import load_bundle
from service import Settings
from service.inference.engine import Engine, open_engine
from service.inference.engine_health import EngineHealth
from service.inference.engine_thread import EngineThread
from service.inference.local_engines import LocalEngines
from service.inference.onnx_session import EngineError
from service.inference.providers import CPU, CUDA, CudaOptions, Provider, ProviderUnavailable, choose_provider
from service.repository.model import Model, model_loader
from service.telemetry.metrics import Metrics
from tests.gpu.conftest import CAPTURE, COPY_TO_HOST, LAUNCH_GRAPH, ROOT, StandIn
from tests.support.tiny_bundle import make_tiny_bundle

CLASSIFIER = ROOT / "models/cifar10-energy/1"
CONVOLUTIONS = 7
IMAGES = np.zeros((64, 32, 32, 3), np.uint8)
COUNTS = (4, 8, 4, 64, 1, 33, 1, 16, 2, 17)


def provider(*, required: bool = True, **options: Any) -> Provider:
    return Provider(CUDA, required=required, cuda=CudaOptions(**options))


@pytest.fixture
def thread() -> Iterator[EngineThread]:
    thread = EngineThread("test")
    yield thread
    thread.end()
    thread.join(30)


def test_a_changing_batch_size_never_plans_a_convolution_again(stand_in: StandIn) -> None:
    before = stand_in.plans
    engine = open_engine(load_bundle(CLASSIFIER), provider(), cores=2, max_batch=64)
    assert engine.provider == CUDA
    assert engine.fixed_sizes == [1, 16, 64]
    warm = stand_in.plans
    assert warm - before == CONVOLUTIONS * 3
    for count in COUNTS:
        assert all(len(rows) == count for rows in engine.run(list(IMAGES[:count])).values())
    assert stand_in.plans == warm


def test_batches_are_larger_on_a_gpu_by_default(stand_in: StandIn) -> None:
    engine = open_engine(load_bundle(CLASSIFIER), provider(), cores=2)
    assert engine.fixed_sizes == [1, 16, 256]
    assert engine.max_batch == 256


def test_one_session_would_plan_them_again(stand_in: StandIn) -> None:
    """The stand-in and this version of ONNX Runtime still have the behaviour that fixed sizes avoid."""
    session = onnxruntime.InferenceSession(CLASSIFIER / "model.onnx", providers=[CUDA, CPU])
    built = []
    for count in (4, 4, 8, 4):
        before = stand_in.plans
        session.run(None, {"images": IMAGES[:count]})
        built.append(stand_in.plans - before)
    assert built == [CONVOLUTIONS, 0, CONVOLUTIONS, CONVOLUTIONS]


def test_every_bundle_opens_on_cuda_and_says_where_its_operators_are(stand_in: StandIn) -> None:
    for name, most_on_cpu in (("cifar10-pixelcnn", 0), ("sst-gru", 1), ("ptb-char-qrnn", 30)):
        engine = Engine(load_bundle(ROOT / "models" / name / "1"), provider(), cores=2)
        assert engine.provider == CUDA
        assert engine.nodes[CUDA].total() > 20
        assert sum(engine.nodes.get(CPU, {}).values()) <= most_on_cpu


def test_graphs_are_recorded_once_on_the_thread_that_serves(stand_in: StandIn, thread: EngineThread) -> None:
    before, plans = len(stand_in.threads(CAPTURE)), stand_in.plans
    engine = thread.call(lambda: open_engine(load_bundle(CLASSIFIER), provider(graphs=True), cores=2, max_batch=64))
    assert engine.uses_cuda_graphs
    warm = stand_in.plans
    assert warm > plans
    launches, copies = len(stand_in.threads(LAUNCH_GRAPH)), len(stand_in.threads(COPY_TO_HOST))
    for count in COUNTS:
        rows = thread.call(lambda count=count: engine.run(list(IMAGES[:count])))
        assert len(rows["energy"]) == count
    assert stand_in.threads(CAPTURE)[before:] == [thread.native_id] * 3
    assert stand_in.threads(LAUNCH_GRAPH)[launches:] == [thread.native_id] * len(COUNTS)
    # All outputs of a batch in one copy.
    assert stand_in.threads(COPY_TO_HOST)[copies:] == [thread.native_id] * len(COUNTS)
    assert stand_in.plans == warm
    assert stand_in.forbidden_calls == 0


def test_a_model_without_graphs_is_served_without(stand_in: StandIn) -> None:
    engine = open_engine(load_bundle(ROOT / "models/sst-gru/1"), provider(graphs=True), cores=2, max_batch=4)
    assert not engine.uses_cuda_graphs


def test_a_cudnn_that_refuses_plans_is_an_error_and_never_the_cpu(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("STAND_IN_REFUSE_PLANS", "1")
    with pytest.raises(Exception, match="the graph fails on a batch of 1"):
        open_engine(load_bundle(CLASSIFIER), provider(), cores=2, max_batch=4)


def test_auto_falls_back_per_model_and_says_so(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("STAND_IN_REFUSE_PLANS", "1")
    with capture_logs() as logs:
        engine = open_engine(load_bundle(CLASSIFIER), provider(required=False), cores=2, max_batch=4)
        other = open_engine(load_bundle(make_tiny_bundle(tmp_path)), provider(required=False), cores=2, max_batch=4)
    assert (engine.provider, engine.on_cpu) == (CPU, True)
    # The tiny model has no convolution.
    assert other.provider == CUDA
    (fallback,) = [line for line in logs if line["event"] == "provider fallback"]
    assert (fallback["model"], fallback["wanted"], fallback["got"]) == ("cifar10-energy", CUDA, CPU)


def test_a_gpu_that_computes_other_scores_is_refused(checks_samples: None) -> None:
    with pytest.raises(EngineError, match=r"the sample's \w+ is \S+ on CUDAExecutionProvider and \S+ at the export"):
        open_engine(load_bundle(CLASSIFIER), provider(), cores=2, max_batch=4)
    fallback = open_engine(load_bundle(CLASSIFIER), provider(required=False), cores=2)
    assert fallback.on_cpu
    assert fallback.max_batch == 64


def test_a_call_that_fails_later_is_an_error_and_the_engine_is_broken(stand_in: StandIn) -> None:
    engine = open_engine(load_bundle(CLASSIFIER), provider(), cores=2, max_batch=4)
    failures = []
    engine.monitor.on_failure = lambda: failures.append(1)
    with stand_in.broken_device(), pytest.raises(Exception, match=r"CUDA|CUBLAS|CUDNN"):
        engine.run(list(IMAGES[:2]))
    assert engine.provider == CUDA
    assert len(failures) == 3
    assert engine.monitor.broken


@pytest.mark.parametrize(
    ("variable", "value", "message"),
    [
        ("STAND_IN_DRIVER", "12080", "supports CUDA 12.8, and CUDA 13.0 is needed. Install driver 580"),
        ("STAND_IN_CAPABILITY", "100", "compute capability 10.0"),
        ("STAND_IN_CAPABILITY", "70", "compute capability 7.0"),
        ("STAND_IN_DEVICES", "0", "no GPU is visible"),
    ],
)
def test_an_unsuitable_gpu_is_named_at_the_start(
    monkeypatch: pytest.MonkeyPatch, variable: str, value: str, message: str
) -> None:
    assert choose_provider("cuda")[0] == Provider(CUDA, required=True)
    monkeypatch.setenv(variable, value)
    with pytest.raises(ProviderUnavailable, match=message):
        choose_provider("cuda")
    fallback, note = choose_provider("auto")
    assert (fallback.first, fallback.preferred) == (CPU, CUDA)
    assert note is not None
    assert message.split(".", maxsplit=1)[0] in note


def test_a_device_that_does_not_exist_is_named() -> None:
    with pytest.raises(ProviderUnavailable, match="OOD_CUDA_DEVICE=1 does not exist"):
        choose_provider("cuda", cuda=CudaOptions(device=1))


@pytest.fixture
def load() -> Iterator[Callable[[str], Model]]:
    """Loads a bundle of models/ as the service does, with CUDA graphs."""
    loop = asyncio.new_event_loop()
    settings = Settings(max_batch=16, cuda_graphs=True)
    engines = LocalEngines(settings, provider(graphs=True), loop, EngineHealth(30, 60))
    loader = model_loader(settings, engines, Metrics())
    models = []

    def load_model(name: str) -> Model:
        models.append(loader(load_bundle(ROOT / "models" / name / "1")))
        return models[-1]

    yield load_model
    for model in models:
        model.close()
    loop.close()


def test_two_models_serve_while_others_are_loaded_with_graphs(
    stand_in: StandIn, load: Callable[[str], Model], monkeypatch: pytest.MonkeyPatch
) -> None:
    forbidden = stand_in.forbidden_calls
    engines: list[Engine] = []
    threads = [EngineThread(f"load-{index}") for index in range(2)]
    for thread, name in zip(threads, ("cifar10-energy", "cifar10-gan"), strict=True):
        bundle = load_bundle(ROOT / "models" / name / "1")
        open_one = lambda bundle=bundle: open_engine(bundle, provider(graphs=True), cores=2, max_batch=16)  # noqa: E731
        engines.append(thread.call(open_one))
    monkeypatch.setenv("STAND_IN_CAPTURE_MS", "30")
    stop = threading.Event()
    errors: list[Exception] = []
    calls = [0, 0]

    def serve(index: int) -> None:
        sizes = np.random.default_rng(index)
        try:
            while not stop.is_set():
                engines[index].run(list(IMAGES[: int(sizes.integers(1, 17))]))
                calls[index] += 1
        except Exception as error:
            errors.append(error)

    for index, thread in enumerate(threads):
        thread.post(lambda index=index: serve(index))
    loaded = [load(name) for name in ("cifar10-oe", "cifar10-noise-outliers")]
    assert [model.provider for model in loaded] == [CUDA, CUDA]
    stop.set()
    for thread in threads:
        thread.end()
        thread.join(60)
    assert errors == []
    assert min(calls) > 0
    assert stand_in.forbidden_calls == forbidden
