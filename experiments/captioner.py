"""Can a picture be asked for in words, through a network that captions pictures?

Paper: Nguyen et al. 2017, "Plug & Play Generative Networks", section 4.4 and figure 6, who sample
    pictures of ImageNet by the sentences of an image captioner (Donahue et al. 2015). Ours is small
    and of digits: it says "a seven", "a bold seven" or "a thin seven", by how much ink a digit has
    among those of its class; a convolutional eye, and a recurrent network that says the words.
Command: python experiments/captioner.py FOLDER -o OUT   (FOLDER has MNIST's idx files; --quick for
    fewer steps and samples; training that was cut off goes on). Then, without -o and from here:
    PYTHONPATH=experiments featvis sample mnist_ppgn --words "a thin two" --model captioner:trained
Runtime: 1 minute on two cores, of which training takes 11 s; --quick 38 s.
What it showed: of 2,000 test digits 0.913 are called theirs, and 0.995 thin or bold as they are. Of
    ten samples of each of the twenty sentences all 200 are the digit to a judge that had no part in
    them, "a thin ..." at a third of the ink of "a bold ..." (mean 0.072 against 0.189). They look
    so: whole digits, a few thin threes and sevens with a gap, bold twos with a filled loop; bold
    ones of a digit are much alike. Before codes were written as the draw that they are made of, of
    thin ones 0.73 were, sevens, eights and nines in pieces.
"""

from __future__ import annotations

import json
import time
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
import studies
from flax.traverse_util import unflatten_dict
from train_generator import Data, Images, State, Trainer, Update, flat, moved, read_data, sheet

import featvis as fv
from featvis.generators.networks.mnist_ppgn import CodeEncoder

