"""Methods of the papers: a few lines each over `synthesize`, and their recipes."""

from featvis.methods.accentuation import accentuate, accentuation
from featvis.methods.activation_atlas import (
    ActivationAtlas,
    Tile,
    activation_atlas,
    neuron_groups,
)
from featvis.methods.caricature import caricature, exaggeration, ijcv2016_caricature
from featvis.methods.class_models import (
    CLASS_OBJECTIVES,
    class_model,
    exp_maximization,
    maco,
    octaves,
    simonyan2013,
    visualization,
)
from featvis.methods.diversity import cadena2018, constrained, diverse, gram_diversity
from featvis.methods.facets import (
    Facets,
    FacetWarning,
    facets,
    modern_facets,
    nguyen2016_centre,
    nguyen2016_mean,
)
from featvis.methods.invariance import Invariance, invariance
from featvis.methods.invariance_table import invariance_table
from featvis.methods.inversion import cvpr2015, ijcv2016, invert, metamer, modern, plug_in
from featvis.methods.plug_and_play import dgn_am, modern_sampling, ppgn_h, ppgn_joint, ppgn_x
from featvis.methods.recipe import (
    Recipe,
    Setting,
    Stage,
    altered,
    asked,
    chosen,
    preset,
    presets,
    run_recipe,
    setting_of,
)
from featvis.methods.samples import Samples
from featvis.methods.sampling import sample
from featvis.methods.trade_off import TradeOff, trade_off
from featvis.methods.visualizing import visualize

__all__ = [
    "CLASS_OBJECTIVES",
    "ActivationAtlas",
    "FacetWarning",
    "Facets",
    "Invariance",
    "Recipe",
    "Samples",
    "Setting",
    "Stage",
    "Tile",
    "TradeOff",
    "accentuate",
    "accentuation",
    "activation_atlas",
    "altered",
    "asked",
    "cadena2018",
    "caricature",
    "chosen",
    "class_model",
    "constrained",
    "cvpr2015",
    "dgn_am",
    "diverse",
    "exaggeration",
    "exp_maximization",
    "facets",
    "gram_diversity",
    "ijcv2016",
    "ijcv2016_caricature",
    "invariance",
    "invariance_table",
    "invert",
    "maco",
    "metamer",
    "modern",
    "modern_facets",
    "modern_sampling",
    "neuron_groups",
    "nguyen2016_centre",
    "nguyen2016_mean",
    "octaves",
    "plug_in",
    "ppgn_h",
    "ppgn_joint",
    "ppgn_x",
    "preset",
    "presets",
    "run_recipe",
    "sample",
    "setting_of",
    "simonyan2013",
    "trade_off",
    "visualization",
    "visualize",
]
