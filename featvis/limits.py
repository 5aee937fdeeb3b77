"""The memory there is, and one clear error in place of a machine that runs out of it."""

from __future__ import annotations

import math
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import jax

from featvis.errors import FeatvisError, InputError, TooLargeError, printable

#: What XLA says where an allocation fails.
_EXHAUSTED = ("RESOURCE_EXHAUSTED", "out of memory", "failed to allocate", "bad_alloc")


def available() -> float:
    """Bytes that this process can still take of the machine's memory; infinity where none says so.

    The least of what the system, the control groups that this process is in, and its own limit on
    addresses leave.
    """
    return max(0.0, min(_of_system(), _of_groups(), _of_process()))


def available_on(device: jax.Device) -> float:
    """Bytes that are free on a device; on a CPU those of the machine."""
    stats = device.memory_stats() if device.platform != "cpu" else None
    if not stats or "bytes_limit" not in stats:
        return available() if device.platform == "cpu" else math.inf
    return max(0.0, stats["bytes_limit"] - stats.get("bytes_in_use", 0))


def check_device() -> None:
    """Starts the device that programs run on.

    Raises:
        InputError: JAX has none, as where JAX_PLATFORMS names one that is not there.
    """
    try:
        jax.devices()
    # JAX has no type for it, and fails in several ways.
    except (RuntimeError, AssertionError) as error:
        wanted = os.environ.get("JAX_PLATFORMS", "")
        said = " ".join(str(error).split()) or "it gives no reason"
        raise InputError(
            f"JAX finds no device{f' for JAX_PLATFORMS={wanted}' if wanted else ''} (without it, "
            f"or with cpu, it takes the processor): {printable(said, 200)}"
        ) from error


def require(size: float, what: str) -> None:
    """Refuses what fits no memory before it is allocated.

    Args:
        size: in bytes.
        what: they are for, as the message begins.

    Raises:
        TooLargeError: there is less.
    """
    free = available()
    if size > free:
        raise TooLargeError(f"{what}: {shown(size)} of memory are needed, and {shown(free)} free")


@contextmanager
def explained(what: str) -> Iterator[None]:
    """Makes memory that runs out after all one error of ours.

    Args:
        what: was being made, as the message ends.

    Raises:
        TooLargeError: it ran out.
    """
    try:
        yield
    except FeatvisError:
        raise
    except (MemoryError, jax.errors.JaxRuntimeError) as error:
        if not exhausted(error):
            raise
        raise TooLargeError(
            f"the memory ran out for {what}: smaller images, fewer of them, or smaller numbers "
            "take less"
        ) from error


def exhausted(error: BaseException) -> bool:
    """Whether an error is of Python's or XLA's memory having run out."""
    said = str(error).lower()
    return isinstance(error, MemoryError) or any(sign.lower() in said for sign in _EXHAUSTED)


def shown(size: float) -> str:
    """A number of bytes as a message gives it."""
    if size >= 9.95e8:
        return f"{size / 1e9:,.0f} GB" if size >= 1e10 else f"{size / 1e9:.1f} GB"
    return f"{max(size, 0) / 1e6:.3g} MB" if size < 9.95e7 else f"{size / 1e6:.0f} MB"


def _of_system() -> float:
    try:
        for line in Path("/proc/meminfo").read_text().splitlines():
            if line.startswith("MemAvailable:"):
                return 1024.0 * int(line.split()[1])
    except (OSError, ValueError, IndexError):
        pass
    try:
        # What is free alone says too little: a system keeps files in what nobody uses.
        return float(os.sysconf("SC_PHYS_PAGES")) * os.sysconf("SC_PAGE_SIZE")
    except (AttributeError, OSError, ValueError):  # Windows
        return math.inf


def _of_groups() -> float:
    """What the control groups leave of their limits, version 2 and 1; files do not count."""
    try:
        lines = Path("/proc/self/cgroup").read_text().splitlines()
    except OSError:
        return math.inf
    free = math.inf
    for line in lines:
        _, _, rest = line.partition(":")
        controllers, _, path = rest.partition(":")
        if controllers and "memory" not in controllers.split(","):
            continue
        root = Path("/sys/fs/cgroup") / ("memory" if controllers else "")
        names = (
            ("memory.limit_in_bytes", "memory.usage_in_bytes", "total_inactive_file")
            if controllers
            else ("memory.max", "memory.current", "inactive_file")
        )
        # A limit of any group above counts too; in a container its own is the root.
        group = root / path.strip("/")
        for folder in (group, *group.parents):
            if folder == root.parent:
                break
            free = min(free, _left_in(folder, *names))
    return free


def _left_in(folder: Path, limit: str, usage: str, cached: str) -> float:
    try:
        most, used = (float((folder / name).read_text()) for name in (limit, usage))
        words = (folder / "memory.stat").read_text().split()
    except (OSError, ValueError):  # no such group here, or "max"
        return math.inf
    files = float(words[words.index(cached) + 1]) if cached in words else 0.0
    return most - used + files


def _of_process() -> float:
    try:
        import resource

        most, _ = resource.getrlimit(resource.RLIMIT_AS)
        if most == resource.RLIM_INFINITY:
            return math.inf
        pages = int(Path("/proc/self/statm").read_text().split()[0])
        return float(most - pages * resource.getpagesize())
    except (ImportError, OSError, ValueError, IndexError):
        return math.inf
