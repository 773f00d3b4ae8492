"""Constraints on accuracy: candidates that break one are not chosen."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Protocol

from reid_edge.benchmark.accuracy import measure_accuracy
from reid_edge.bundle import Bundle
from reid_edge.datasets.labelled_images import LabelledImage, Split
from reid_edge.manifest import EngineName, Precision
from reid_edge.progress import Notify
from reid_edge.runtime import Extractor
from reid_edge.wording import counted


@dataclass(frozen=True, kw_only=True)
class Judgement:
    """Judgement of a candidate: does it keep the accuracy, by which figures, and why not."""

    passed: bool
    figures: dict[str, float]
    note: str = ""


class Constraint(Protocol):
    """Judges a checked candidate's bundle."""

    text: str

    def judge(self, bundle: Bundle) -> Judgement:
        """Judge a bundle's one file, ``tuned``."""
        ...


class FeatureAgreement:
    """Constraint that needs no labels: the verdict of INT8 on export (:func:`reid_edge.runtime.verdict.judge`)."""

    text = "features agree with the checkpoint's: the verdict of docs/quantization.md"

    def judge(self, bundle: Bundle) -> Judgement:
        """Take the verdict from the manifest; see :class:`Constraint`."""
        artifact = bundle.manifest.artifacts[0]
        verdict, parity = artifact.verdict, artifact.parity
        assert verdict is not None and parity is not None
        figures = {
            "cosine_mean": verdict.cosine_mean,
            "ranking": verdict.ranking,
            "neighbours": verdict.neighbours,
            "variance": verdict.variance,
            "golden_cosine_min": parity.cosine_min,
        }
        return Judgement(passed=verdict.verdict == "accepted", figures=figures, note="; ".join(verdict.reasons))


class MeanAveragePrecision:
    """Constraint for labelled images: the mAP is at most so many points under FP32's.

    Args:
        base: The plain export; its FP32 is what the candidates are compared with.
        engine: What runs that FP32, on the CPU.
        splits: Query and gallery, labelled.
        device: What computes the candidates, as ``--device`` names it.
        max_drop: Points, of 100.
        notify: Called with a text and a number of steps before long work; returns what to call after each step.
    """

    def __init__(
        self,
        base: Bundle,
        engine: EngineName,
        splits: Mapping[Split, Sequence[LabelledImage]],
        *,
        device: str = "CPU",
        max_drop: float,
        notify: Notify,
    ) -> None:
        self._base, self._engine, self._splits, self._max_drop, self._notify = base, engine, splits, max_drop, notify
        self._device = device
        self._exact: float | None = None
        counts = f"{counted(len(splits['query']), 'query', 'queries')}, {len(splits['gallery']):,} gallery"
        self.text = f"mAP at most {max_drop:g} under FP32's on market1501 ({counts})"

    def judge(self, bundle: Bundle) -> Judgement:
        """Measure the mAP; see :class:`Constraint`."""
        if self._exact is None:
            self._exact = self._measure(self._base, self._engine, "fp32", "CPU")
        reached = self._measure(bundle, bundle.manifest.artifacts[0].engine, "tuned", self._device)
        drop = self._exact - reached
        note = "" if drop <= self._max_drop else f"mAP {reached:.2f}, {drop:.2f} under FP32's {self._exact:.2f}"
        return Judgement(passed=not note, figures={"mAP": reached, "mAP of FP32": self._exact}, note=note)

    def _measure(self, bundle: Bundle, engine: EngineName, precision: Precision, device: str) -> float:
        extractor = Extractor(bundle, engine=engine, precision=precision, device=device, cache_dir=None)
        return 100 * measure_accuracy(extractor, self._splits, self._notify).mean_ap
