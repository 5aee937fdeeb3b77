"""What the command line says of a result."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from featvis.errors import printable
from featvis.models import Model
from featvis.results.result import Result
from featvis.told import Told
from objectives import Logit, LogProbability, Probability


def told_of(result: Result, text: str, path: Path, seed: Any, **more: Any) -> Told:
    """What is said of a result: a number for one image, a list for more.

    Args:
        result: what was made.
        text: what it shows.
        path: where it was written.
        seed: that was asked for.
        **more: what else is in the record.
    """
    told, alone = result.summary(), len(result) == 1
    evidence = {name: told["evidence"][name] for name in result.evidence}
    record: dict[str, Any] = {
        "objective": text,
        "image": str(path),
        "score": told["score"],
        "clean_score": told["clean_score"],
        "seconds": round(result.seconds / (result.runs[-1].images // len(result)), 3),
        "steps": int(max(result.steps)),
        "seed": seed,
        "model": result.run.parts.model.name,
        "stopped": told["stopped"],
        "silent": told["silent"],
        **evidence,
        **more,
    }
    facts = [f"clean score {_shown(told['clean_score'])}", f"transformed {_shown(told['score'])}"]
    facts += [f"{name.replace('_', ' ')} {_shown(values)}" for name, values in evidence.items()]
    if set(result.stopped) != {"steps"}:
        facts.append(f"stopped at step {record['steps']} ({', '.join(sorted({*result.stopped}))})")
    number = sum(why is not None for why in result.silent)
    if number:
        facts.append("no gradient" if alone else f"no gradient for {number} of {len(result)}")
    facts.append(f"{record['seconds']:.1f} s")
    plain = {k: v[0] if alone and isinstance(v, list) else v for k, v in record.items()}
    return Told([plain], [f"{printable(text)}  {', '.join(facts)}  {printable(path)}"])


def _shown(values: Sequence[float | None]) -> str:
    return ", ".join("not finite" if v is None else f"{v:.4g}" for v in values)


def label(objective: Any, network: Model) -> str:
    """Return the text under a picture: a class has its name.

    Args:
        objective: what the picture shows.
        network: whose classes they are.
    """
    is_class = isinstance(objective, (Logit, Probability, LogProbability))
    if is_class and network.labels and np.ndim(objective.index) == 0:
        return f"{objective}: {network.labels[int(np.asarray(objective.index))]}"
    return str(objective)
