"""Which library the tests of the native engine load: the one in REID_EDGE_TEST_NATIVE_LIBRARY, if that is set.

.ci/sanitize sets it to a build that stops at each memory error.
"""

import os
from pathlib import Path

from reid_edge.runtime.native import library

if path := os.environ.get("REID_EDGE_TEST_NATIVE_LIBRARY"):
    library.LIBRARY = Path(path).resolve(strict=True)
