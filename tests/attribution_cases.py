"""Every attribution method with options that make it quick: a method without a case fails."""

from typing import Any, NamedTuple

import numpy as np


class Case(NamedTuple):
    """A method as the laws try it.

    Attributes:
        name: of the method.
        options: of it.
        tokens: whether it needs attention.
        signed: whether its maps have values below 0.
        coarse: whether it needs a picture with edges, or one that a blur changes: no noise.
    """

    name: str
    options: dict[str, Any]
    tokens: bool = False
    signed: bool = False
    coarse: bool = False


#: Squares of 4 pixels in images of 24.
_SQUARES = np.arange(24)[:, None] // 4 * 6 + np.arange(24) // 4

CASES = [
    Case("attention_rollout", {}, tokens=True),
    Case("deconvnet", {}),
    Case("expected_gradients", {"samples": 4}, signed=True),
    Case("extremal", {"iterations": 3, "areas": "0.1", "step": 4, "sigma": 4}, coarse=True),
    Case("grad_cam", {}),
    Case("grad_cam_plus_plus", {}),
    Case("gradient_times_input", {}, signed=True),
    Case("guided_backpropagation", {}),
    Case("guided_nonlinearity", {}),
    Case("guided_nonlinearity_ig", {"steps": 4}, signed=True),
    Case("igos", {"iterations": 4, "steps": 2}, coarse=True),
    Case("integrated_gradients", {"steps": 4}, signed=True),
    Case("kernel_shap", {"samples": 80, "labels": _SQUARES, "baseline": "black"}, signed=True),
    Case("layer_cam", {}),
    Case("lime", {"samples": 200, "labels": _SQUARES, "baseline": "black"}, signed=True),
    Case("lrp_0", {}, signed=True),
    Case("lrp_alpha_beta", {}, signed=True),
    Case("lrp_composite", {}, signed=True),
    Case("lrp_epsilon", {}, signed=True),
    Case("lrp_gamma", {}, signed=True),
    Case("lrp_z_plus", {}, signed=True),
    Case("mfpp", {"masks": 40, "scales": 2}, signed=True, coarse=True),
    Case("occlusion", {"window": 4, "stride": 4, "baseline": "black"}, signed=True),
    Case("rise", {"masks": 6000, "grid": 6, "keep": 0.5, "baseline": "black"}, signed=True),
    Case("saliency", {}),
    Case("salient_mask", {"iterations": 3}, coarse=True),
    Case("smooth_grad", {"samples": 4}),
    Case("smooth_taylor", {"samples": 4}, signed=True),
    Case("transformer_attribution", {}, tokens=True),
    Case("var_grad", {"samples": 4}),
    Case("zoom_cam", {}),
]
