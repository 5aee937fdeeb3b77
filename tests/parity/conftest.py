import contextlib
import sys

# Where torchvision is installed but does not import, transformers' models would not either.
try:
    import torchvision  # noqa: F401
except Exception:
    sys.modules["torchvision"] = None  # type: ignore[assignment]

# Several workers have a core each: of more threads than cores each waits for the others.
with contextlib.suppress(ImportError):
    import torch

    torch.set_num_threads(1)
