"""The memory that this process may use, and the default limits on requests that follow from it."""

import os
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from service.cpu_count import available_cores

BYTES_PER_PIXEL = 18
"""Most memory that decoding takes per pixel, as `bundle.BYTES_PER_PIXEL`, without an import of the decoders."""

BYTES_PER_BODY_BYTE = 3
"""Most memory that a request takes per byte of its body: the bytes, their text, and the decoded inputs."""

_MIB = 2**20

# Shares of the memory. The rest is for models and the interpreter.
_DECODING_SHARE = 1 / 4
_BODIES_SHARE = 1 / 4

_MOST_PIXELS = 50_000_000
_MOST_PENDING_BYTES = 512 * _MIB
# Decoding is a small part of a request; more threads would take cores from the engine.
_MOST_DECODE_THREADS = 4
_MEMORY_PER_DECODE_THREAD = 512 * _MIB


@dataclass(frozen=True, slots=True)
class DefaultLimits:
    """Default values of settings.

    Attributes:
        decode_threads: Threads that decode inputs.
        max_pixels: Pixels of the largest image.
        max_pending_bytes: Bytes of all request bodies in progress.
    """

    decode_threads: int
    max_pixels: int
    max_pending_bytes: int


def default_limits(memory: int, cores: int, workers: int) -> DefaultLimits:
    """The limits at which one of `workers` processes needs at most half of its share of `memory` bytes for requests."""
    share = memory // workers
    threads = max(1, min(cores // workers, share // _MEMORY_PER_DECODE_THREAD, _MOST_DECODE_THREADS))
    return DefaultLimits(
        decode_threads=threads,
        max_pixels=max(1, min(_MOST_PIXELS, int(_DECODING_SHARE * share) // (threads * BYTES_PER_PIXEL))),
        max_pending_bytes=max(1, min(_MOST_PENDING_BYTES, int(_BODIES_SHARE * share) // BYTES_PER_BODY_BYTE)),
    )


def default_limits_here(workers: int) -> DefaultLimits:
    """The default limits of one of `workers` processes on this machine, or in this container."""
    return default_limits(available_memory()[0], available_cores(), workers)


def available_memory(
    cgroups: Path = Path("/sys/fs/cgroup"),
    membership: Path = Path("/proc/self/cgroup"),
    physical: int | None = None,
) -> tuple[int, str]:
    """The bytes that this process may use, and what limits them: its cgroup, one above it, or the machine.

    Args:
        cgroups: Where the control groups are mounted.
        membership: The groups of this process.
        physical: The bytes of the machine; None asks the system.
    """
    limit = os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE") if physical is None else physical
    source = "physical memory"
    for file in _limit_files(cgroups, membership):
        try:
            text = file.read_text(encoding="ascii").strip()
        except (OSError, UnicodeDecodeError):
            continue
        # "max" and numbers beyond the machine's memory mean that the group has no limit.
        if text.isdecimal() and 0 < int(text) < limit:
            limit, source = int(text), str(file)
    return limit, source


def _limit_files(cgroups: Path, membership: Path) -> Iterator[Path]:
    """The files that can limit this process: those of its groups and of all groups above, in both versions."""
    try:
        lines = membership.read_text(encoding="utf-8", errors="surrogateescape").splitlines()
    except OSError:
        lines = []
    # A container may see the path that its group has on the host, and the group itself as the root.
    groups = {(), *(tuple(part for part in path.split("/") if part) for path in map(_path_of, lines) if path)}
    for group in sorted(groups):
        for depth in range(len(group), -1, -1):
            yield cgroups.joinpath(*group[:depth], "memory.max")
            yield cgroups.joinpath("memory", *group[:depth], "memory.limit_in_bytes")


def _path_of(line: str) -> str:
    """The group in a line `hierarchy:controllers:path`, if it can limit memory."""
    _, _, rest = line.partition(":")
    controllers, _, path = rest.partition(":")
    return path if not controllers or "memory" in controllers.split(",") else ""
