#!/usr/bin/env bash
# Make the environment in which the peers are compared:  make_env.sh FOLDER [PYTHON]
# Takes about 2 GB. It is complete once FOLDER/complete names these requirements; until then another call goes on.
#
# torch: by default 2.13.0, whatever build pip finds.  Where that would be one with gigabytes of CUDA the script stops:
# say where a CPU build is in PIP_INDEX_URL or PIP_FIND_LINKS, or set PEERS_ALLOW_CUDA=1.
#
# LiteRT's converter needs Python 3.12 or later and its own releases of most packages, so it has an environment of its
# own in FOLDER/converter (0.7 GB).  Without such a Python (PEERS_CONVERTER_PYTHON names one) LiteRT does not take part.
set -euo pipefail
folder=${1:?usage: make_env.sh FOLDER [PYTHON]}
python=${2:-python3}
here=$(cd "$(dirname "$0")" && pwd)
repository=$(cd "$here/../.." && pwd)
torch=${PEERS_TORCH:-torch==2.13.0}
converter=onnx2tf==2.6.9
export PIP_DISABLE_PIP_VERSION_CHECK=1

stamp=$({ echo "$torch $converter"; cat "$here/requirements.txt" "$repository/pyproject.toml"; } | sha256sum | cut -d' ' -f1)
if [ "$(cat "$folder/complete" 2>/dev/null)" = "$stamp" ]; then
    echo "$folder is complete"
    exit 0
fi
if [ -e "$folder" ] && [ ! -e "$folder/pyvenv.cfg" ]; then
    echo "$folder exists and is no virtual environment: name another folder, or remove it." >&2
    exit 1
fi
"$python" -m venv "$folder"
pip="$folder/bin/python -m pip"

$pip install -qq --dry-run --report "$folder/torch.json" "$torch"
if [ -z "${PEERS_ALLOW_CUDA:-}" ] && grep -q '"name": *"nvidia-' "$folder/torch.json"; then
    echo "pip would install a CUDA build of $torch. Name the place of a CPU build in PIP_INDEX_URL or PIP_FIND_LINKS," \
        "or set PEERS_ALLOW_CUDA=1." >&2
    exit 1
fi
$pip install -qq "$torch"
peers='^(boxmot|torchreid|torchvision|pnnx|mnn|ncnn)=='
grep -vE "$peers" "$here/requirements.txt" >"$folder/others.txt"
grep -E "$peers" "$here/requirements.txt" >"$folder/peers.txt"
# reid-edge from this checkout, so that what is compared is what is here.
$pip install -qq --editable "$repository[export]" --requirement "$folder/others.txt"
$pip install -qq --no-deps --requirement "$folder/peers.txt"
for candidate in "${PEERS_CONVERTER_PYTHON:-}" "$python" python3.12 python3.13 "$HOME"/.pyenv/versions/3.1[23].*/bin/python; do
    if "$candidate" -c 'import sys; sys.exit(sys.version_info < (3, 12))' 2>/dev/null; then
        "$candidate" -m venv "$folder/converter"
        "$folder/converter/bin/python" -m pip install -qq "$converter"
        break
    fi
done
[ -x "$folder/converter/bin/onnx2tf" ] || echo "No Python 3.12 or later here: LiteRT will not take part." >&2
(cd "$here" && "$folder/bin/python" -W ignore -c "
from vision import import_torchvision
import_torchvision()
from torchreid.reid.utils import FeatureExtractor
from boxmot.reid.core.runtime import ReID
import openvino, onnxruntime, reid_edge.runtime
print('torchreid, BoxMOT, OpenVINO, ONNX Runtime and reid-edge import.')")
echo "$stamp" >"$folder/complete"
