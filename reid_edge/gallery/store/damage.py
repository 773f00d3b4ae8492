"""Damaged rows of a store: left out of answers, counted, logged, and shown."""

from __future__ import annotations

import contextlib
import logging
import threading
import time
from collections.abc import Iterator

from reid_edge.errors import ReidEdgeError, StoreError
from reid_edge.sparse_log import SparseLog
from reid_edge.wording import counted

log = logging.getLogger(__name__)

#: A loss is told for so long.
LOSS_S = 24 * 3600.0
#: What reading raises where a damaged store holds something else than was written.
DAMAGED = (ValueError, TypeError, LookupError, ArithmeticError, AttributeError)


@contextlib.contextmanager
def damage_errors(store: str) -> Iterator[None]:
    """Turn what a server's damaged contents raise into :class:`StoreError`.

    Args:
        store: URI of the gallery.
    """
    try:
        yield
    except ReidEdgeError:  # some are ValueErrors too, e.g. of an address that others could read
        raise
    except DAMAGED as error:
        raise StoreError(
            f"the gallery in {store} holds something else than was written: {error}. {repair_advice(store)}."
        ) from error


def repair_advice(store: str) -> str:
    """Return what to do about a damaged gallery."""
    return f"To put a backup back: reid-edge gallery restore BACKUP {store} --force"


class DamagedRows:
    """The rows that a store has found damaged since it was opened; may be used from several threads.

    Args:
        name: The store's URI.
    """

    def __init__(self, name: str) -> None:
        self._name = name
        self._lock = threading.Lock()
        self._rows: set[str] = set()
        self._structure = ""
        self._loss, self._loss_until_s = "", 0.0
        self._sparse = SparseLog(log)

    def note(self, row: object) -> None:
        """Take note of a damaged row, named by its number or id."""
        with self._lock:
            if str(row) in self._rows:
                return
            self._rows.add(str(row))
        if self._sparse.admits("rows") is not None:
            log.error("%s", self.trouble)

    def note_structure(self, what: str) -> None:
        """Take note of what a check of the whole store found wrong besides single rows; "" for nothing."""
        if what and what != self._structure:
            log.error("the gallery %s is damaged: %s", self._name, what)
        self._structure = what

    def note_loss(self, what: str) -> None:
        """Take note, for a day, that what was stored is gone."""
        self._loss, self._loss_until_s = what, time.monotonic() + LOSS_S

    def clear(self) -> None:
        """Forget everything: another gallery is in the place."""
        with self._lock:
            self._rows.clear()
        self._structure = self._loss = ""

    def __len__(self) -> int:
        """Return the number of rows."""
        return len(self._rows)

    @property
    def trouble(self) -> str:
        """What a person has to know; empty if nothing is damaged or lost."""
        shown = sorted(self._rows)
        some = ", ".join(shown[:5]) + (", …" if len(shown) > 5 else "")
        said = [self._loss] if self._loss and time.monotonic() < self._loss_until_s else []
        said += [self._structure] if self._structure else []
        if shown:
            said.append(f"{counted(len(shown), 'damaged observation')} left out of answers ({some})")
        return "; ".join([*said, repair_advice(self._name)]) if said else ""
