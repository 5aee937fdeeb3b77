"""What parameterizations that hold another one have in common."""

from __future__ import annotations

from typing import ClassVar

from featvis import checks
from featvis.parameterizations.parameterization import Parameterization, Params


class Around(Parameterization):
    """Base of those around another parameterization, `of`, whose channels are theirs by default.

    What `of` holds and what it shares, they hold and share; one that has more adds it. What
    draws its parameters draws theirs.
    """

    #: What `of` is to be, as the message says.
    wanted: ClassVar[str] = "a parameterization, as Fourier((160, 160))"

    channels: int = None  # type: ignore[assignment]  # an int from the construction on
    of: Parameterization | None = None

    def __post_init__(self) -> None:
        """Check the fields and turn them into plain literals."""
        if not isinstance(self.of, Parameterization):
            raise checks.error(self, "of", self.wanted, self.of)
        if self.channels is None:
            checks.set_fields(self, channels=self.of.channels)
        super().__post_init__()

    @property
    def held(self) -> frozenset[str]:
        """What `of` holds."""
        return self._of.held

    @property
    def shared(self) -> frozenset[str]:
        """What `of` shares."""
        return self._of.shared

    def pull(self, params: Params) -> Params:
        """Return what draws the parameters of `of`."""
        return self._of.pull(params)

    @property
    def _of(self) -> Parameterization:
        assert self.of is not None  # checked at construction
        return self.of
