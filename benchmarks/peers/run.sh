#!/usr/bin/env bash
# The whole comparison:  run.sh FOLDER [options of peers.py]
# Makes the environment in FOLDER where it is not there yet (benchmarks/peers/make_env.sh), then measures.
set -euo pipefail
folder=${1:?usage: run.sh FOLDER [options of peers.py]}
shift
here=$(cd "$(dirname "$0")" && pwd)
"$here/make_env.sh" "$folder" "${PEERS_PYTHON:-python3}"
exec "$folder/bin/python" "$here/peers.py" --artefacts "$folder/artefacts" "$@"
