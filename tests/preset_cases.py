"""One list of presets: what each is a recipe of, and a run of it that is short."""

import numpy as np
from networks import TOY_SIZE

import featvis as fv

#: (kind, name, the options of a run of few steps, one a stage at least).
CASES = [
    ("inversion", "modern", {"steps": 2}),
    ("inversion", "cvpr2015", {"steps": 3}),
    ("inversion", "ijcv2016", {"steps": 2}),
    ("inversion", "plug_in", {"steps": 7}),
    ("inversion", "metamer", {"steps": 2}),
    ("caricature", "modern", {"steps": 2}),
    ("caricature", "ijcv2016", {"steps": 2}),
    ("class model", "modern", {"steps": 2}),
    ("class model", "maco", {"steps": 2}),
    ("class model", "octaves", {"steps": 2, "number": 2}),
    ("class model", "plug_in", {"steps": 7}),
    ("class model", "recognisable", {"steps": 2}),
    ("class model", "simonyan2013", {"steps": 2}),
    ("visualization", "modern", {"steps": 2}),
    ("visualization", "maco", {"steps": 2}),
    ("visualization", "recognisable", {"steps": 2}),
    ("sampling", "modern", {"steps": 2}),
    ("sampling", "ppgn_joint", {"steps": 2, "rate": 0.1}),
    ("sampling", "ppgn_h", {"steps": 2, "rate": 0.1}),
    ("sampling", "ppgn_x", {"steps": 2}),
    ("sampling", "dgn_am", {"steps": 2}),
]


_CODE, _MADE = 6, (*TOY_SIZE, 3)


def _decoded(params, code):
    return 0.5 + (code @ params).reshape(_MADE)


def _encoded(params, image):
    return (image - 0.5).reshape(-1) @ params


def _halved(params, code):
    return params * code


def generator(seed=0):
    """What the cases of samplers sample: an orthonormal map of codes, with all that is known."""
    rows = np.random.default_rng(seed).normal(size=(np.prod(_MADE), _CODE))
    params = np.float32(np.linalg.qr(rows)[0].T)
    codes = fv.Codes(
        mean=np.full(_CODE, 0.5, np.float32),
        sd=np.full(_CODE, 0.25, np.float32),
        factor=np.float32(0.25 * np.eye(_CODE)),
        reconstruct=_halved,
        params=np.float32(0.5),
    )
    return fv.Generator(
        _decoded, (_CODE,), params=params, encoder=_encoded, encoder_params=params.T, codes=codes
    )
