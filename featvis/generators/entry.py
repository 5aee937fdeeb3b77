"""A generator that can be loaded by name: what is known of it, and how its weights become it."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import jax
import numpy as np

from featvis.errors import CheckpointError
from featvis.parameterizations import Codes, Generator
from featvis.told import Told
from featvis.weights.finding import find_weights, first_found
from featvis.weights.layouts import KeyLayout
from featvis.weights.parts import WeightsFile
from featvis.weights.sources import Source
from featvis.zoo.architecture import Architecture


class Part(NamedTuple):
    """A decoder or an encoder without its weights, and where these are.

    Attributes:
        architecture: A network from a batch of codes (or images) to one of images (or codes).
        sources: Where its weights come from, the first that is here being taken.
        layouts: Those that a file of them may have.
    """

    architecture: Architecture
    sources: tuple[Source, ...]
    layouts: tuple[KeyLayout, ...]


@dataclass(frozen=True)
class Alone:
    """A network of batches, called with one.

    Attributes:
        network: `(params, batch) -> batch`.
    """

    network: Callable[[Any, jax.Array], Any]

    def __call__(self, params: Any, one: jax.Array) -> jax.Array:
        """What the network makes of one."""
        made: jax.Array = self.network(params, one[None])[0]
        return made


@dataclass(frozen=True)
class GeneratorEntry:
    """A generator that can be loaded by name, and what is known of it without loading it.

    Attributes:
        name: For `featvis.generators.load`.
        summary: What it is, in a line.
        decoder: From codes to images.
        encoder: From images to codes; None where there is none.
        code: See `Generator`.
        stride: See `Generator`.
        range: See `Generator`.
        codes: Makes what is known of codes of an array by each name of the decoder's file.
        networks: Names of networks of its images: what conditions samples, then what judges them.
    """

    name: str
    summary: str
    decoder: Part
    encoder: Part | None
    code: tuple[int, ...]
    stride: int | None
    range: tuple[float, float]
    codes: Callable[[Mapping[str, np.ndarray]], Codes] | None = None
    networks: tuple[str, ...] = ()

    @property
    def available(self) -> bool:
        """Whether the decoder's weights are on this machine."""
        return first_found(self.name, self.decoder.sources) is not None

    def load(
        self, weights: str | Path | None = None, encoder: str | Path | None = None
    ) -> Generator:
        """Reads the weights of the decoder, and those of the encoder where they are there.

        Args:
            weights: a file of them, also of the encoder's; a folder of files that are called as
                those of `sources` are; or a file of the Hugging Face hub. None: one of `sources`.
            encoder: a file of the encoder's weights alone.

        Raises:
            CheckpointError: the decoder's are not on this machine, or any are damaged or another
                network's.
            FetchError: the hub's file cannot be downloaded.
        """
        file = _found(self.decoder, self.name, _within(weights, self.decoder))
        params = _fitted(self.decoder, file)
        codes = None if self.codes is None else self.codes(file.meant()[0].arrays)
        part, encoder_params = self.encoder, None
        if part is not None:
            if encoder is not None:
                encoder_params = _read(part, self.name, encoder)
            elif weights is None or Path(weights).is_dir():
                place = _within(weights, part, needed=False)
                if place is not None or (weights is None and first_found(self.name, part.sources)):
                    encoder_params = _read(part, self.name, place)
            else:
                encoder_params = _read_if_there(part, self.name, weights)
        elif encoder is not None:
            raise CheckpointError(f"{self.name} has no encoder and takes no weights of one")
        return dataclasses.replace(self._generator(params, encoder_params), codes=codes)

    def random(self, seed: int = 0) -> Generator:
        """The generator with random weights: for tests and timings."""
        encoder = None
        if self.encoder is not None:
            encoder = self.encoder.architecture.random_params(seed + 1)
        return self._generator(self.decoder.architecture.random_params(seed), encoder)

    def _generator(self, params: Any, encoder_params: Any) -> Generator:
        encodes = None
        if self.encoder is not None and encoder_params is not None:
            encodes = Alone(self.encoder.architecture)
        return Generator(
            Alone(self.decoder.architecture),
            self.code,
            params=params,
            encoder=encodes,
            encoder_params=encoder_params,
            stride=self.stride,
            range=self.range,
            place=self.name,
        )

    def as_dict(self) -> dict[str, Any]:
        """The facts as plain data, for tables and JSON."""
        return {
            "name": self.name,
            "summary": self.summary,
            "code": list(self.code),
            "stride": self.stride,
            "encoder": self.encoder is not None,
            "sources": [str(source) for source in self.decoder.sources],
            "licences": [source.licence for source in self.decoder.sources],
            "available": self.available,
        }

    def told(self) -> Told:
        """What a list of generators says of it."""
        code = "x".join(map(str, (*(("h", "w") if self.stride else ()), *self.code)))
        here = "here" if self.available else "not here"
        source = self.decoder.sources[-1]
        line = f"{self.name:12} {code:10} {here:9} {source} ({source.licence})  {self.summary}"
        return Told([self.as_dict()], [line])


def _within(weights: str | Path | None, part: Part, *, needed: bool = True) -> str | Path | None:
    """A file of weights; of a folder the one that is called as a source's."""
    if weights is None or not Path(weights).is_dir():
        return weights
    names = [source.file for source in part.sources]
    for name in names:
        if (file := Path(weights) / name).is_file():
            return file
    if needed:
        raise CheckpointError(f"{weights}: has none of {', '.join(names)}")
    return None


def _found(part: Part, name: str, weights: str | Path | None) -> WeightsFile:
    """The file of a part's weights."""
    told = f"featvis fetch {name}", "weights=, or latent:NAME=FILE"
    return find_weights(weights, name, part.sources, *told).file


def _fitted(part: Part, file: WeightsFile) -> Any:
    """The weights of a part in a file."""
    return part.architecture.params_of(part.architecture.fit(file, part.layouts))


def _read(part: Part, name: str, weights: str | Path | None) -> Any:
    """The weights of a part."""
    return _fitted(part, _found(part, name, weights))


def _read_if_there(part: Part, name: str, weights: str | Path) -> Any:
    """The weights of a part where a file has them; None where it is of another part alone."""
    file = find_weights(weights, name, part.sources).file
    try:
        found = part.architecture.fit(file, part.layouts)
    except CheckpointError:
        return None
    return part.architecture.params_of(found)


def generator_entry(
    *,
    decoder: Part,
    encoder: Part | None = None,
    code: tuple[int, ...],
    stride: int | None = None,
    range: tuple[float, float] = (0.0, 1.0),
    codes: Callable[[Mapping[str, np.ndarray]], Codes] | None = None,
    networks: tuple[str, ...] = (),
) -> Callable[[Callable[[], None]], GeneratorEntry]:
    """Makes a generator by name of a function, whose name and docstring it has.

    A module of the package `featvis.generators.networks` needs nothing more to be found by `load`.
    For the arguments see `GeneratorEntry`.
    """

    def decorate(named: Callable[[], None]) -> GeneratorEntry:
        summary = (named.__doc__ or "").strip().partition("\n")[0].rstrip(".")
        more = (codes, networks)
        return GeneratorEntry(named.__name__, summary, decoder, encoder, code, stride, range, *more)

    return decorate
