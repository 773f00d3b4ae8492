"""How a dataset is evaluated: which of its random splits, by which rule, and which models have seen its people."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from reid_edge.benchmark.embedder import load_splits
from reid_edge.bundle import Bundle
from reid_edge.datasets.combined import has_seen_test_people
from reid_edge.datasets.labelled_images import LabelledImage, Split
from reid_edge.datasets.loading import has_random_splits, is_single_shot, searches_other_cameras, splits_of
from reid_edge.datasets.random_splits import described
from reid_edge.errors import UsageError
from reid_edge.evaluation.comparison import Rule


@dataclass(frozen=True, kw_only=True)
class EvaluationTask:
    """A dataset, and how it is to be searched.

    Attributes:
        dataset: Name of the dataset.
        root: Folder of the dataset, or its CSV file.
        split: Random split of a dataset that has such: its number, or ``all``; None: all, or the one that the model
            was trained on.
        partial: Accept a subset: do not check the number of images.
        same_camera: Count matches of the query's own camera too.
        tracklet_gap: Average the features of each tracklet, whose images are at most so many frames apart; None: do
            not.
        centre: Measure once more with the features of each camera centred.
        rerank: Measure once more with the first 100 results of each search re-ranked; with ``centre``, both together
            too.

    Raises:
        UsageError: ``rerank`` where one gallery image of each person is searched at a time.
    """

    dataset: str
    root: Path
    split: str | None = None
    partial: bool = False
    same_camera: bool = False
    tracklet_gap: int | None = None
    centre: bool = False
    rerank: bool = False

    def __post_init__(self) -> None:
        if self.rerank and self.single_shot:
            raise UsageError(
                f"{self.dataset} is searched with one gallery image of each person at a time, and figures are means "
                "over all choices of them; re-ranking depends on the choice. Leave out --rerank."
            )

    @property
    def rule(self) -> Rule:
        """Which gallery images are left out of a query's search."""
        if self.same_camera:
            return "same-camera"
        return "other-cameras" if searches_other_cameras(self.dataset) else "market1501"

    @property
    def single_shot(self) -> bool:
        """True where the gallery of a search holds one image of each person."""
        return not self.same_camera and is_single_shot(self.dataset)

    def numbers(self, bundles: Sequence[Bundle]) -> list[int]:
        """Return the numbers of the random splits on which bundles are evaluated; [0] where a dataset has one.

        Raises:
            DatasetError: There is no such dataset.
            UsageError: ``split`` is neither a number nor ``all``, or it is ``all`` and the dataset has one split; or a
                model was trained on people who are searched for.
        """
        numbers = self._asked_for(bundles)
        for bundle in bundles:
            if has_seen_test_people(bundle.manifest.model.dataset, self.dataset):
                raise UsageError(
                    f"{bundle.path} was trained on {bundle.manifest.model.dataset}: it has seen the test people of "
                    f"{self.dataset}, so figures there say nothing. Evaluate it on another dataset."
                )
            seen = self._seen(bundle)
            if seen is not None and numbers != [seen]:
                raise UsageError(
                    f"{bundle.path} was trained on {bundle.manifest.model.dataset}; half of its people are searched "
                    f"for in any other split. Use --split {seen}; for a mean over all, train a model on each split."
                )
        return numbers

    def load(self, number: int) -> dict[Split, list[LabelledImage]]:
        """List query and gallery of one random split.

        Raises:
            DatasetError: The dataset is not there, or not complete.
        """
        return load_splits(
            self.root, dataset=self.dataset, number=number, partial=self.partial, same_camera=self.same_camera
        )

    def _asked_for(self, bundles: Sequence[Bundle]) -> list[int]:
        count = splits_of(self.dataset)
        if self.split is None:
            seen = [number for bundle in bundles if (number := self._seen(bundle)) is not None]
            return seen[:1] or list(range(count))
        if self.split.isdecimal():
            return [int(self.split)]
        if self.split != "all":
            raise UsageError(f"--split takes a number from 0 to {count - 1}, or all; got '{self.split}'.")
        if not has_random_splits(self.dataset):
            raise UsageError(f"{self.dataset} has only its own split; leave out --split.")
        return list(range(count))

    def _seen(self, bundle: Bundle) -> int | None:
        """Return the number of the dataset's random split that a model was trained on, if any."""
        trained_on = bundle.manifest.model.dataset
        numbers = range(splits_of(self.dataset))
        return next((number for number in numbers if trained_on == described(self.dataset, number)), None)
