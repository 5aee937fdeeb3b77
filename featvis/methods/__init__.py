"""Methods of the papers: a few lines each over `synthesize`, and their recipes."""

from featvis.methods.accentuation import accentuate, accentuation
from featvis.methods.caricature import caricature, exaggeration, ijcv2016_caricature
from featvis.methods.class_models import (
    CLASS_OBJECTIVES,
    class_model,
    exp_maximization,
    maco,
    simonyan2013,
    visualization,
)
from featvis.methods.facets import (
    Facets,
    FacetWarning,
    facets,
    modern_facets,
    nguyen2016_centre,
    nguyen2016_mean,
)
from featvis.methods.inversion import cvpr2015, ijcv2016, invert, metamer, modern, plug_in
from featvis.methods.recipe import (
    Recipe,
    Setting,
    Stage,
    altered,
    chosen,
    preset,
    presets,
    run_recipe,
    setting_of,
)

__all__ = [
    "CLASS_OBJECTIVES",
    "FacetWarning",
    "Facets",
    "Recipe",
    "Setting",
    "Stage",
    "accentuate",
    "accentuation",
    "altered",
    "caricature",
    "chosen",
    "class_model",
    "cvpr2015",
    "exaggeration",
    "exp_maximization",
    "facets",
    "ijcv2016",
    "ijcv2016_caricature",
    "invert",
    "maco",
    "metamer",
    "modern",
    "modern_facets",
    "nguyen2016_centre",
    "nguyen2016_mean",
    "plug_in",
    "preset",
    "presets",
    "run_recipe",
    "setting_of",
    "simonyan2013",
    "visualization",
]