DIGITS = ("zero", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine")
STROKES = ("thin", "bold")
VOCABULARY = ("a", *STROKES, *DIGITS)
_OUT, _FILE = "captioner", "captioner.safetensors"
#: A caption's places; the last of a digit that is neither thin nor bold is empty.
_LENGTH, _NOTHING = 3, -1
#: Width of what the eye sees and of what the words before leave behind.
_WIDTH = 64
_EYE = CodeEncoder(code=_WIDTH)


def captions(images: np.ndarray, classes: np.ndarray) -> np.ndarray:
    """The numbers of words of digits, (n, 3): the third of each class with the least ink is thin.

    Args:
        images: (n, h, w, 1).
        classes: (n,).
    """
    ink = images.reshape(len(images), -1).mean(1)
    found = np.full((len(images), _LENGTH), _NOTHING, np.int32)
    found[:, 0] = VOCABULARY.index("a")
    for digit, name in enumerate(DIGITS):
        own = classes == digit
        found[own, 1] = VOCABULARY.index(name)
        low, high = np.quantile(ink[own], (1 / 3, 2 / 3))
        for stroke, some in zip(STROKES, (own & (ink < low), own & (ink > high)), strict=True):
            found[some, 1:] = VOCABULARY.index(stroke), VOCABULARY.index(name)
    return found


def random_params(seed: int) -> dict[str, Any]:
    """Weights as for training (Glorot and Bengio 2010)."""
    rng, words = np.random.default_rng(seed), len(VOCABULARY)
    shapes = {
        "see": (_WIDTH, _WIDTH),
        "heard": (words, _WIDTH),
        "before": (_WIDTH, _WIDTH),
        "say": (_WIDTH, words),
    }
    drawn = {
        name: jnp.asarray(rng.normal(0, np.sqrt(2 / sum(shape)), shape), jnp.float32)
        for name, shape in shapes.items()
    }
    return {"eye": _EYE.random_params(seed), **drawn}


def said(params: Any, images: jax.Array, words: jax.Array) -> jax.Array:
    """The logarithm of the probability of each word, given the image and those before, (n, t).

    Args:
        params: as `random_params` has them.
        images: (n, h, w, 1).
        words: their numbers, (n, t), or (t,) of all images.
    """
    seen = _EYE(params["eye"], images) @ params["see"]
    words = jnp.broadcast_to(words, (len(images), words.shape[-1]))
    state, found = jnp.tanh(seen), []
    for word in words.T:
        every = jax.nn.log_softmax(state @ params["say"])
        found.append(jnp.take_along_axis(every, jnp.maximum(word, 0)[:, None], 1)[:, 0])
        state = jnp.tanh(seen + params["heard"][jnp.maximum(word, 0)] + state @ params["before"])
    return jnp.stack(found, 1)


def captioning(rule: optax.GradientTransformation) -> Update:
    """An update of the captioner: cross-entropy of each word after those that are right."""

    def update(state: State, images: jax.Array, words: jax.Array, key: jax.Array) -> Any:
        seen = moved(images, key)

        def loss(params: Any) -> jax.Array:
            return -jnp.mean(jnp.sum(jnp.where(words < 0, 0, said(params, seen, words)), 1))

        value, gradient = jax.value_and_grad(loss)(state["params"])
        steps, moments = rule.update(gradient, state["moments"], state["params"])
        params = optax.apply_updates(state["params"], steps)
        return {"params": params, "moments": moments}, {"loss": value}

    return update


def captioner(params: Any) -> fv.Captioner:
    """The network of weights."""
    seen = fv.Input((28, 28), channels=1, fixed_size=True)
    return fv.Captioner(said, params, VOCABULARY, seen, "captioner of digits")


def trained() -> fv.Captioner:
    """The captioner that this study wrote, as it does without `-o`, where it was called."""
    from safetensors.numpy import load_file

    params = unflatten_dict(load_file(Path(_OUT) / _FILE), sep="/")
    return captioner(jax.tree.map(jnp.asarray, params))


def right(params: Any, data: Data) -> tuple[float, float]:
    """Shares of test digits whose digit it says after "a", and of thin or bold ones so called."""
    images = jnp.asarray(data.test.images[:2000], jnp.float32) / 255
    words = captions(data.test.images, data.test.classes)[:2000]
    choices = jnp.asarray([VOCABULARY.index(name) for name in DIGITS])
    strokes = jnp.asarray([VOCABULARY.index(name) for name in STROKES])
    after = jnp.asarray([VOCABULARY.index("a")])

    @jax.jit
    def second(params: Any, number: jax.Array) -> jax.Array:
        return said(params, images, jnp.concatenate([after, number[None]]))[:, 1]

    of_digits = np.stack([second(params, number) for number in choices])
    of_strokes = np.stack([second(params, number) for number in strokes])
    stroked = words[:, 2] != _NOTHING
    called = of_strokes.argmax(0)[stroked] == words[stroked, 1] - int(strokes[0])
    plain = of_digits.argmax(0) == data.test.classes[:2000]
    return float(plain.mean()), float(called.mean())


def main() -> None:
    """Train the captioner, ask for sentences, and see what the judge says."""
    command = studies.CommandLine(
        __doc__,
        _OUT,
        folder="MNIST's idx files",
        required=True,
        holds=["train-images-idx*"],
        needs=("orbax-checkpoint",),
        quick="a quarter of the steps, and 4 samples a sentence in place of 10",
        seed="the weights, the order of images, and all chains",
    )
    options = command.read()
    started, out, seed = time.perf_counter(), options.out, options.seed
    steps, n = (500, 4) if options.quick else (2000, 10)
    data = read_data(options.folder, 28)
    words = captions(data.train.images, data.train.classes)
    rule = optax.adam(optax.cosine_decay_schedule(2e-3, steps))
    params = random_params(seed)
    state = {"params": params, "moments": rule.init(params)}
    facts = {"steps": steps, "images": len(words)}
    trainer = Trainer(Images(data.train.images, words), out / "checkpoints", seed, facts)
    params = trainer.train("captioner", state, captioning(rule), steps)["params"]
    from safetensors.numpy import save_file

    save_file({name: np.ascontiguousarray(a) for name, a in flat(params).items()}, out / _FILE)
    of_digits, of_strokes = right(params, data)
    print(f"test digits: {of_digits:.3f} called theirs, {of_strokes:.3f} thin or bold so called")

    network, judge, rows, figures = captioner(params), fv.load("mnist_judge"), [], {}
    for stroke in STROKES:
        hits, ink = [], []
        for digit, name in enumerate(DIGITS):
            sentence = f"a {stroke} {name}"
            found = fv.sample("mnist_ppgn", n, words=sentence, model=network, judge=judge,
                              seed=seed, progress=False)  # fmt: skip
            images = found.result.images
            hits.append(np.asarray(judge(images)["logits"]).argmax(1) == digit)
            ink.append(images.mean())
            rows.append(images[:10])
            figures[sentence] = {
                "accepted": found.acceptance,
                "judged": float(hits[-1].mean()),
                "ink": float(ink[-1]),
            }
        least = min(float(one.mean()) for one in hits)
        print(f"{stroke}: judged {np.mean(hits):.3f}, least of a digit {least:.2f}, "
              f"mean ink {np.mean(ink):.3f}", flush=True)  # fmt: skip
    sheet(rows, out / "words.png")
    (out / "figures.json").write_text(json.dumps(figures, indent=1) + "\n")
    studies.finish(started, out)


if __name__ == "__main__":
    studies.run(main)
