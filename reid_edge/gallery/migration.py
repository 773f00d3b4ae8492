"""Search what another model has stored: a map between the two models, judged by ranking, kept in the gallery.

Stored features stay as they are.  The map is orthogonal, so that the cosine of a mapped stored feature with a query is
that of the stored feature with the query mapped back: a search compares the query, mapped back, with the old features.
"""

from __future__ import annotations

import base64
import contextlib
import logging
from dataclasses import asdict, dataclass, field
from typing import Any

import msgspec
import numpy as np

from reid_edge.errors import MigrationRejected, ModelMismatchError, StoreError, UsageError
from reid_edge.evaluation.comparison import Labelled
from reid_edge.evaluation.ranking import Ranking, rank
from reid_edge.features import l2_normalised
from reid_edge.gallery import audit
from reid_edge.gallery.store import Store
from reid_edge.gallery.store.base import AcceptedModel
from reid_edge.gallery.store.documents import read_document, remove_document, write_document
from reid_edge.identity.migration import Groups, Pairs, check_enough, folds, orthogonal_map
from reid_edge.types import Feature, Features

log = logging.getLogger(__name__)

FORMAT_VERSION = 1
#: Largest loss of mAP that is accepted unless another is given, points.
MAX_LOSS = 10.0
#: Largest deviation of a stored map's product with its transpose from the identity.
_ORTHOGONAL = 1e-3


@dataclass(frozen=True, kw_only=True)
class Quality:
    """Ranking of the pairs that a map was not learnt from, mean over folds; mAP and rank-1 in [0, 1].

    Attributes:
        new_map: mAP where the new model searches its own features: what it gives once everything is its own.
        new_rank1: Rank-1 of that.
        mapped_map: mAP where the new model searches old features through the map.
        mapped_rank1: Rank-1 of that.
        old_map: mAP where the old model searches its own features: what there was.
        old_rank1: Rank-1 of that.
    """

    new_map: float
    new_rank1: float
    mapped_map: float
    mapped_rank1: float
    old_map: float
    old_rank1: float

    @property
    def loss(self) -> float:
        """Points of mAP that the map loses against the new model's own features."""
        return 100 * (self.new_map - self.mapped_map)


@dataclass(frozen=True, kw_only=True)
class Migration:
    """A map from an old model to a new one, with what it was learnt from.

    Attributes:
        old_hash: The model of stored features.
        new_hash: The model of queries.
        pairs: Number of pairs.
        groups: Number of groups of them.
        made_us: When it was made, microseconds since 1970 UTC.
        quality: How well it ranks.
        max_loss: Loss that was accepted, points of mAP.
        matrix: D×D float32, orthogonal, little-endian, row by row, in base64.
        dim: D.
        format_version: Of this record.
    """

    old_hash: str
    new_hash: str
    pairs: int
    groups: int
    made_us: int
    quality: Quality
    max_loss: float
    dim: int
    matrix: str = field(repr=False)
    format_version: int = FORMAT_VERSION

    @property
    def array(self) -> Features:
        """The map: an old feature times it is one of the new model.

        Raises:
            StoreError: It is not orthogonal, or not D×D.
        """
        with contextlib.suppress(ValueError):  # no base64, or another number of bytes
            square = np.frombuffer(base64.b64decode(self.matrix), "<f4").astype(np.float32).reshape(self.dim, self.dim)
            if np.abs(square @ square.T - np.eye(self.dim, dtype=np.float32)).max() <= _ORTHOGONAL:
                return square
        raise StoreError(
            f"the stored map from {self.old_hash} to {self.new_hash} is damaged; make it again: "
            "reid-edge gallery migrate STORE --from HASH --to HASH --pairs FILE"
        )


def learnt(pairs: Pairs, *, max_loss: float, now_us: int) -> Migration:
    """Learn a map from pairs, after judging it by ranking on people that it was not learnt from.

    Args:
        pairs: Features of the same crops by both models.
        max_loss: Largest loss that is accepted, points of mAP.
        now_us: Time now.

    Raises:
        PairsError: There are too few pairs.
        MigrationRejected: It loses more.
    """
    pairs = pairs.different()
    check_enough(pairs)
    quality = judged(pairs)
    if not quality.loss <= max_loss:
        raise MigrationRejected(
            f"through the map the new model finds old features with {100 * quality.mapped_map:.1f} mAP, its own with "
            f"{100 * quality.new_map:.1f}: a loss of {quality.loss:.1f} points, and at most {max_loss:g} are accepted "
            f"(--max-loss). The old model by itself has {100 * quality.old_map:.1f}. Nothing was stored. Give more "
            "pairs, of more people and of all cameras, or search old features with the old bundle until they expire."
        )
    return Migration(
        old_hash=pairs.old_hash,
        new_hash=pairs.new_hash,
        pairs=len(pairs),
        groups=len(np.unique(pairs.groups)),
        made_us=now_us,
        quality=quality,
        max_loss=max_loss,
        dim=pairs.old.shape[1],
        matrix=base64.b64encode(orthogonal_map(pairs).astype("<f4").tobytes()).decode(),
    )


def judged(pairs: Pairs) -> Quality:
    """Rank, in each fold, its crops among each other: within the new model, through the map, within the old model."""
    rankings: list[tuple[Ranking, Ranking, Ranking]] = []
    for learning, judging in folds(pairs):
        mapped = judging.old @ orthogonal_map(learning)
        rankings.append(
            (
                _ranked(judging.new, judging.new, judging.groups),
                _ranked(judging.new, mapped, judging.groups),
                _ranked(judging.old, judging.old, judging.groups),
            )
        )
    means = np.mean([[(one.mean_ap, one.rank1) for one in fold] for fold in rankings], axis=0).ravel().tolist()
    return Quality(**dict(zip(Quality.__dataclass_fields__, means, strict=True)))


