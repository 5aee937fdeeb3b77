"""Every attribution method with options that make it quick: a method without a case fails."""

from typing import Any, NamedTuple


class Case(NamedTuple):
    """A method as the laws try it.

    Attributes:
        name: of the method.
        options: of it.
        tokens: whether it needs attention.
        signed: whether its maps have values below 0.
    """

    name: str
    options: dict[str, Any]
    tokens: bool = False
    signed: bool = False


CASES = [
    Case("attention_rollout", {}, tokens=True),
    Case("expected_gradients", {"samples": 4}, signed=True),
    Case("grad_cam", {}),
    Case("grad_cam_plus_plus", {}),
    Case("gradient_times_input", {}, signed=True),
    Case("integrated_gradients", {"steps": 4}, signed=True),
    Case("layer_cam", {}),
    Case("saliency", {}),
    Case("smooth_grad", {"samples": 4}),
    Case("smooth_taylor", {"samples": 4}, signed=True),
    Case("transformer_attribution", {}, tokens=True),
    Case("var_grad", {"samples": 4}),
    Case("zoom_cam", {}),
]
