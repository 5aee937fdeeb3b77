"""Refuses to go on where a file of the user's hides one of featvis's own packages.

A file `objectives.py` in the working folder is found before the package `objectives`, and what it
lacks would be all that Python says.
"""

from __future__ import annotations

import importlib.util
import sys
from pathlib import Path


def check_own_package(name: str) -> None:
    """Check that a top-level package is the one beside featvis, without importing it.

    Raises:
        ImportError: it is another; names its place.
    """
    # One that is imported already need not say where it is from.
    spec = getattr(sys.modules.get(name), "__spec__", None) or importlib.util.find_spec(name)
    ours = Path(__file__).resolve().parents[1] / name / "__init__.py"
    if spec is None or spec.origin is None or Path(spec.origin).resolve() == ours:
        return
    raise ImportError(
        f"{spec.origin} hides featvis's own package {name}: give that file or folder another name, "
        "or start Python in another folder"
    )


check_own_package("objectives")
