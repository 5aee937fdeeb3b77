"""A model that can be loaded by name: what is known of it, and how its weights become a `Model`."""

from __future__ import annotations

import dataclasses
import hashlib
import importlib
import pkgutil
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType
from typing import Any, TypeVar

import numpy as np
from flax.core import FrozenDict

from featvis.errors import CheckpointError
from featvis.models import Input, Model, Prepared
from featvis.told import Told
from featvis.weights.finding import find_weights, first_found
from featvis.weights.layouts import Fit, KeyLayout
from featvis.weights.parts import WeightsFile
from featvis.weights.sources import NoWeights, Source
from featvis.zoo.architecture import Adapted, Architecture

T = TypeVar("T")

Labels = Callable[[Path | None], tuple[str, ...] | None]
"""Class names by index of the logits, given the file of weights (None: not here), or None."""


@dataclass(frozen=True)
class ModelEntry:
    """A model that can be loaded by name, and what is known of it without loading it.

    Attributes:
        name: For `featvis.loading.load`.
        summary: What it is, in a line.
        architecture: Makes the network without its weights.
        parameters: Number of trained weights, as published.
        input: The images that it takes.
        accuracy: Published top-1 accuracy in [0, 1], or None where it is no classifier.
        sources: Where its weights come from, the first that is here being taken.
        layouts: Those that a file of its weights may have.
        labels: Gives its class names.
    """

    name: str
    summary: str
    architecture: Callable[[], Architecture]
    parameters: int
    input: Input
    accuracy: float | None
    sources: tuple[Source, ...]
    layouts: tuple[KeyLayout, ...]
    labels: Labels

    @property
    def available(self) -> bool:
        """Whether the weights are on this machine, or there are none."""
        return self._fixed is not None or self.find() is not None

    @property
    def _fixed(self) -> NoWeights | None:
        """The source of a network that has no weights."""
        return next((source for source in self.sources if isinstance(source, NoWeights)), None)

    def find(self) -> tuple[Source, Path] | None:
        """The first source whose file is on this machine, and the file."""
        return first_found(self.name, self.sources)

    def load(self, weights: str | Path | None = None) -> Model:
        """Reads the weights, where it has any, and makes the model.

        Args:
            weights: a file of weights for this architecture, or one of the Hugging Face hub,
                `hf://owner/repository@revision/path`, which is downloaded where it is not here
                yet; by default one of `sources`. After a `#` the part of it that is meant, as in
                `run.pth#ema`; by default the one that fits.

        Raises:
            CheckpointError: The weights are not on this machine, damaged, or another network's; or
                given to a network that has none.
            FetchError: The hub's file cannot be downloaded.
            InputError: No such form of a hub's file.
        """
        if (fixed := self._fixed) is not None:
            if weights is not None:
                raise CheckpointError(f"{self.name} has no weights and takes none; got {weights}")
            text = f"{self.architecture()!r}, version {fixed.version}"
            digest = hashlib.sha256(text.encode()).hexdigest()
            return self._model({}, self.labels(None), digest, fixed.origin)
        found = find_weights(weights, self.name, self.sources, f"featvis fetch {self.name}")
        source, file = found.source, found.file
        architecture = self.architecture()
        taken, adapted = architecture.nearest(file, self.layouts, self.input)
        digest = f"{file.digest}#{taken.part}" if self._is_choice(file, taken) else file.digest
        origin = f"{source.origin}#{taken.part}" if taken.part else source.origin
        if adapted is not None:
            return self._adapted(adapted, taken, file.path, digest, origin)
        return self._model(architecture.params_of(taken), self.labels(file.path), digest, origin)

    def _adapted(self, network: Adapted, taken: Fit, path: Path, digest: str, origin: str) -> Model:
        """The model with another head, or none, or of other input channels."""
        takes = self.input
        if network.channels != takes.channels:
            # What the channels are is not known: the mean of its own stands for each.
            mean, std = (float(np.mean(value)) for value in (takes.mean, takes.std))
            takes = dataclasses.replace(takes, channels=network.channels, mean=mean, std=std)
        model = Model(
            self.name, Prepared(takes, network), network.params_of(taken), None, digest, takes,
            f"{origin} ({'; '.join(taken.differences)})", FrozenDict(network.left_out),
        )  # fmt: skip
        labels = self.labels(path) or ()
        classes = model.layers().get("logits", ())
        same = classes == (len(labels),)
        return dataclasses.replace(model, labels=labels if same else None)

    def _is_choice(self, file: WeightsFile, found: Fit) -> bool:
        """Whether a user named another part of a file than the one that is taken by itself."""
        if not file.asked:
            return False
        try:
            usual = self.architecture().fit(dataclasses.replace(file, asked=""), self.layouts)
        except CheckpointError:
            return True
        return usual.part != found.part

    def outline(self) -> Model:
        """The model with shapes in the place of its weights, enough for `layers`."""
        return self._model(self.architecture().outline(), self.labels(None), "", "")

    def random(self, seed: int = 0) -> Model:
        """The model with random weights: for tests and timings."""
        params = self.architecture().random_params(seed)
        return self._model(params, None, f"random {seed}", f"random weights, seed {seed}")

    def _model(
        self, params: Any, labels: tuple[str, ...] | None, digest: str, origin: str
    ) -> Model:
        apply = Prepared(self.input, self.architecture())
        return Model(self.name, apply, params, labels, digest, self.input, origin)

    def as_dict(self) -> dict[str, Any]:
        """The facts as plain data, for tables and JSON."""
        return {
            "name": self.name,
            "summary": self.summary,
            "parameters": self.parameters,
            "size": list(self.input.size),
            "channels": self.input.channels,
            "accuracy": self.accuracy,
            "sources": [str(source) for source in self.sources],
            "licences": [source.licence for source in self.sources],
            "available": self.available,
        }

    def told(self) -> Told:
        """What a list of networks says of it."""
        size = f"{self.input.size[0]}x{self.input.size[1]}"
        here = "here" if self.available else "not here"
        found = self.find()
        source = found[0] if found else self.sources[0]
        accuracy = "" if self.accuracy is None else f"top-1 {100 * self.accuracy:.1f}%"
        line = (
            f"{self.name:28} {self.parameters / 1e6:6.1f}M  {size:9} {accuracy:12} "
            f"{here:9} {source} ({source.licence})"
        )
        return Told([self.as_dict()], [line])


