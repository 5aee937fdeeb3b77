"""Attribution: which pixels of an image a score depends on."""

from featvis.attribution.gradients import saliency

__all__ = ["saliency"]