def _ranked(queries: Features, gallery: Features, groups: Groups) -> Ranking:
    """Search each crop among the others: those of its group are right."""
    rows, cameras = np.arange(len(groups)), np.zeros(len(groups), np.int64)
    return rank(
        Labelled(queries, groups, cameras, rows),
        Labelled(gallery, groups, cameras, rows),
        rule="same-camera",
        max_rank=1,
    )


def migrate(store: Store, pairs: Pairs, *, max_loss: float = MAX_LOSS, now_us: int) -> Migration:
    """Learn a map from pairs, judge it, and keep it in a gallery, in place of an earlier one between the two models.

    Raises:
        ModelMismatchError: The gallery does not take features of one of the models, or of another size.
        PairsError: There are too few pairs.
        MigrationRejected: It loses more than ``max_loss`` points of mAP.
        StoreError: The store fails.
    """
    _require_models(store, pairs)
    made = learnt(pairs, max_loss=max_loss, now_us=now_us)
    detail = {"from": made.old_hash, "to": made.new_hash, "pairs": made.pairs, **asdict(made.quality)}
    audit.record(store, "migrate", detail, at_us=now_us)
    write_document(store, _name(made.old_hash, made.new_hash), msgspec.to_builtins(made))
    return made


def remove_migration(store: Store, old_hash: str, new_hash: str, *, now_us: int) -> None:
    """Remove the map between two models: a search then finds features of its own model only.

    Raises:
        UsageError: There is none.
    """
    try:
        held = read_migration(store, old_hash, new_hash) is not None
    except StoreError:  # what is damaged can be removed
        held = True
    if not held:
        raise UsageError(f"{store.name} holds no map from {old_hash} to {new_hash}; nothing was removed.")
    audit.record(store, "remove-migration", {"from": old_hash, "to": new_hash}, at_us=now_us)
    remove_document(store, _name(old_hash, new_hash))


def read_migration(store: Store, old_hash: str, new_hash: str) -> Migration | None:
    """Return the map from one model to another that a gallery keeps; None if there is none.

    Raises:
        StoreError: It is damaged, a later release wrote it, or the store fails.
    """
    document: Any = read_document(store, _name(old_hash, new_hash))
    if document is None:
        return None
    try:
        made = msgspec.convert(document, Migration)
    except msgspec.ValidationError as error:
        raise StoreError(f"the map from {old_hash} to {new_hash} in {store.name} cannot be read: {error}.") from error
    if made.format_version > FORMAT_VERSION:
        raise StoreError(
            f"{store.name} holds a map of format {made.format_version}; this release reads up to {FORMAT_VERSION}. "
            "Upgrade reid-edge."
        )
    return made


def mapped_queries(store: Store, feature: Feature, model_hash: str) -> dict[str, Feature]:
    """Return a query as the other models of a gallery would see it, by their hashes, where there is a map.

    A map that cannot be used is logged and left out: what the query's own model has stored is found without it.

    Args:
        store: Which gallery.
        feature: D float32, unit length.
        model_hash: The model that made it, old or new: a map serves both ways.
    """
    found = {}
    for other in (model for model in store.models() if model.model_hash != model_hash):
        try:
            mapped = _mapped(store, feature, model_hash, other)
        except (StoreError, ModelMismatchError) as error:
            log.warning("what the model %s has stored was not searched: %s", other.model_hash, error)
            continue
        if mapped is not None:
            found[other.model_hash] = mapped
    return found


def _mapped(store: Store, feature: Feature, model_hash: str, other: AcceptedModel) -> Feature | None:
    """Return a query as another model would see it; None if there is no map between the two.

    Raises:
        StoreError: The map is damaged, or the store fails.
        ModelMismatchError: It is of features of another size.
    """
    if (made := read_migration(store, model_hash, other.model_hash)) is not None:
        matrix = made.array
    elif (made := read_migration(store, other.model_hash, model_hash)) is not None:
        matrix = made.array.T
    else:
        return None
    for name, numbers in ((model_hash, feature.size), (other.model_hash, other.dim or made.dim)):
        if numbers != made.dim:
            raise ModelMismatchError(
                f"the map from {made.old_hash} to {made.new_hash} is of features of {made.dim} numbers, and those of "
                f"{name} have {numbers}. Remove it: reid-edge gallery migrate {store.name} --from {made.old_hash} "
                f"--to {made.new_hash} --remove"
            )
    unit: Feature = l2_normalised((feature @ matrix)[None])[0]
    return unit


def _require_models(store: Store, pairs: Pairs) -> None:
    """Check that a gallery takes features of both models.

    Raises:
        ModelMismatchError: It does not.
    """
    held = {model.model_hash: model.dim for model in store.models()}
    for model_hash in (pairs.old_hash, pairs.new_hash):
        if model_hash not in held:
            raise ModelMismatchError(
                f"{store.name} takes no features of the model {model_hash}; it takes those of "
                f"{', '.join(held) or 'none yet'}. To take them: "
                f"reid-edge gallery accept-model {store.name} {model_hash}"
            )
        if held[model_hash] not in (None, pairs.old.shape[1]):
            raise ModelMismatchError(
                f"features of {model_hash} have {held[model_hash]} numbers in {store.name}, and {pairs.old.shape[1]} "
                "in these pairs: they are of another model."
            )


def _name(old_hash: str, new_hash: str) -> str:
    return f"migration/{old_hash}/{new_hash}"
