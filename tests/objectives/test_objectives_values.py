"""Ground truths in closed form, one or more for each objective."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import objectives as ob

pytestmark = pytest.mark.usefixtures("quick_to_compile")
RNG = np.random.default_rng(0)
MAPS = RNG.normal(size=(3, 4, 6, 5)).astype(np.float32)
LOGITS = RNG.normal(size=(3, 7)).astype(np.float32)
PIXELS = RNG.uniform(size=(3, 8, 6, 3)).astype(np.float32)
ACTS = ob.Activations(maps=jnp.asarray(MAPS), logits=jnp.asarray(LOGITS))

jitted = jax.jit(lambda objective, acts, image: objective(acts, image))


def scores(objective: ob.Objective, image=PIXELS, **acts: np.ndarray) -> np.ndarray:
    given = ob.Activations({k: jnp.asarray(a, jnp.float32) for k, a in acts.items()})
    return np.asarray(jitted(objective, given or ACTS, jnp.asarray(image, jnp.float32)))


def agree(objective: ob.Objective, expected, image=PIXELS, **acts) -> None:
    found = scores(objective, image, **acts)
    expected = np.broadcast_to(np.asarray(expected, np.float32), found.shape)
    np.testing.assert_allclose(found, expected, rtol=1e-5, atol=1e-6)


# ---- units


def test_channel_is_the_mean_of_its_map() -> None:
    agree(ob.Channel("maps", 2), MAPS[..., 2].mean((1, 2)))
    agree(ob.Channel("maps", [0, 4, 1]), [MAPS[i, ..., k].mean() for i, k in enumerate([0, 4, 1])])
    agree(ob.Channel("logits", 2), LOGITS[:, 2])


def test_the_centre_of_a_map_that_is_not_square() -> None:
    agree(ob.Neuron("maps", 2), MAPS[:, 2, 3, 2])
    agree(ob.Neuron("a", 0), 1, a=np.eye(11)[5][None, :].repeat(5, 0)[None, ..., None] * 1.0)
    wide = np.zeros((1, 3, 9, 1))
    wide[0, 1, 4] = 1
    agree(ob.Neuron("a", 0), 1, a=wide)
    agree(ob.Neuron("a", 0), 1, a=wide.transpose(0, 2, 1, 3))
    agree(ob.DirectionNeuron("a", [2.0]), 2, a=wide)


def test_a_position_is_y_then_x() -> None:
    agree(ob.Neuron("maps", 1, (3, 5)), MAPS[:, 3, 5, 1])
    expected = [MAPS[0, 3, 5, 1], MAPS[1, 0, 0, 2], MAPS[2, 1, 4, 0]]
    agree(ob.Neuron("maps", [1, 2, 0], [[3, 5], [0, 0], [1, 4]]), expected)


@pytest.mark.parametrize("scale", [1e-6, 1.0, 1e6])
def test_the_cosine_is_true_at_any_scale(scale: float) -> None:
    vector = np.array([3.0, 4.0])
    acts = np.array([[3.0, 4.0], [-4.0, 3.0], [-3.0, -4.0]]) * scale
    dot = np.array([25.0, 0, -25]) * scale
    # Power 1: cosines 1, 0 and -1, the last two raised to the floor of 0.1.
    for objective in (ob.Direction("a", vector, power=1.0),):
        np.testing.assert_allclose(
            scores(objective, a=acts), dot * [1, 0.1, 0.1], rtol=1e-5, atol=1e-6 * scale
        )
    match = ob.FeatureMatch("a", [[3.0, 4.0]], metric="cosine")
    np.testing.assert_allclose(scores(match, a=acts), [1, 0, -1], atol=1e-6)
    caricature = ob.Caricature("a", [[3.0, 4.0]], power=2.0)
    np.testing.assert_allclose(
        scores(caricature, a=acts) / scale, [1, 0, -0.01], rtol=1e-5, atol=1e-6
    )


def test_direction() -> None:
    v = np.array([1.0, -2, 0, 0.5, 3])
    dot = MAPS @ v
    cos = dot / np.linalg.norm(MAPS, axis=-1) / np.linalg.norm(v)
    agree(ob.Direction("maps", v), dot.mean((1, 2)))
    agree(ob.Direction("maps", v, power=4), (dot * np.maximum(0.1, cos) ** 4).mean((1, 2)))
    at = (dot * np.maximum(0.1, cos))[:, 1, 5]
    agree(ob.DirectionNeuron("maps", v, (1, 5), power=1), at)
    agree(ob.Direction("maps", np.eye(5)[2]), scores(ob.Channel("maps", 2)))
    several = ob.Direction("maps", np.stack([v, 2 * v, -v]))
    agree(several, dot.mean((1, 2)) * [1, 2, -1])


@pytest.mark.thorough
def test_a_dead_map_has_a_finite_gradient() -> None:
    dead = jnp.zeros((2, 4, 6, 5))
    for objective in (
        ob.Direction("maps", np.ones(5), power=2.0),
        ob.Caricature("maps", MAPS[:1]),
        ob.FeatureMatch("maps", MAPS[:1], metric="cosine"),
        ob.FeatureMatch("maps", MAPS[:1], metric="log"),
        ob.Style("maps", ob.gram(MAPS[:1])),
        ob.Diversity("maps"),
        ob.MinDistance("maps"),
        ob.BatchStatistics("maps", np.zeros(5), np.zeros(5)),
        ob.TotalVariation(1.0),
        ob.AlphaNorm(1.0),
    ):
        x = jnp.full((2, 8, 6, 3), 0.5)
        g = jax.jit(jax.grad(lambda a, x, o=objective: o({"maps": a}, x).sum(), (0, 1)))(dead, x)
        assert all(np.isfinite(value).all() for value in g), objective


def test_layer_is_the_mean_square() -> None:
    agree(ob.Layer("maps"), (MAPS**2).mean((1, 2, 3)))


def test_classes() -> None:
    softmax = np.exp(LOGITS) / np.exp(LOGITS).sum(1, keepdims=True)
    agree(ob.Logit(3), LOGITS[:, 3])
    agree(ob.Probability(3), softmax[:, 3])
    agree(ob.LogProbability([1, 0, 6]), np.log(softmax[[0, 1, 2], [1, 0, 6]]))
    agree(ob.Probability(0), 0.25, logits=np.zeros((1, 4)))
    agree(sum(ob.Probability(k) for k in range(7)), 1)
    # Far from the class the probability is 0 and its logarithm still counts.
    far = np.array([[1000.0, 0.0]])
    agree(ob.Probability(1), 0, logits=far)
    agree(ob.LogProbability(1), -1000, logits=far)


# ---- comparisons


def test_feature_match() -> None:
    own = ob.FeatureMatch("maps", MAPS)
    agree(own, 0)
    agree(own, -1, maps=np.zeros_like(MAPS))
    agree(own, -1, maps=2 * MAPS)
    agree(own, -4, maps=-MAPS)
    agree(ob.FeatureMatch("maps", MAPS * 1e-5), -1, maps=np.zeros_like(MAPS))
    agree(ob.FeatureMatch("maps", MAPS, metric="cosine"), 1, maps=7 * MAPS)
    agree(ob.FeatureMatch("maps", MAPS, metric="cosine"), -1, maps=-MAPS)
    agree(ob.FeatureMatch("maps", MAPS, metric="cosine"), 0, maps=np.zeros_like(MAPS))


def test_log_metric_is_minus_the_logarithm_of_the_relative_error() -> None:
    own = ob.FeatureMatch("maps", MAPS, metric="log")
    for error in (2.0, 1.0, 0.1, 0.01):
        agree(own, -np.log(error), maps=(1 + error) * MAPS.astype(np.float64))
    other = RNG.normal(size=MAPS.shape)
    squares = ((other - MAPS) ** 2).sum((1, 2, 3)) / (MAPS**2).sum((1, 2, 3))
    agree(own, -np.log(np.sqrt(squares)), maps=other)
    # A perfect match has the best score there is, and no gradient.
    agree(own, -0.5 * np.log(1e-12))
    slope = jax.grad(lambda a: own({"maps": a}, None).sum())(jnp.asarray(MAPS))
    np.testing.assert_array_equal(slope, 0)


def test_a_mask_hides_the_rest_of_the_map() -> None:
    mask = np.zeros((1, 4, 6))
    mask[:, 1:3, 2:4] = 1
    changed = np.where(mask[..., None], MAPS, RNG.normal(size=MAPS.shape))
    for metric, best in (("l2", 0), ("cosine", 1), ("log", -0.5 * np.log(1e-12))):
        agree(ob.FeatureMatch("maps", MAPS, mask, metric), best, maps=changed)
    assert np.all(scores(ob.FeatureMatch("maps", MAPS), maps=changed) < -0.1)


def test_caricature_is_per_image_with_the_true_cosine() -> None:
    def cosine(a: np.ndarray, t: np.ndarray) -> float:
        return float((a * t).sum() / np.linalg.norm(a) / np.linalg.norm(t))

    target = RNG.normal(size=MAPS.shape).astype(np.float32) + MAPS
    along = [(a * t).sum() / (t * t).sum() for a, t in zip(MAPS, target, strict=True)]
    cosines = [cosine(a, t) for a, t in zip(MAPS, target, strict=True)]
    agree(ob.Caricature("maps", MAPS), 1)
    agree(ob.Caricature("maps", target), np.multiply(along, cosines))
    agree(ob.Caricature("maps", target, power=4.0), np.multiply(along, np.power(cosines, 4)))
    # Scaling the activations scales the product and leaves the cosine.
    agree(ob.Caricature("maps", target), 9 * np.multiply(along, cosines), maps=9 * MAPS)
    # A neighbour's target, or a neighbour's activations, are not read.
    other = target.copy()
    other[0] *= 100
    assert np.array_equal(
        scores(ob.Caricature("maps", other))[1:], scores(ob.Caricature("maps", target))[1:]
    )


def test_caricature_of_the_positive_part_of_a_target() -> None:
    part = np.maximum(MAPS, 0)
    for power in (0.0, 1.0, 4.0):
        whole = ob.Caricature("maps", part, power)
        of_part = ob.Caricature("maps", MAPS, power, positive=True)
        np.testing.assert_allclose(scores(of_part), scores(whole), rtol=1e-5)
        # The activations keep their negative part; the score of the part itself is 1.
        agree(of_part, 1, maps=part)
    along = (MAPS * part).sum((1, 2, 3)) / (part * part).sum((1, 2, 3))
    np.testing.assert_allclose(along, 1, rtol=1e-5)
    other = RNG.normal(size=MAPS.shape)
    along = (other * part).sum((1, 2, 3)) / (part * part).sum((1, 2, 3))
    agree(ob.Caricature("maps", MAPS, 0.0, positive=True), along, maps=other)


def test_a_norm_is_the_mean_distance_of_the_positions() -> None:
    other = RNG.normal(size=MAPS.shape).astype(np.float32)
    apart = np.sqrt(((MAPS - other) ** 2).sum(-1))
    match = ob.FeatureMatch("maps", other, metric="norm")
    agree(match, -apart.mean((1, 2)))
    # Twice as far is twice as much, where the square is four times as much.
    agree(match, -2 * apart.mean((1, 2)), maps=2 * MAPS - other)
    mask = RNG.uniform(size=(1, 4, 6)).astype(np.float32)
    agree(ob.FeatureMatch("maps", other, mask, "norm"), -(mask * apart).mean((1, 2)))
    vectors, tokens = MAPS[:, 0, 0], MAPS.reshape(3, 24, 5)
    agree(ob.FeatureMatch("maps", other[:, 0, 0], metric="norm"), -apart[:, 0, 0], maps=vectors)
    of_tokens = ob.FeatureMatch("maps", other.reshape(3, 24, 5), metric="norm")
    agree(of_tokens, -apart.mean((1, 2)), maps=tokens)


def test_a_norm_has_the_gradient_0_at_its_target_and_of_its_size_beside_it() -> None:
    match = ob.FeatureMatch("maps", MAPS, metric="norm")

    def total(maps: jax.Array) -> jax.Array:
        return match({"maps": maps}, None).sum()

    with jax.debug_nans(True):
        np.testing.assert_array_equal(jax.grad(total)(jnp.asarray(MAPS)), 0)
        beside = MAPS.copy()
        beside[0, 1, 2] += [3e-3, 0, 4e-3, 0, 0]
        slope = np.asarray(jax.grad(total)(jnp.asarray(beside)))
    wanted = np.zeros_like(slope)
    wanted[0, 1, 2] = np.array([-0.6, 0, -0.8, 0, 0]) / 24
    np.testing.assert_allclose(slope, wanted, atol=1e-5)


def test_a_comparison_sees_its_images_anew() -> None:
    match = ob.FeatureMatch("maps", MAPS[:1], metric="norm", images=np.ones((1, 2, 2, 3)))
    still = ob.FeatureMatch("maps", MAPS[:1]).on([1, 2])
    whole = 2 * match - ob.L2() + still
    asked = []

    def see(images: jax.Array, places: np.ndarray | None) -> dict[str, np.ndarray]:
        asked.append((images.shape, None if places is None else places.tolist()))
        return {"maps": 3 * MAPS[:1]}

    changed = 2 * ob.FeatureMatch("maps", 3 * MAPS[:1], metric="norm")
    assert whole.seen(see) == changed - ob.L2() + still
    assert match.on([2]).seen(see) == changed.objective.on([2])
    assert match.on([1, 0]).on([1, 2]).seen(see) == changed.objective.on([1, 0]).on([1, 2])
    # Places among the named ones are places in the batch.
    assert asked == [((1, 2, 2, 3), None), ((1, 2, 2, 3), [2]), ((1, 2, 2, 3), [2, 1])]
    assert ob.L2().seen(see) == ob.L2()


def test_a_change_is_what_the_prior_says_of_the_difference() -> None:
    before, after = (jnp.asarray(RNG.uniform(size=(3, 5, 4, 3)), jnp.float32) for _ in range(2))
    prior = ob.L2(0.0) + 0.5 * ob.TotalVariation()
    for original in (before, before[:1]):
        found = ob.Change(prior, original)({}, after)
        np.testing.assert_allclose(found, prior({}, after - original), rtol=1e-6)
    np.testing.assert_array_equal(ob.Change(prior, before)({}, before), 0)


@pytest.mark.thorough
def test_tone_is_of_the_mean_and_the_deviation_of_each_channel() -> None:
    x = RNG.uniform(size=(3, 5, 4, 3)).astype(np.float32)
    mean, deviation = x.mean((1, 2)), x.std((1, 2))
    np.testing.assert_allclose(ob.Tone(mean, deviation)({}, x), 0, atol=1e-12)
    # Wherever the pixels are.
    shuffled = x.reshape(3, 20, 3)[:, RNG.permutation(20)].reshape(x.shape)
    np.testing.assert_allclose(ob.Tone(mean, deviation)({}, shuffled), 0, atol=1e-12)
    off = ((mean - 0.5) ** 2 + (deviation - 0.1) ** 2).mean(1)
    np.testing.assert_allclose(ob.Tone([0.5] * 3, [0.1] * 3)({}, x), off, rtol=1e-4)
    with jax.debug_nans(True):
        flat = jnp.full((1, 4, 4, 3), 0.5)
        slope = jax.grad(lambda x: ob.Tone([0.5] * 3, [0.1] * 3)({}, x).sum())(flat)
    np.testing.assert_array_equal(slope, 0)


def test_gram_and_style() -> None:
    g = np.einsum("nhwc,nhwd->ncd", MAPS, MAPS) / 24
    np.testing.assert_allclose(ob.gram(MAPS), g, rtol=1e-5, atol=1e-6)
    own = ob.Style("maps", g)
    agree(own, 0)
    agree(own, -1, maps=np.zeros_like(MAPS))
    agree(own, -9, maps=2 * MAPS)
    shuffled = MAPS.reshape(3, 24, 5)[:, RNG.permutation(24)].reshape(MAPS.shape)
    agree(own, 0, maps=shuffled)
    agree(own, 0, maps=np.concatenate([MAPS, MAPS], axis=2))  # another size, the same style


@pytest.mark.parametrize("scale", [1e-4, 1.0, 1e4])
def test_diversity(scale: float) -> None:
    agree(ob.Diversity("a"), -1, a=np.stack([MAPS[0]] * 4) * scale)
    apart = np.zeros((2, 4, 6, 5))
    apart[0, ..., 0] = apart[1, ..., 1] = scale
    agree(ob.Diversity("a"), 0, a=apart)
    one_pair_of_three = np.concatenate([apart, apart[:1]])
    agree(ob.Diversity("a"), [-0.5, 0, -0.5], a=one_pair_of_three)


def test_min_distance() -> None:
    def rms(a: np.ndarray, b: np.ndarray) -> float:
        return float(np.sqrt(((a - b) ** 2).mean()))

    for x, objective in ((PIXELS, ob.MinDistance()), (MAPS, ob.MinDistance("maps"))):
        agree(objective, min(rms(x[0], x[1]), rms(x[0], x[2]), rms(x[1], x[2])))
    same = PIXELS[[0, 1, 0]]
    agree(ob.MinDistance(), 0, image=same)
    line = np.array([0.0, 1, 3, 7]).reshape(4, 1, 1, 1) * np.ones((1, 2, 3, 3))
    agree(ob.MinDistance(), 1, image=line)


def test_alignment() -> None:
    line = np.array([0.0, 1, 3]).reshape(3, 1, 1, 1) * np.ones((1, 2, 3, 3))
    agree(ob.Alignment(), [-(1 / 2 + 9 / 4), -(1 + 4) / 2, -(4 / 2 + 9 / 4)], image=line)
    agree(ob.Alignment(decay=1), [-10, -5, -13], image=line)
    agree(ob.Alignment("maps"), 0, maps=np.stack([MAPS[0]] * 3))


def test_batch_statistics() -> None:
    flat = MAPS.reshape(-1, 5).astype(np.float64)
    mean, variance = flat.mean(0), flat.var(0)
    agree(ob.BatchStatistics("maps", mean, variance), 0)
    agree(ob.BatchStatistics("maps", mean, variance), 0, maps=MAPS[::-1])
    agree(ob.BatchStatistics("maps", mean - [3, 0, 4, 0, 0], variance), -5)
    both = -10 - np.linalg.norm(variance)
    agree(ob.BatchStatistics("maps", mean - [0, 6, 0, 8, 0], 0 * variance), both)
    # An image alone has statistics of its own.
    own = MAPS[1].reshape(-1, 5)
    alone = -np.linalg.norm(own.mean(0) - mean) - np.linalg.norm(own.var(0) - variance)
    agree(ob.BatchStatistics("maps", mean, variance), alone, maps=MAPS[1:2])
    agree(ob.BatchStatistics("maps", mean, variance).on([1]), [0, alone, 0])
    of_vectors = ob.BatchStatistics("logits", np.zeros(7), np.ones(7))
    expected = np.linalg.norm(LOGITS.mean(0)) + np.linalg.norm(LOGITS.var(0) - 1)
    agree(of_vectors, -expected)


# ---- priors


def test_total_variation_of_the_known_picture() -> None:
    image = np.array([[0.0, 0, 0], [0, 2, 0], [0, 0, 1]])[None, ..., None]
    # Absolute forward differences sum to 10 (what peers call the sum of squared ones), squared
    # ones to 18; ours is the mean over the 9 pixels of (dx² + dy²)^(beta/2).
    dy, dx = np.diff(image, axis=1), np.diff(image, axis=2)
    assert np.abs(dy).sum() + np.abs(dx).sum() == 10
    assert (dy**2).sum() + (dx**2).sum() == 18
    agree(ob.TotalVariation(), 18 / 9, image=image)
    # By pixel: 2 above, 2 left, sqrt(8) at the 2, 1 left of and 1 above the 1.
    agree(ob.TotalVariation(beta=1), (2 + 2 + np.sqrt(8) + 1 + 1) / 9, image=image)
    agree(ob.TotalVariation(beta=1.5), (2 * 2**1.5 + 8**0.75 + 2) / 9, image=image)


def test_total_variation_of_edges() -> None:
    flat = np.full((1, 8, 6, 3), 0.3)
    edge = flat.copy()
    edge[:, :, 3:] = 0.8
    for beta in (1.0, 2.0):
        agree(ob.TotalVariation(beta), 0, image=flat)
        agree(ob.TotalVariation(beta), 0.5**beta / 6, image=edge)


@pytest.mark.thorough
def test_norms() -> None:
    flat = np.broadcast_to([0.5, 0.1, 0.8], (2, 8, 6, 3))
    agree(ob.L1(), 0.7 / 3, image=flat)
    agree(ob.L2(), 0.25 / 3, image=flat)
    agree(ob.L2(center=0), (0.25 + 0.01 + 0.64) / 3, image=flat)
    agree(ob.AlphaNorm(alpha=6), 0.25**3, image=flat)
    agree(ob.AlphaNorm(alpha=1), 0.5, image=flat)
    agree(ob.AlphaNorm(2.0, center=0.0), 0.9, image=flat)
    for alpha in (1.0, 3.0, 6.0):
        each = 0.4**alpha + 0.3**alpha
        agree(ob.AlphaNorm(alpha, joint=False), each, image=flat)
        agree(ob.AlphaNorm(alpha, joint=False), 0.4**alpha, image=flat[..., 1:2])
        agree(ob.AlphaNorm(alpha), 0.4**alpha, image=flat[..., 1:2])
    agree(ob.AlphaNorm(2.0, joint=False), scores(ob.AlphaNorm(2.0)))
    for prior in (ob.L1(), ob.L2(), ob.AlphaNorm(), ob.CenterBias()):
        agree(prior, 0, image=np.full((1, 5, 4, 1), 0.5))


def test_blur() -> None:
    agree(ob.Blur(), 0, image=np.full((1, 5, 9, 2), 0.7))
    agree(ob.Blur(sigma=300.0), 0, image=np.full((1, 5, 9, 2), 0.7))
    # An impulse far from the border: its own taps are separable Gaussians.
    taps = np.exp(-0.5 * np.arange(-4, 5) ** 2)
    taps /= taps.sum()
    rest = np.zeros((9, 9))
    rest[4, 4] = 1
    image = np.zeros((1, 21, 25, 1))
    image[0, 10, 12] = 1
    expected = ((rest - np.outer(taps, taps)) ** 2).sum() / (21 * 25)
    agree(ob.Blur(sigma=1.0), expected, image=image)
    # A checkerboard is all high frequency: what is left of it is its variance.
    board = np.indices((20, 20)).sum(0)[None, ..., None] % 2
    assert scores(ob.Blur(sigma=2.0), image=board)[0] == pytest.approx(0.25, rel=0.02)


def test_centre_bias_prefers_the_centre() -> None:
    def spot(y: int, x: int) -> np.ndarray:
        image = np.full((1, 9, 15, 3), 0.5)
        image[:, y, x] = 1.0
        return image

    middle, side, corner = (
        scores(ob.CenterBias(), image=spot(*at))[0] for at in ((4, 7), (4, 13), (0, 0))
    )
    assert middle == pytest.approx(0, abs=1e-8)
    assert middle < side < corner
    radius = (8 / 9) ** 2 + (14 / 15) ** 2
    assert corner == pytest.approx((1 - np.exp(-2 * radius)) * 0.25 / 135, rel=1e-4)


def test_priors_are_means_so_size_does_not_count() -> None:
    tile = np.tile(PIXELS, (1, 4, 4, 1))
    for prior in (ob.L1(), ob.L2(), ob.AlphaNorm()):
        agree(prior, scores(prior), image=tile)


# ---- algebra


def test_two_a_plus_three_b_is_five() -> None:
    one = ob.Constant(1.0)
    agree(2 * one + 3 * one, 5)
    agree(2 * one + 3 * one - one / 4, 4.75)
    agree(sum([one, one, one]), 3)


def test_a_weight_an_image_interpolates() -> None:
    w = np.linspace(0, 1, 3)
    a, b = ob.Channel("maps", 0), ob.Logit(1)
    agree(w * a + (1 - w) * b, w * scores(a) + (1 - w) * scores(b))


@pytest.mark.thorough
def test_on_some_images() -> None:
    a = ob.Channel("maps", 1)
    agree(a.on(1), scores(a) * [0, 1, 0])
    agree(a.on([2, 0]), scores(a) * [1, 0, 1])
    agree(
        ob.Channel("maps", [4, 0]).on([2, 0]), [MAPS[0, ..., 0].mean(), 0, MAPS[2, ..., 4].mean()]
    )
    agree((2 * a + 1).on(np.array([0])), (2 * scores(a) + 1) * [1, 0, 0])
    agree(a.on([0, 1]).on([0, 2]), scores(a) * [1, 0, 0] + scores(a) * [0, 0, 1])
    pair = scores(ob.MinDistance(), image=PIXELS[[0, 2]])[0]
    agree(ob.MinDistance().on([0, 2]), [pair, 0, pair])
