"""reid-edge: OSNet person re-identification, from a checkpoint to features on a camera.

The flow: checkpoint → export → bundle → runtime.  ``docs/architecture.md`` has the picture.
"""

import sys

__version__ = "0.1.0"

# OpenVINO and NNCF report their use to Google Analytics unless somebody has said no: nothing that a camera should do
# unasked.  They do it from forked processes, which have been seen to hang the command at its end.  Both do without the
# package where it cannot be imported.
sys.modules.setdefault("openvino_telemetry", None)  # type: ignore[arg-type]
