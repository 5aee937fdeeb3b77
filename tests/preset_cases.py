"""One list of presets: what each is a recipe of, and a run of it that is short."""

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
]
