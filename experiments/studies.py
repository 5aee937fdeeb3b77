"""What the studies share: their command line, scikit-image's photographs, plots, and the last line.

A study is a file that is run; this is the one that they import. Nothing beyond featvis is imported
before it is needed, so that every `--help` works and says what to install.
"""

from __future__ import annotations

import argparse
import importlib.util
import time
import warnings
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

import featvis as fv
from featvis.images import image_files

#: The packages that studies need beyond featvis, by what they are imported as.
PACKAGES = {
    "matplotlib": "matplotlib",
    "scikit-image": "skimage",
    "scikit-learn": "sklearn",
    "opencv-python-headless": "cv2",
    "zarr": "zarr",
    "orbax-checkpoint": "orbax.checkpoint",
}


class _Defaults(argparse.ArgumentDefaultsHelpFormatter):
    """Shows the defaults that say something."""

    def _get_help_string(self, action: argparse.Action) -> str | None:
        silent = action.default is None or action.default is False
        return action.help if silent else super()._get_help_string(action)


class CommandLine(argparse.ArgumentParser):
    """The options that every study has; `read` checks what is given before anything is computed.

    Args:
        doc: of the study, whose first line says what it asks.
        out: the folder that it writes, unless `-o` says another; None where it writes none.
        folder: what the one positional argument is a folder of; None for a study without.
        required: whether the folder must be given.
        holds: patterns of files of which one must be in it, in place of pictures.
        needs: packages of `PACKAGES` that it needs.
        bundled: the package whose data it takes where no folder is given.
        quick: what `--quick` leaves.
        seed: what `--seed` drives; None for a study without.
    """

    def __init__(
        self,
        doc: str | None,
        out: str | None,
        *,
        folder: str | None = None,
        required: bool = False,
        holds: Sequence[str] = (),
        needs: Sequence[str] = (),
        bundled: str | None = None,
        quick: str,
        seed: str | None = None,
    ) -> None:
        only = [bundled] if bundled and bundled not in needs else []
        needed = [*needs, *only]
        alone = f" ({bundled} only where no folder is given)" if only else ""
        installed = "It needs featvis alone."
        if needed:
            installed = f"It needs more than featvis{alone}: pip install {' '.join(needed)}"
        title = (doc or "").partition("\n")[0]
        super().__init__(description=title, epilog=installed, formatter_class=_Defaults)
        self.folder, self.holds = folder, tuple(holds)
        self.needs, self.bundled = tuple(needs), bundled
        if folder is not None:
            told = f"a folder of {folder}" + ("" if required else f"; without it, {bundled}'s")
            some = {"default": argparse.SUPPRESS} if required else {"nargs": "?"}
            self.add_argument("folder", type=Path, help=told, **some)
        if out is not None:
            self.add_argument(
                "-o", "--out", type=Path, default=Path(out), help="the folder that is written"
            )
        self.add_argument("--quick", action="store_true", help=f"take a first look: {quick}")
        if seed is not None:
            self.add_argument("--seed", type=int, default=0, help=f"the seed of {seed}")

    def read(self) -> argparse.Namespace:
        """Return what is given; a package or a folder that is missing is one line and code 2."""
        options = self.parse_args()
        needed = dict.fromkeys(self.needs)
        if self.bundled is not None and options.folder is None:
            needed[self.bundled] = None
        missing = [one for one in needed if importlib.util.find_spec(PACKAGES[one]) is None]
        if missing:
            self._leave(f"{', '.join(missing)} missing: pip install {' '.join(missing)}")
        folder = getattr(options, "folder", None)
        if folder is not None and not folder.is_dir():
            self._leave(f"there is no folder {folder}")
        if folder is not None and self.holds:
            if not any(any(folder.glob(one)) for one in self.holds):
                self._leave(f"there is no {' or '.join(self.holds)} in {folder}")
        elif folder is not None:
            try:
                image_files(folder)
            except fv.FeatvisError as error:
                self._leave(str(error))
        try:
            if getattr(options, "out", None) is not None:
                options.out.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            self._leave(f"cannot make the folder {options.out}: {error.strerror}")
        fv.enable_cache()
        return options

    def _leave(self, why: str) -> None:
        self.exit(2, f"error: {why}\n")


def run(main: Callable[[], Any]) -> None:
    """Run a study; a mistake that shows while it runs is one line too, a warning is said once."""
    said, show = set[str](), warnings.showwarning

    def once(message: Warning | str, *where: Any, **more: Any) -> None:
        # Python forgets what it has said whenever a filter is set for a while.
        if str(message) not in said:
            said.add(str(message))
            show(message, *where, **more)

    warnings.showwarning = once
    try:
        code = main()
    except fv.FeatvisError as error:
        raise SystemExit(f"error: {error}") from None
    raise SystemExit(code or 0)


def bundled_pictures(names: Sequence[str]) -> dict[str, Image.Image]:
    """Photographs that scikit-image carries, by name."""
    from skimage import data

    return {name: Image.fromarray(getattr(data, name)()) for name in names}


def pyplot() -> Any:
    """matplotlib's, which draws into files."""
    import matplotlib

    matplotlib.use("Agg")
    import matplotlib.pyplot

    return matplotlib.pyplot


def write_whole(path: Path, **arrays: Any) -> None:
    """Write arrays into a file (.npz) that is there whole or not at all."""
    path.parent.mkdir(parents=True, exist_ok=True)
    part = path.with_suffix(".part.npz")
    np.savez_compressed(part, **arrays)
    part.replace(path)


def kept(path: Path, make: Callable[[], Mapping[str, Any]]) -> dict[str, np.ndarray]:
    """The arrays of a file (.npz), which are made first where it is not there."""
    if not path.is_file():
        write_whole(path, **make())
    with np.load(path) as found:
        return dict(found)


def spread(values: Sequence[float] | np.ndarray, digits: str = ".3g") -> str:
    """Single figures as a range, least to greatest; one alone as it is."""
    least, greatest = (f"{v:{digits}}" for v in (np.min(values), np.max(values)))
    return least if least == greatest else f"{least} to {greatest}"


def figure(value: Any) -> int | float:
    """A number as a table has it: one that is whole without a point, a rank 1 and not 1.000."""
    number = float(value)
    return int(number) if number.is_integer() else number


def finish(started: float, place: Path, photographs: int | None = None) -> None:
    """Print how long a study took, how many photographs it used, and where its report is.

    Args:
        started: by `time.perf_counter()`.
        place: the page, or the folder.
        photographs: how many; None for a study of none.
    """
    used = "" if photographs is None else f"{photographs} photographs, "
    print(f"{used}{time.perf_counter() - started:.0f} s: {place}")
