"""reid-edge: OSNet person re-identification, from a checkpoint to features on a camera.

The flow: checkpoint → export → bundle → runtime.  ``docs/architecture.md`` has the picture.
"""

__version__ = "0.1.0"
