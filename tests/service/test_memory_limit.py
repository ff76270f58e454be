"""The memory that a process may use, and that the default limits fit into it."""

from pathlib import Path
from typing import Any

import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st

from bundle import BYTES_PER_PIXEL as DECODER_BYTES_PER_PIXEL
from service import Settings
from service.memory_limit import BYTES_PER_BODY_BYTE, BYTES_PER_PIXEL, available_memory, default_limits

ROOT = Path(__file__).parents[2]
GIB, MIB = 2**30, 2**20
MACHINE = 64 * GIB

# Twelve models after an hour of mixed load may need this much: see docs/performance.md.
MODELS = 900 * MIB

SUFFIXES = {"G": GIB, "M": MIB, "Gi": GIB, "Mi": MIB}


@pytest.mark.parametrize(
    ("membership", "files", "expected"),
    [
        pytest.param("0::/\n", {"memory.max": "1073741824\n"}, GIB, id="v2 container"),
        pytest.param("0::/\n", {"memory.max": "max\n"}, MACHINE, id="v2 without a limit"),
        pytest.param("0::/a/b\n", {"a/b/memory.max": "max", "a/memory.max": "536870912"}, GIB // 2, id="v2 nested"),
        pytest.param(
            "0::/a/b\n", {"a/b/memory.max": "268435456", "a/memory.max": "536870912"}, GIB // 4, id="v2 inner limit"
        ),
        pytest.param(
            "4:memory:/docker/1\n1:cpu:/\n0::/\n",
            {"memory/memory.limit_in_bytes": "1073741824"},
            GIB,
            id="v1 container",
        ),
        pytest.param(
            "4:memory:/pods/p/c\n",
            {
                "memory/pods/p/c/memory.limit_in_bytes": "9223372036854771712",
                "memory/pods/p/memory.limit_in_bytes": "99",
            },
            99,
            id="v1 nested",
        ),
        pytest.param(
            "4:cpu,memory:/c\n", {"memory/c/memory.limit_in_bytes": "1073741824"}, GIB, id="v1 with joined controllers"
        ),
        pytest.param("4:memory:/\n", {"memory/memory.limit_in_bytes": str(2**63 - 4096)}, MACHINE, id="v1 without"),
        pytest.param("1:cpu:/x\n", {"memory/x/memory.limit_in_bytes": "7"}, MACHINE, id="another controller's group"),
        pytest.param("0::/\n", {"memory.max": "274877906944"}, MACHINE, id="more than the machine has"),
        pytest.param("0::/\n", {"memory.max": "0"}, MACHINE, id="zero"),
        pytest.param("garbage", {"memory.max": "\xff"}, MACHINE, id="unreadable"),
        pytest.param(None, {}, MACHINE, id="no control groups"),
    ],
)
def test_the_least_limit_of_the_machine_and_all_groups_counts(
    tmp_path: Path, membership: str | None, files: dict[str, str], expected: int
) -> None:
    for name, content in files.items():
        file = tmp_path / "cgroup" / name
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(content, encoding="latin-1")
    member = tmp_path / "membership"
    if membership is not None:
        member.write_text(membership)
    memory, source = available_memory(tmp_path / "cgroup", member, physical=MACHINE)
    assert memory == expected
    assert (source == "physical memory") == (expected == MACHINE)


@given(memory=st.integers(MIB, 2**40), cores=st.integers(1, 256), workers=st.integers(1, 64))
def test_requests_need_at_most_half_of_the_memory(memory: int, cores: int, workers: int) -> None:
    limits = default_limits(memory, cores, workers)
    decoding = limits.decode_threads * limits.max_pixels * BYTES_PER_PIXEL
    bodies = limits.max_pending_bytes * BYTES_PER_BODY_BYTE
    assert workers * (decoding + bodies) <= memory / 2
    assert 1 <= limits.decode_threads <= max(1, cores // workers)


def test_the_decoders_need_as_much_memory_as_the_limits_assume() -> None:
    assert BYTES_PER_PIXEL == DECODER_BYTES_PER_PIXEL


def compose_limits(service: str) -> dict[str, Any]:
    compose = yaml.safe_load((ROOT / "docker-compose.yml").read_text())
    limits: dict[str, Any] = compose["services"][service]["deploy"]["resources"]["limits"]
    return {"cpu": limits["cpus"], "memory": limits["memory"]}


def manifest_limits(path: str) -> dict[str, Any]:
    """The limits of the first container in a manifest."""
    (document,) = yaml.safe_load_all((ROOT / path).read_text())
    spec = document["spec"]
    container = (spec["template"]["spec"] if "template" in spec else spec)["containers"][0]
    limits: dict[str, Any] = container["resources"]["limits"]
    return limits


def size(text: str) -> int:
    number = text.rstrip("GMi")
    return int(number) * SUFFIXES[text.removeprefix(number)]


@pytest.mark.parametrize(
    "limits",
    [
        pytest.param(lambda: compose_limits("service"), id="compose"),
        pytest.param(lambda: compose_limits("service-gpu"), id="compose-gpu"),
        pytest.param(lambda: manifest_limits("deploy/kubernetes/overlays/cpu/deployment.yaml"), id="kubernetes-cpu"),
        pytest.param(lambda: manifest_limits("deploy/kubernetes/overlays/gpu/deployment.yaml"), id="kubernetes-gpu"),
        pytest.param(lambda: manifest_limits("deploy/kubernetes/kserve/runtime.yaml"), id="kserve"),
    ],
)
def test_the_default_limits_and_twelve_models_fit_into_the_shipped_limits(limits: Any) -> None:
    shipped = limits()
    memory = size(str(shipped["memory"]))
    defaults = default_limits(memory, int(shipped["cpu"]), workers=1)
    decoding = defaults.decode_threads * defaults.max_pixels * BYTES_PER_PIXEL
    bodies = defaults.max_pending_bytes * BYTES_PER_BODY_BYTE
    assert MODELS + decoding + bodies <= memory
    # The limits are still useful: the largest body, and photographs of a telephone.
    assert defaults.max_pending_bytes >= Settings.model_fields["max_body_bytes"].default
    assert defaults.max_pixels >= 12_000_000


def test_settings_replace_the_limits_that_follow_from_memory() -> None:
    chosen = Settings(max_pixels=7, max_pending_bytes=2**40, decode_threads=3)
    assert (chosen.max_pixels, chosen.max_pending_bytes, chosen.decode_threads) == (7, 2**40, 3)
    derived = Settings(workers=1)
    shared = Settings(workers=64)
    assert shared.max_pixels <= derived.max_pixels
    assert Settings(max_body_bytes=2**40).max_pending_bytes == 2**40
