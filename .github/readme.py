"""The README as an index page shows it: links and pictures by their addresses in the repository.

In a checkout they are paths, so that both work.
"""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

from hatchling.metadata.plugin.interface import MetadataHookInterface


def with_addresses(text: str, repository: str) -> str:
    """Return Markdown with the address of what each relative link names.

    Args:
        text: Markdown, its links relative to the root of the repository.
        repository: the address of its page.
    """

    def address(found: re.Match[str]) -> str:
        kind = "raw" if found["picture"] else "blob"
        return f"{found['before']}{repository}/{kind}/main/{found['path']})"

    link = r"(?P<before>(?P<picture>!?)\[[^\]]*\]\()(?!https?://|#)(?P<path>[^)]+)\)"
    return re.sub(link, address, text)


class Readme(MetadataHookInterface):
    """Gives the build the README with addresses."""

    def update(self, metadata: dict[str, Any]) -> None:
        """Put the README into the metadata of the project."""
        text = Path(self.root, "README.md").read_text(encoding="utf-8")
        metadata["readme"] = {
            "content-type": "text/markdown",
            "text": with_addresses(text, metadata["urls"]["Repository"]),
        }
