"""What XLA is slow at on a CPU, written so that it is fast: the kernels of a step."""

from featvis.kernels.compiling import (
    OPTIONS,
    SWEPT,
    compiled,
    compiler_options,
    processor,
)
from featvis.kernels.convolution import (
    Padding,
    conv,
    conv_of_equation,
    resolve_padding,
    same_padding,
)
from featvis.kernels.dense import transformed_bytes
from featvis.kernels.gather import take
from featvis.kernels.keeping import kept, on_cpu

__all__ = [
    "OPTIONS",
    "SWEPT",
    "Padding",
    "compiled",
    "compiler_options",
    "conv",
    "conv_of_equation",
    "kept",
    "on_cpu",
    "processor",
    "resolve_padding",
    "same_padding",
    "take",
    "transformed_bytes",
]
