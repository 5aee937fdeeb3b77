"""Files that pages are made with, as they are: styles and scripts."""

from __future__ import annotations

import functools
from pathlib import Path


@functools.cache
def static(name: str) -> str:
    """The text of a file of this folder."""
    return (Path(__file__).parent / name).read_text(encoding="utf-8")
