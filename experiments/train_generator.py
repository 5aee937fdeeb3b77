"""How is an image generator trained with its feature encoder, as Plug & Play needs it?

Paper: Nguyen et al. 2017, "Plug & Play Generative Networks", section 3.5 (noiseless joint PPGN-h)
    and Dosovitskiy & Brox 2016, "Generating Images with Perceptual Similarity Metrics with Deep
    Networks", whose image, feature and adversarial losses and pauses it has.
Command: python experiments/train_generator.py FOLDER -o OUT   (FOLDER has idx files as MNIST's, or
    a subfolder of images a class; --quick for a first look; a run that was cut off goes on)
Runtime: 40,000 steps of width 24 took 175 s on an H200 beside another program; on a CPU 6700 of
    8000 steps of width 16 were run.
What it showed: on MNIST, seed 0, `--width 24 --steps 40000`: the classifier is right on 99.0 % of
    the test digits, the judge on 98.4 %; G(E(x)) is off by 17 % of the pixels' variance, and its
    code by 3 %. Digits and their reconstructions are alike in slant and stroke; codes drawn from a
    normal law of the same mean and covariance are half digits. On the CPU no network was paused.
"""

from __future__ import annotations

import functools
import gzip
import json
import time
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax
import studies
from flax.traverse_util import flatten_dict
from PIL import Image

import featvis as fv
from featvis.generators.networks.mnist_ppgn import CodeDenoiser, CodeGenerator
from featvis.images import image_files
from featvis.pictures import to_picture
from featvis.zoo.networks.mnist import CodeClassifier, PooledClassifier

BATCH = 64
#: Steps between two looks at the clock and the figures.
CHUNK = 50
#: Weights of the generator's losses; all but the last are relative squared errors.
LOSSES = {"image": 1.0, "conv2": 0.3, "code": 0.3, "adversarial": 0.02}
#: Pauses of the generator's training: bounds of the discriminator's loss over the generator's.
PAUSES = (0.1, 10.0)
#: Of the noise on the codes that the denoiser sees, over the codes' own deviation.
CODE_NOISE = 0.5


class Images(NamedTuple):
    """What is learned from: images (n, h, w, c) uint8, their classes (n,)."""

    images: np.ndarray
    classes: np.ndarray


@dataclass(frozen=True)
class Data:
    """Images to learn from and to test with, and the classes' names."""

    train: Images
    test: Images
    names: tuple[str, ...]


# ---- what is read


def read_idx(path: Path) -> np.ndarray:
    """The array of bytes in an idx file, gzipped or not."""
    data = path.read_bytes()
    data = gzip.decompress(data) if path.suffix == ".gz" else data
    if len(data) < 4 or data[:3] != b"\0\0\x08":
        raise fv.InputError(f"{path} is no idx file of bytes")
    rank = data[3]
    shape = np.frombuffer(data, ">i4", rank, 4)
    values = np.frombuffer(data, np.uint8, -1, 4 + 4 * rank)
    if len(values) != np.prod(shape, dtype=np.int64):
        raise fv.InputError(f"{path} is cut off: {len(values)} bytes of an array {shape.tolist()}")
    return values.reshape(shape)


