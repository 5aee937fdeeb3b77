"""One list of commands, each with a mistake that it answers with one line."""

#: Arguments that are a mistake, by command, and what the line says.
CASES = {
    "models": (["--nothing"], "nothing"),
    "generators": (["--nothing"], "nothing"),
    "fetch": (["efficientnet_lite9"], "efficientnet_lite"),
    "layers": (["efficientnet_lite9"], "efficientnet_lite"),
    "render": (["efficientnet_lite9", "block8:3"], "efficientnet_lite"),
    "invert": (["efficientnet_lite0", "block6", "none.png"], "none.png"),
    "caricature": (["efficientnet_lite0", "block6", "none.png"], "none.png"),
    "accentuate": (
        ["efficientnet_lite0", "logits:3", "none.png", "--layer", "block8"],
        "none.png",
    ),
    "class-model": (["efficientnet_lite9", "3"], "efficientnet_lite"),
    "diverse": (["efficientnet_lite9", "block4:3"], "efficientnet_lite"),
    "invariance": (["efficientnet_lite9", "block4:3"], "efficientnet_lite"),
    "facets": (["efficientnet_lite9", "block4:3", "photographs"], "efficientnet_lite"),
    "index": (["efficientnet_lite0", "none", "--out", "none.index"], "none"),
    "activation-atlas": (["efficientnet_lite9", "block8", "i", "--out", "s"], "efficientnet_lite"),
    "atlas": (["efficientnet_lite0", "block99", "--out", "none.atlas"], "block"),
    "dissect": (["efficientnet_lite0", "none", "--quiet"], "none"),
    "explain": (["efficientnet_lite9", "logits:3", "none.png"], "efficientnet_lite"),
    "explain-pair": (["efficientnet_lite9", "none.png", "none.png"], "efficientnet_lite"),
    "top": (["none.index", "block4:3"], "none.index"),
    "sample": (["mnist_ppgm", "--class", "7"], "mnist_ppgn"),
    "replay": (["none.png"], "none.png"),
}
