"""The models whose features a gallery takes, as its collector knows them."""

from __future__ import annotations

from collections.abc import Mapping

from reid_edge.gallery.store import Store
from reid_edge.gallery.store.base import AcceptedModel
from reid_edge.upstream.observation import Observation


class AcceptedModels:
    """The models that a gallery accepts, read from its store at most once for a commit."""

    def __init__(self, store: Store) -> None:
        self._store = store
        self._models: dict[str, AcceptedModel] = {}
        self._read = False

    def forget(self) -> None:
        """Read them again when the next unknown one comes."""
        self._read = False

    def clear(self) -> None:
        """Read them again when the next one comes."""
        self._models, self._read = {}, False

    def known(self, seen: Observation, now_us: int) -> Mapping[str, AcceptedModel]:
        """Return the accepted models, after accepting the model of an observation if it is the first.

        Learns the feature size of a model that a person accepted without it.
        """
        known = self._models.get(seen.model_hash)
        if known is not None and known.dim == seen.feature.size:
            return self._models
        if not self._read:
            self._refresh()
        known = self._models.get(seen.model_hash)
        if not self._models or (known is not None and known.dim is None):
            self._store.accept_model(seen.model_hash, seen.feature.size, now_us=now_us, only_first=known is None)
            self._refresh()
        return self._models

    def _refresh(self) -> None:
        self._models = {model.model_hash: model for model in self._store.models()}
        self._read = True
