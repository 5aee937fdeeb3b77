"""Atlases: pictures of every unit of some layers, in a store that one can stop and go on with."""

from featvis.atlas.driver import atlas
from featvis.atlas.reader import Atlas, Natural, Picture, Unit
from featvis.atlas.sheet import Sheet, sheet
from featvis.atlas.store import OBJECTIVES, ROLES

__all__ = ["OBJECTIVES", "ROLES", "Atlas", "Natural", "Picture", "Sheet", "Unit", "atlas", "sheet"]