def read_data(folder: Path, size: int) -> Data:
    """Idx files as MNIST's, or a subfolder of images a class, a tenth of which is to test with."""
    parts = []
    for part in ("train", "t10k"):
        found = [sorted(folder.glob(f"{part}-{kind}-idx*")) for kind in ("images", "labels")]
        if all(found):
            images, classes = (read_idx(one[0]) for one in found)
            parts.append(Images(images[..., None], classes.astype(np.int32)))
    if len(parts) == 2:
        names = tuple(map(str, range(int(parts[0].classes.max()) + 1)))
        return Data(*parts, names)
    folders = sorted(one for one in folder.iterdir() if one.is_dir())
    if len(folders) < 2:
        raise fv.InputError(
            f"{folder} has neither idx files (train-images-idx3-ubyte.gz and so on) nor a "
            f"subfolder of images a class, at least two"
        )
    images, classes = [], []
    for number, one in enumerate(folders):
        found = fv.read_images(image_files(one), (size, size))
        images.append(np.rint(255 * found).astype(np.uint8))
        classes.append(np.full(len(found), number, np.int32))
    whole = Images(np.concatenate(images), np.concatenate(classes))
    order = np.random.default_rng(0).permutation(len(whole.classes))
    tenth = max(1, len(order) // 10)
    test, train = (Images(*(a[some] for a in whole)) for some in (order[:tenth], order[tenth:]))
    return Data(train, test, tuple(one.name for one in folders))


# ---- what is trained: each part a state, and an update of it

State = dict[str, Any]
Update = Callable[[State, jax.Array, jax.Array, jax.Array], tuple[State, dict[str, jax.Array]]]


def moved(images: jax.Array, key: jax.Array) -> jax.Array:
    """Images shifted by up to 2 pixels, zeros coming in."""
    n, height, width, channels = images.shape
    padded = jnp.pad(images, ((0, 0), (2, 2), (2, 2), (0, 0)))

    def cut(image: jax.Array, start: jax.Array) -> jax.Array:
        return jax.lax.dynamic_slice(image, (start[0], start[1], 0), (height, width, channels))

    return jax.vmap(cut)(padded, jax.random.randint(key, (n, 2), 0, 5))


def classifying(network: Any, rule: optax.GradientTransformation) -> Update:
    """An update of a classifier: cross-entropy on images that are moved a little."""

    def update(state: State, images: jax.Array, classes: jax.Array, key: jax.Array) -> Any:
        seen = moved(images, key)

        def loss(params: Any) -> jax.Array:
            logits = network(params, seen)["logits"]
            return optax.softmax_cross_entropy_with_integer_labels(logits, classes).mean()

        value, gradient = jax.value_and_grad(loss)(state["params"])
        steps, moments = rule.update(gradient, state["moments"], state["params"])
        params = optax.apply_updates(state["params"], steps)
        return {"params": params, "moments": moments}, {"loss": value}

    return update


def relative(found: jax.Array, wanted: jax.Array) -> jax.Array:
    """Mean squared error over the variance of what is wanted."""
    return jnp.mean((found - wanted) ** 2) / jnp.var(wanted)


class Discriminator:
    """Two strided convolutions and one number an image, above 0 for a real one."""

    def __init__(self, size: tuple[int, int], channels: int) -> None:
        places = (size[0] // 4) * (size[1] // 4)
        self.shapes = {
            "conv1": (4, 4, channels, 16),
            "conv2": (4, 4, 16, 32),
            "score": (32 * places, 1),
        }

    def init(self, seed: int) -> Any:
        """Weights as for training (He et al. 2015)."""
        rng = np.random.default_rng(seed)
        return {
            name: jnp.asarray(rng.normal(0, np.sqrt(2 / np.prod(shape[:-1])), shape), jnp.float32)
            for name, shape in self.shapes.items()
        }

    def __call__(self, params: Any, x: jax.Array) -> jax.Array:
        """Scores (n,) of images (n, h, w, c)."""
        for name in ("conv1", "conv2"):
            x = jax.lax.conv_general_dilated(
                x, params[name], (2, 2), "SAME", dimension_numbers=("NHWC", "HWIO", "NHWC")
            )
            x = jax.nn.leaky_relu(x, 0.2)
        return (x.reshape(len(x), -1) @ params["score"])[:, 0]


def generating(
    generator: CodeGenerator,
    encoder: CodeClassifier,
    encoding: Any,
    judge: Discriminator,
    rules: Mapping[str, optax.GradientTransformation],
) -> Update:
    """An update of the generator and its discriminator, each paused where it is far ahead."""

    def update(state: State, images: jax.Array, classes: jax.Array, key: jax.Array) -> Any:
        wanted = encoder(encoding, images)

        def of_generator(params: Any) -> Any:
            made = generator(params, wanted["code"])
            found = encoder(encoding, made)
            losses = {name: relative(found[name], wanted[name]) for name in ("conv2", "code")}
            losses["image"] = relative(made, images)
            losses["adversarial"] = jax.nn.softplus(-judge(state["judge"], made)).mean()
            return sum(LOSSES[name] * value for name, value in losses.items()), (losses, made)

        def of_judge(params: Any, made: jax.Array) -> jax.Array:
            real, false = judge(params, images), judge(params, made)
            return (jax.nn.softplus(-real).mean() + jax.nn.softplus(false).mean()) / 2

        (_, (losses, made)), gradient = jax.value_and_grad(of_generator, has_aux=True)(
            state["params"]
        )
        loss, against = jax.value_and_grad(of_judge)(state["judge"], made)
        ratio = loss / losses["adversarial"]
        new = {}
        pairs = {"params": (gradient, ratio <= PAUSES[1]), "judge": (against, ratio >= PAUSES[0])}
        for name, (slope, goes) in pairs.items():
            before = state[name], state[f"{name} moments"]
            steps, moments = rules[name].update(slope, before[1], before[0])
            after = optax.apply_updates(before[0], steps), moments
            new[name], new[f"{name} moments"] = jax.tree.map(
                lambda a, b, goes=goes: jnp.where(goes, a, b), after, before
            )
        paused = {f"{name} paused": 1.0 - goes for name, (_, goes) in pairs.items()}
        return new, {**losses, "judge": loss, **paused}

    return update


def denoising(
    network: CodeDenoiser,
    encoder: CodeClassifier,
    encoding: Any,
    deviation: jax.Array,
    rule: optax.GradientTransformation,
) -> Update:
    """An update of the autoencoder of codes: what they were before noise was added."""

    def update(state: State, images: jax.Array, classes: jax.Array, key: jax.Array) -> Any:
        code = encoder(encoding, images)["code"]
        noise = CODE_NOISE * deviation * jax.random.normal(key, code.shape)

        def loss(params: Any) -> jax.Array:
            return relative(network(params, code + noise), code)

        value, gradient = jax.value_and_grad(loss)(state["params"])
        steps, moments = rule.update(gradient, state["moments"], state["params"])
        params = optax.apply_updates(state["params"], steps)
        return {"params": params, "moments": moments}, {"loss": value}

    return update


# ---- the loop: chunks of steps, checkpoints between them


@dataclass(frozen=True)
class Trainer:
    """Trains one part after the other; what was cut off goes on from its last checkpoint.

    Attributes:
        data: what is learned from.
        folder: where checkpoints lie.
        seed: of the order of images, and of what is drawn.
        facts: all else that the weights depend on, plain data.

    Raises:
        InputError: the checkpoints there are of other facts.
    """

    data: Images
    folder: Path
    seed: int
    facts: Mapping[str, Any]

    def __post_init__(self) -> None:
        """Note what the run is of beside its checkpoints, or compare."""
        own = json.loads(json.dumps({**self.facts, "seed": self.seed}))
        note = self.folder / "run.json"
        if not note.is_file():
            self.folder.mkdir(parents=True, exist_ok=True)
            note.write_text(json.dumps(own, indent=1) + "\n", encoding="utf-8")
            return
        before = json.loads(note.read_text(encoding="utf-8"))
        for name in {**before, **own}:
            if before.get(name) != own.get(name):
                raise fv.InputError(
                    f"{self.folder} has checkpoints of a run with {name} {before.get(name)!r}; "
                    f"got {own.get(name)!r}: give another folder, as -o"
                )

    def train(
        self,
        name: str,
        state: State,
        update: Update,
        steps: int,
        look: Callable[[State, int], None] = lambda state, step: None,
    ) -> State:
        """The state after all steps.

        Args:
            name: of the part.
            state: before the first step.
            update: one step.
            steps: how many.
            look: is called after each checkpoint.
        """
        import orbax.checkpoint as ocp
        from tqdm import tqdm

        images, classes = map(jnp.asarray, self.data)
        root = jax.random.fold_in(jax.random.key(self.seed), sum(name.encode()))

        # A step a call: within a loop XLA computes convolutions several times slower on a CPU.
        @functools.partial(jax.jit, donate_argnums=0)
        def step(state: State, number: jax.Array, images: jax.Array, classes: jax.Array) -> Any:
            order, drawn = jax.random.split(jax.random.fold_in(root, number))
            some = jax.random.randint(order, (BATCH,), 0, len(images))
            batch = images[some].astype(jnp.float32) / 255
            return update(state, batch, classes[some], drawn)

        options = ocp.CheckpointManagerOptions(max_to_keep=1, enable_async_checkpointing=False)
        with ocp.CheckpointManager((self.folder / name).absolute(), options=options) as kept:
            done = kept.latest_step() or 0
            if done:
                state = kept.restore(done, args=ocp.args.StandardRestore(state))
            saved = time.perf_counter()
            with tqdm(total=steps, initial=done, desc=name, mininterval=5) as bar:
                while done < steps:
                    rows = []
                    for number in range(done, done + CHUNK):
                        state, figures = step(state, jnp.int32(number), images, classes)
                        rows.append(figures)
                    done += CHUNK
                    shown = {key: f"{np.mean([row[key] for row in rows]):.3g}" for key in rows[0]}
                    bar.set_postfix(shown, refresh=False)
                    bar.update(CHUNK)
                    if done >= steps or time.perf_counter() - saved > 60:
                        kept.save(done, args=ocp.args.StandardSave(state))
                        look(state, done)
                        saved = time.perf_counter()
        return state


def accuracy(network: Any, params: Any, images: Images) -> float:
    """The share of images whose class a classifier says."""
    said = jax.jit(lambda params, x: network(params, x)["logits"].argmax(-1))
    right = [
        np.asarray(said(params, jnp.asarray(images.images[i : i + 1000], jnp.float32) / 255))
        == images.classes[i : i + 1000]
        for i in range(0, len(images.classes), 1000)
    ]
    return float(np.concatenate(right).mean())


def sheet(rows: list[np.ndarray], path: Path) -> None:
    """A picture of rows of images (k, h, w, c) in [0, 1], one pixel apart."""
    rows = [np.pad(np.clip(row, 0, 1), ((0, 0), (0, 1), (0, 1), (0, 0))) for row in rows]
    whole = np.concatenate([np.concatenate(list(row), axis=1) for row in rows])
    picture = to_picture(whole)
    picture.resize((2 * picture.width, 2 * picture.height), Image.Resampling.NEAREST).save(path)


def flat(tree: Any) -> dict[str, np.ndarray]:
    """The arrays of a nested dict by their paths."""
    return {path: np.asarray(array) for path, array in flatten_dict(tree, sep="/").items()}


def main() -> None:
    """Train, write the weights with what is known of them, and draw what came out."""
    command = studies.CommandLine(
        __doc__,
        "generator",
        folder="idx files, or of a subfolder of images a class",
        required=True,
        holds=["train-images-idx*", "*/*"],
        needs=("orbax-checkpoint",),
        quick="a tenth of the steps",
        seed="the weights and the order of the images",
    )
    command.add_argument("--size", type=int, default=32, help="side of images that are no idx file")
    command.add_argument("--code", type=int, default=64, help="width of the code")
    command.add_argument("--width", type=int, default=24, help="of the generator's maps")
    command.add_argument("--steps", type=int, default=8000, help="of the generator")
    options = command.read()
    started = time.perf_counter()
    data = read_data(options.folder, options.size)
    height, width, channels = data.train.images.shape[1:]
    if height % 4 or width % 4:
        raise fv.InputError(f"sides are multiples of 4; got {height} x {width}")
    kind = {"size": (height, width), "channels": channels, "code": options.code}
    encoder = CodeClassifier(**kind, classes=len(data.names))
    generator = CodeGenerator(**kind, width=options.width)
    denoiser = CodeDenoiser(options.code)
    other = PooledClassifier(channels, len(data.names))
    share, seed = 10 if options.quick else 1, options.seed
    counts = {"classifier": 4000, "generator": options.steps, "denoiser": 3000, "judge": 6000}
    counts = {name: -(-count // (share * CHUNK)) * CHUNK for name, count in counts.items()}
    facts = {**kind, "width": options.width, "steps": counts, "images": len(data.train.images)}
    trainer = Trainer(data.train, options.out / "checkpoints", seed, facts)

    def rule(part: str, rate: float, **more: float) -> optax.GradientTransformation:
        return optax.adam(optax.cosine_decay_schedule(rate, counts[part]), **more)

    def classifier(part: str, network: Any, first: int) -> Any:
        params, adam = network.random_params(first), rule(part, 2e-3)
        state = {"params": params, "moments": adam.init(params)}
        return trainer.train(part, state, classifying(network, adam), counts[part])["params"]

    encoding = classifier("classifier", encoder, seed)
    print(f"classifier: test accuracy {accuracy(encoder, encoding, data.test):.4f}")
    encode = jax.jit(lambda x: encoder(encoding, x)["code"])
    decode = jax.jit(lambda params, code: generator(params, code))
    some = jnp.asarray(data.train.images[:20000], jnp.float32) / 255
    codes = np.concatenate(
        [np.asarray(encode(some[i : i + 1000])) for i in range(0, len(some), 1000)]
    )
    mean, deviation = codes.mean(0), codes.std(0)
    factor = np.linalg.cholesky(np.cov(codes.T) + 1e-6 * np.eye(options.code)).astype(np.float32)
    shown = jnp.asarray(data.test.images[:20], jnp.float32) / 255

    def look(state: State, step: int) -> None:
        once = decode(state["params"], encode(shown))
        twice = decode(state["params"], encode(once))
        drawn = np.random.default_rng(0).standard_normal((20, options.code), np.float32) @ factor.T
        free = decode(state["params"], jnp.asarray(np.maximum(mean + drawn, 0)))
        rows = [np.asarray(row) for row in (shown, once, twice, free)]
        sheet(rows, options.out / "sheet.png")

    judge = Discriminator((height, width), channels)
    rules = {"params": rule("generator", 1e-3, b1=0.5), "judge": rule("generator", 4e-4, b1=0.5)}
    state = {"params": generator.random_params(seed + 1), "judge": judge.init(seed + 2)}
    state |= {f"{name} moments": rules[name].init(state[name]) for name in rules}
    step = generating(generator, encoder, encoding, judge, rules)
    made = trainer.train("generator", state, step, counts["generator"], look)["params"]

    params, adam = denoiser.random_params(seed + 3), rule("denoiser", 2e-3)
    step = denoising(denoiser, encoder, encoding, jnp.asarray(deviation), adam)
    state = {"params": params, "moments": adam.init(params)}
    denoised = trainer.train("denoiser", state, step, counts["denoiser"])["params"]
    judging = classifier("judge", other, seed + 4)

    tested = jnp.asarray(data.test.images[:2000], jnp.float32) / 255
    again = decode(made, encode(tested))
    figures = {
        "classifier accuracy": accuracy(encoder, encoding, data.test),
        "judge accuracy": accuracy(other, judging, data.test),
        "image error": float(relative(again, tested)),
        "code error": float(relative(encode(again), encode(tested))),
        "code error of the denoiser": float(
            relative(denoiser(denoised, encode(tested)), encode(tested))
        ),
    }
    from safetensors.numpy import save_file

    parts = {"classifier": encoding, "generator": made, "denoiser": denoised, "judge": judging}
    arrays = flat({**parts, "codes": {"mean": mean, "deviation": deviation, "factor": factor}})
    card = {
        "data": options.folder.name,
        "classes": data.names,
        "seed": seed,
        "steps": counts,
        "batch": BATCH,
        "classifier": asdict(encoder),
        "generator": asdict(generator),
        "figures": {name: round(value, 5) for name, value in figures.items()},
    }
    arrays = {key: np.ascontiguousarray(a, np.float32) for key, a in arrays.items()}
    save_file(arrays, options.out / "generator.safetensors", {"card": json.dumps(card)})
    (options.out / "card.json").write_text(json.dumps(card, indent=1) + "\n")
    print("; ".join(f"{name} {value:.4f}" for name, value in figures.items()))
    studies.finish(started, options.out)


if __name__ == "__main__":
    studies.run(main)
