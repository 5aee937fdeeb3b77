"""The user's cache folder, and in it the programs that are compiled once on a machine."""

from __future__ import annotations

from pathlib import Path

import jax
import platformdirs

from featvis.errors import OutputError


def cache_folder() -> Path:
    """Where featvis keeps what can be had again: compiled programs and downloaded weights."""
    return Path(platformdirs.user_cache_path("featvis"))


def enable_cache(folder: str | Path | None = None) -> Path:
    """Keep compiled programs on disk, for this process and those after it.

    The command line does so by itself. JAX checks the entries against its own version, the
    compiler's options and the device.

    Args:
        folder: by default the user's cache folder for featvis.

    Returns:
        The folder.

    Raises:
        OutputError: the folder cannot be made.
    """
    path = Path(folder or cache_folder()) / "xla"
    try:
        path.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise OutputError(f"cannot make the cache folder {path}: {error.strerror}") from error
    jax.config.update("jax_compilation_cache_dir", str(path))
    # By default only what took a second or more is kept; the sum of the small ones is seconds too.
    jax.config.update("jax_persistent_cache_min_compile_time_secs", 0.0)
    jax.config.update("jax_persistent_cache_min_entry_size_bytes", -1)
    return path
