"""Evidence: what a picture proves."""

from featvis.evidence.natural import compare_with_natural
from featvis.evidence.recognition import recognition
from featvis.evidence.seeds import vary_seed

__all__ = ["compare_with_natural", "recognition", "vary_seed"]
