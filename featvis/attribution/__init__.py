"""Attribution: which parts of an image a score depends on.

A method is one function with its formula under `@method`, in any file of this folder; `explain`
does all the rest.
"""

from featvis.attribution.explain import explain
from featvis.attribution.explanation import Explanation
from featvis.attribution.measuring import measured, sanity_check, sensitivity
from featvis.attribution.method import Explained, Probed, method, methods
from featvis.attribution.similarity import PairExplanation, explain_pair, similarity

__all__ = [
    "Explained",
    "Explanation",
    "PairExplanation",
    "Probed",
    "explain",
    "explain_pair",
    "measured",
    "method",
    "methods",
    "sanity_check",
    "sensitivity",
    "similarity",
]
