"""All that a gallery holds, whatever its store: copied into an empty one."""

from __future__ import annotations

from dataclasses import dataclass

from reid_edge.gallery.store import Store
from reid_edge.gallery.store.base import DAMAGE
from reid_edge.gallery.store.chain import check_chain
from reid_edge.gallery.store.people import AllPeople
from reid_edge.gallery.store.snapshots import Snapshot

#: Settings of one gallery that another must not be given.
_OF_ONE = ("clock/", "replay", "backup", DAMAGE)


@dataclass(frozen=True, kw_only=True)
class Contents:
    """What was copied.

    Attributes:
        observations: Number of observations.
        damaged: Number of observations that were left out, being damaged.
        gaps: Number of gaps.
        erasures: Number of erasures in force.
        audit_lines: Number of lines of the audit.
        audit_head: Hash of the last line.
        audit_faults: What was wrong with the chain of the audit already; empty if nothing was.
    """

    observations: int
    damaged: int
    gaps: int
    erasures: int
    audit_lines: int
    audit_head: str
    audit_faults: tuple[str, ...] = ()


def copy_contents(held: Snapshot, target: Store, before: AllPeople | None = None) -> Contents:
    """Write what a store holds into an empty one; the observations first, since Milvus may change meanwhile.

    Args:
        held: What it holds.
        target: The empty one.
        before: People of the gallery that the empty one takes the place of; None: there was none.
    """
    for model in held.models():
        target.accept_model(model.model_hash, model.dim, now_us=model.accepted_us)
    observations = sum(target.add(piece).stored for piece in held.records())
    gaps = held.gaps()
    target.add([], gaps)
    target.change_settings({name: value for name, value in held.settings().items() if not name.startswith(_OF_ONE)})
    erasures = held.erasures()
    observations -= len(target.apply_erasures(erasures).keys)
    people = held.people().going_on_from(before or AllPeople())
    if people.state.revision:
        target.restore_people(people)
    lines = held.audit()
    target.restore_audit(lines)
    report = check_chain(lines)
    return Contents(
        observations=observations,
        damaged=held.damaged,
        gaps=len(gaps),
        erasures=len(erasures),
        audit_lines=report.lines,
        audit_head=report.head,
        audit_faults=report.faults,
    )
