"""Atlases: pictures of every unit of some layers, in a store that one can stop and go on with."""

from featvis.atlas.driver import atlas
from featvis.atlas.reader import Atlas
from featvis.atlas.sheet import Sheet, sheet
from featvis.atlas.store import OBJECTIVES, ROLES
from featvis.atlas.units import Natural, Picture, Unit

__all__ = ["OBJECTIVES", "ROLES", "Atlas", "Natural", "Picture", "Sheet", "Unit", "atlas", "sheet"]
