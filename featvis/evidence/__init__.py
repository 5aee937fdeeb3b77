"""Evidence: what a picture proves."""

from featvis.evidence.natural import compare_with_natural
from featvis.evidence.recognition import recognition
from featvis.evidence.seeds import vary_seed
from featvis.evidence.trust import TrustWarning, trust

__all__ = ["TrustWarning", "compare_with_natural", "recognition", "trust", "vary_seed"]
