"""Methods of the papers: a few lines each over `synthesize`, and their recipes."""

from featvis.methods.accentuation import accentuate, accentuation
from featvis.methods.caricature import CARICATURES, caricature, exaggeration, ijcv2016_caricature
from featvis.methods.class_models import (
    CLASS_MODELS,
    CLASS_OBJECTIVES,
    VISUALIZATIONS,
    class_model,
    maco,
    simonyan2013,
    visualization,
)
from featvis.methods.inversion import (
    INVERSIONS,
    cvpr2015,
    ijcv2016,
    invert,
    metamer,
    modern,
    plug_in,
)
from featvis.methods.recipe import (
    Presets,
    Recipe,
    Setting,
    Stage,
    altered,
    preset_of,
    run_recipe,
    setting_of,
)

__all__ = [
    "CARICATURES",
    "CLASS_MODELS",
    "CLASS_OBJECTIVES",
    "INVERSIONS",
    "VISUALIZATIONS",
    "Presets",
    "Recipe",
    "Setting",
    "Stage",
    "accentuate",
    "accentuation",
    "altered",
    "caricature",
    "class_model",
    "cvpr2015",
    "exaggeration",
    "ijcv2016",
    "ijcv2016_caricature",
    "invert",
    "maco",
    "metamer",
    "modern",
    "plug_in",
    "preset_of",
    "run_recipe",
    "setting_of",
    "simonyan2013",
    "visualization",
]
