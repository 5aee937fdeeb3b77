"""The loop: optimises the parameters of images until an objective is as high as it goes."""

from featvis.synthesis.many import synthesize_many
from featvis.synthesis.run import synthesize

__all__ = ["synthesize", "synthesize_many"]
