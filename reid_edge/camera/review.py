"""Say what looks wrong in the counts of a run."""

from __future__ import annotations

from dataclasses import dataclass

from reid_edge.camera.person_check import BETTER_DETECTOR
from reid_edge.camera.pipeline import Pipeline
from reid_edge.wording import counted

#: Reasons of the filter that say nothing of a wrong setting: low scores and boxes of one person are usual.
USUAL = ("confidence", "overlap")
#: Boxes and frames below which nothing is concluded.
FEW_BOXES, FEW_FRAMES = 20, 50


@dataclass(frozen=True, kw_only=True)
class Counts:
    """Counts of a run or a preview.

    Attributes:
        frames: Frames that went through detection.
        unreadable: Frames that could not be decoded.
        off: Frames that came while the camera was switched off.
        detections: Boxes that the filter kept.
        filtered: Boxes that the filter dropped, by reason.
        chosen: Crops that were chosen.
        overload: Chosen crops that were dropped before the engine.
        embedded: Crops that were embedded.
        split: Tracks that began to show another person.
        withheld: Tracklets that are not like one whole person, and were not published, by reason.
        passed: Tracks that were like one whole person.
        failed: Tracks that were not.
        unsuitable: The detector is ``motion``, and most tracks were not like one whole person.
        published: Observations that were published, or would have been.
    """

    frames: int
    unreadable: int
    off: int
    detections: int
    filtered: dict[str, int]
    chosen: int
    overload: int
    embedded: int
    split: int
    withheld: dict[str, int]
    passed: int
    failed: int
    unsuitable: bool
    published: int

    @classmethod
    def of(cls, pipeline: Pipeline, *, published: int) -> Counts:
        """Read the counts of a pipeline."""
        return cls(
            frames=pipeline.detection.stats.frames,
            unreadable=pipeline.source.stats.unreadable,
            off=pipeline.detection.stats.off,
            detections=pipeline.detection.stats.detections,
            filtered=dict(pipeline.filter.dropped),
            chosen=pipeline.detection.stats.chosen,
            overload=pipeline.crop_queue.dropped,
            embedded=pipeline.embedding.stats.embedded,
            split=pipeline.tracklets.split,
            withheld=dict(pipeline.tracklets.withheld),
            passed=pipeline.person_check.passed,
            failed=pipeline.person_check.failed.total(),
            unsuitable=pipeline.person_check.mostly_failed,
            published=published,
        )


def suspicions(counts: Counts) -> list[str]:
    """Return a sentence for each thing that looks wrong; none if nothing does."""
    found = [
        (
            counts.off > 0 and not counts.frames,
            f"The camera was switched off for all of {counted(counts.off, 'frame')} (camera.off_switch).",
        ),
        (
            counts.frames >= FEW_FRAMES and not counts.detections,
            f"Nobody was found in {counts.frames:,} frames.",
        ),
        (
            counts.detections > 0 and not counts.published,
            f"Boxes found: {counts.detections:,}, but no tracklet was published"
            + (f" (withheld: {listed(counts.withheld)})." if counts.withheld else "."),
        ),
        (
            counts.unsuitable,
            f"Only {counts.passed:,} of {counts.passed + counts.failed:,} moving things looked like one whole person: "
            f"the detector 'motion' does not suit this scene. Instead, {BETTER_DETECTOR}.",
        ),
        (
            counts.unreadable > counts.frames / 20,
            f"{counted(counts.unreadable, 'frame')} could not be decoded, against {counts.frames:,} that could.",
        ),
        (
            counts.overload > counts.embedded / 20,
            f"The engine is too slow: {counted(counts.overload, 'crop')} dropped, {counts.embedded:,} embedded.",
        ),
    ]
    return [text for wrong, text in found if wrong] + _filtered(counts)


def _filtered(counts: Counts) -> list[str]:
    return [
        f"The filter dropped {count:,} boxes ({reason}) and kept {counts.detections:,}: check [filter] in the settings."
        for reason, count in counts.filtered.items()
        if reason not in USUAL and count >= FEW_BOXES and count > counts.detections
    ]


def listed(counted: dict[str, int]) -> str:
    """Return counts as text, the greatest first: ``7 short, 2 cut off``."""
    ordered = sorted(counted.items(), key=lambda item: (-item[1], item[0]))
    return ", ".join(f"{count:,} {reason.replace('_', ' ')}" for reason, count in ordered if count)
