import sys

# Where torchvision is installed but does not import, transformers' models would not either.
try:
    import torchvision  # noqa: F401
except Exception:
    sys.modules["torchvision"] = None  # type: ignore[assignment]
