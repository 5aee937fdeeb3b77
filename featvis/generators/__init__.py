"""Generators: by name, and one's own. One file with one function under `@generator_entry` adds one.

```python
taef2 = fv.generators.load("taef2", weights="folder/")
result = fv.synthesize(model, "logits:285", fv.Latent((192, 192), generator=taef2))
```
"""

from featvis.generators.entry import GeneratorEntry
from featvis.generators.finding import available, fetch, load
from featvis.generators.own import from_function, from_linen, from_nnx

__all__ = [
    "GeneratorEntry",
    "available",
    "fetch",
    "from_function",
    "from_linen",
    "from_nnx",
    "load",
]