def model_entry(
    *,
    parameters: int,
    input: Input,
    accuracy: float | None,
    sources: tuple[Source, ...],
    layouts: tuple[KeyLayout, ...],
    labels: Labels = lambda path: None,
) -> Callable[[Callable[[], Architecture]], ModelEntry]:
    """Makes a loadable model of a function that returns an architecture.

    The model has the function's name and its docstring as summary. A module of the package
    `featvis.zoo` needs nothing more to be found by `load`. For the arguments see `ModelEntry`.
    """

    def decorate(architecture: Callable[[], Architecture]) -> ModelEntry:
        summary = (architecture.__doc__ or "").strip().partition("\n")[0].rstrip(".")
        return ModelEntry(
            architecture.__name__,
            summary,
            architecture,
            parameters,
            input,
            accuracy,
            sources,
            layouts,
            labels,
        )

    return decorate


def entries_in(package: ModuleType, kind: type[T]) -> list[T]:
    """All entries of a kind that the files of a package have.

    Args:
        package: with one file a family.
        kind: of entry, of networks or of generators.
    """
    modules = [
        importlib.import_module(f"{package.__name__}.{module.name}")
        for module in pkgutil.iter_modules(package.__path__)
    ]
    return [one for module in modules for one in vars(module).values() if isinstance(one, kind)]
