"""featvis: see what any unit of a network looks for, reproducibly and with evidence.

```python
import featvis as fv

model = fv.load("efficientnet_lite0")
result = fv.synthesize(model, "block8:3", fv.Fourier((160, 160)), steps=200)
result.save("unit.png")
```
"""

from featvis.errors import (
    CheckpointError,
    FeatvisError,
    InputError,
    NonFiniteError,
    OutputError,
    UnknownModel,
)
from featvis.evidence import compare_with_natural, vary_seed
from featvis.images import read_image
from featvis.models import Model, available, load
from featvis.parameterizations import *  # noqa: F403
from featvis.replay import VersionWarning, replay
from featvis.result import Result
from featvis.synthesis import synthesize
from objectives import *  # noqa: F403
