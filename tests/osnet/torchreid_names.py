"""Our names back to torchreid's: written from torchreid's side, so that it checks the import's table."""

import re

LETTERS = "abcd"


def to_torchreid(state):
    return {_rename(name): tensor for name, tensor in state.items()}


def _rename(name):
    name = name.replace(".norm.", ".bn.")
    name = name.replace("fc_norm.", "fc.1.") if name.startswith("fc_norm.") else name
    name = re.sub(r"^fc\.(weight|bias)$", r"fc.0.\1", name)
    name = re.sub(r"^transition([23])\.", r"conv\1.2.0.", name)
    name = name.replace(".reduce.", ".conv1.").replace(".restore.", ".conv3.").replace(".project.", ".downsample.")
    name = name.replace(".pointwise.", ".conv1.").replace(".depthwise.", ".conv2.")
    found = re.match(r"(.*)\.streams\.(\d)\.(\d)\.(.*)", name)
    if found:
        stream = LETTERS[int(found[2])]
        layer = "" if stream == "a" else f".{found[3]}"
        name = f"{found[1]}.conv2{stream}{layer}.{found[4]}"
    return name
