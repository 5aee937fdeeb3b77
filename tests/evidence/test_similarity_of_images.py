import numpy as np
import pytest
from skimage.metrics import structural_similarity

from featvis.errors import InputError
from featvis.evidence.similarity import diversity, ms_ssim

_rng = np.random.default_rng(0)
_SMOOTH = np.clip(
    0.5 + 0.3 * np.sin(np.arange(20)[:, None, None] / 3 + np.arange(21)[None, :, None] / 2), 0, 1
)
_PAIR = np.stack([_SMOOTH, np.clip(_SMOOTH + 0.1 * _rng.normal(size=_SMOOTH.shape), 0, 1)])


def _terms(x, y):
    """Mean luminance x structure, and mean structure, window by window."""
    offsets = np.arange(11) - 5
    window = np.exp(-(offsets[:, None] ** 2 + offsets[None] ** 2) / 4.5)
    window /= window.sum()
    both, alone = [], []
    for i in range(x.shape[0] - 10):
        for j in range(x.shape[1] - 10):
            a, b = x[i : i + 11, j : j + 11], y[i : i + 11, j : j + 11]
            ma, mb = (window * a).sum(), (window * b).sum()
            va, vb = (window * (a - ma) ** 2).sum(), (window * (b - mb) ** 2).sum()
            cross = (window * (a - ma) * (b - mb)).sum()
            cs = (2 * cross + 0.03**2) / (va + vb + 0.03**2)
            both.append(cs * (2 * ma * mb + 0.01**2) / (ma**2 + mb**2 + 0.01**2))
            alone.append(cs)
    return np.mean(both), np.mean(alone)


def test_one_scale_is_the_structural_similarity_of_another_library():
    _, full = structural_similarity(
        _PAIR[0, ..., 0], _PAIR[1, ..., 0], data_range=1, gaussian_weights=True, sigma=1.5,
        use_sample_covariance=False, full=True,
    )  # fmt: skip
    np.testing.assert_allclose(ms_ssim(_PAIR[:1], _PAIR[1:]), full[5:-5, 5:-5].mean(), rtol=1e-6)


def test_two_scales_are_weighted_as_in_the_paper():
    x, y = _rng.uniform(size=(2, 24, 25))
    y = 0.7 * x + 0.3 * y
    half = [one[:24, :24].reshape(12, 2, 12, 2).mean((1, 3)) for one in (x, y)]
    (_, fine), (coarse, _) = _terms(x, y), _terms(*half)
    first, second = np.array([0.0448, 0.2856]) / (0.0448 + 0.2856)
    found = ms_ssim(x[None, ..., None], y[None, ..., None])
    np.testing.assert_allclose(found, fine**first * coarse**second, rtol=1e-6)


def test_diversity_is_of_all_pairs():
    images = _rng.uniform(size=(4, 12, 12, 1))
    features = _rng.normal(size=(4, 3))
    found = diversity(images, features)
    pairs = [(i, j) for i in range(4) for j in range(i)]
    alike = [ms_ssim(images[i : i + 1], images[j : j + 1])[0] for i, j in pairs]
    apart = [np.linalg.norm(features[i] - features[j]) for i, j in pairs]
    np.testing.assert_allclose(found, (np.mean(alike), np.mean(apart), 6))
    same = diversity(np.repeat(images[:1], 3, 0), np.repeat(features[:1], 3, 0))
    np.testing.assert_allclose(same, (1, 0, 3))
    assert np.isnan(diversity(images[:, :8]).ms_ssim)
    assert diversity(_rng.uniform(size=(80, 12, 12, 1))).pairs == 2000


@pytest.mark.parametrize(
    ("call", "says"),
    [
        (lambda: ms_ssim(_PAIR[:1], _PAIR[:1, :-1]), "equal shapes"),
        (lambda: ms_ssim(np.zeros((1, 9, 20, 1)), np.zeros((1, 9, 20, 1))), "at least 11"),
        (lambda: ms_ssim(_PAIR * np.nan, _PAIR), "finite"),
        (lambda: diversity(_PAIR[:1]), "at least 2"),
        (lambda: diversity(_PAIR, np.zeros((3, 2))), "of 3 pictures"),
    ],
)
def test_what_does_not_fit_is_said(call, says):
    with pytest.raises(InputError, match=says):
        call()
