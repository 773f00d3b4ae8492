"""``reid-edge gallery pairs`` and ``migrate``: change the model without losing what the old one has stored."""

from __future__ import annotations

import itertools
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import numpy as np
import typer

from reid_edge.cli.camera import Assignments, Config, DetectorName
from reid_edge.cli.gallery_options import JsonOption, StoreArgument, opened, print_json
from reid_edge.cli.place_crops import CameraOptions, PlaceSeconds, PlaceSources, video_crops
from reid_edge.cli.shared_options import ForceOption, SkipBadOption, TrustedKeyOption
from reid_edge.console import console, progress_bars, say
from reid_edge.errors import PairsError, UsageError
from reid_edge.gallery.times import now_us
from reid_edge.system.private_memory import keep_memory_private

if TYPE_CHECKING:
    from reid_edge.gallery.migration import Migration
    from reid_edge.identity.migration import Pairs
    from reid_edge.progress import Notify
    from reid_edge.runtime import Extractor
    from reid_edge.types import Image

#: Crops that are taken of all videos together: they are in memory.
MOST_CROPS = 4096
#: Crops that are read or embedded at a time.
AT_ONCE = 32

#: Crops, and the name of the group of each.
Block = tuple[list["Image"], list[str]]


def pairs(
    old: Annotated[Path, typer.Argument(metavar="OLD", help="Bundle whose features the gallery holds.")],
    new: Annotated[Path, typer.Argument(metavar="NEW", help="Bundle that is to replace it.")],
    crops: Annotated[
        list[Path] | None,
        typer.Option(help="Folder of person crops; a folder in it for each person. May be repeated."),
    ] = None,
    source: PlaceSources = None,
    detector: DetectorName = None,
    config: Config = None,
    set_: Assignments = None,
    seconds: PlaceSeconds = None,
    trusted_key: TrustedKeyOption = None,
    out: Annotated[Path, typer.Option(help="File of pairs to write, .npz.")] = Path("pairs.npz"),
    skip_bad: SkipBadOption = False,
    force: ForceOption = False,
) -> None:
    """Embed the same crops by two bundles, for 'gallery migrate'. Needs no torch, and stores no picture.

    The file holds features, which are personal data: only you can read it (mode 600). Delete it after the migration.
    """
    from reid_edge.gallery.pairs_file import check_pairs_file, write_pairs
    from reid_edge.runtime import Extractor

    if not crops and not source:
        raise UsageError("give --crops FOLDER with a folder for each person, or --source VIDEO.")
    check_pairs_file(out, force=force)
    keep_memory_private()
    extractors = [Extractor(bundle, trusted_keys=trusted_key or ()) for bundle in (old, new)]
    hashes = [extractor.bundle.manifest.model_hash for extractor in extractors]
    if hashes[0] == hashes[1]:
        raise PairsError(f"{old} and {new} are the same model, {hashes[0]}: nothing is to be migrated.")
    camera = CameraOptions(config, detector, tuple(set_ or ()), seconds)
    with progress_bars() as notify:
        of_folders = _folder_blocks(crops or [], notify, skip_bad=skip_bad)
        of_videos = _video_blocks(source or [], extractors, old, camera, notify)
        made = _embedded(itertools.chain(of_folders, of_videos), extractors)
    write_pairs(out, made)
    groups = len(np.unique(made.groups))
    console.print(
        f"{out}: {len(made):,} pairs of {groups:,} people or tracks; it holds features of people and no pictures\n"
        f"Next: reid-edge gallery migrate STORE --from {hashes[0]} --to {hashes[1]} --pairs {out}",
        soft_wrap=True,
    )


def migrate(
    store: StoreArgument,
    from_: Annotated[str, typer.Option("--from", metavar="HASH", help="Model of the stored features.")],
    to: Annotated[str, typer.Option(metavar="HASH", help="Model that replaces it ('reid-edge inspect BUNDLE').")],
    pairs: Annotated[
        Path | None, typer.Option(help="File of features of the same crops by both, from 'gallery pairs'.")
    ] = None,
    max_loss: Annotated[
        float, typer.Option(min=0, max=100, help="Largest loss of mAP to accept, points, against the new model's own.")
    ] = 10.0,
    remove: Annotated[bool, typer.Option("--remove", help="Remove the map between the two models.")] = False,
    as_json: JsonOption = False,
) -> None:
    """Make features of an old model searchable with a new one, by a map learnt from pairs and judged by ranking.

    Stored features stay as they are; 'search' maps the query, and says which hits are of the other model.
    """
    from reid_edge.gallery.migration import migrate as migrated
    from reid_edge.gallery.migration import remove_migration
    from reid_edge.gallery.pairs_file import read_pairs

    if remove == (pairs is not None):
        raise UsageError("give --pairs FILE (made by 'reid-edge gallery pairs'), or --remove.")
    if pairs is None:
        with opened(store) as gallery:
            remove_migration(gallery, from_, to, now_us=now_us())
        console.print("the map is removed: a search finds features of the query's own model only", soft_wrap=True)
        return
    held = read_pairs(pairs)
    _check_models(held, from_, to, pairs)
    with opened(store) as gallery:
        made = migrated(gallery, held, max_loss=max_loss, now_us=now_us())
    if as_json:
        print_json({name: value for name, value in asdict(made).items() if name != "matrix"})
    else:
        _print_migration(made, len(held))


def _check_models(held: Pairs, old_hash: str, new_hash: str, path: Path) -> None:
    """Refuse pairs of other models.

    Raises:
        PairsError: They are, or in the other direction.
    """
    if (held.old_hash, held.new_hash) != (old_hash, new_hash):
        raise PairsError(
            f"{path} holds pairs from {held.old_hash} to {held.new_hash}, and --from {old_hash} --to {new_hash} was "
            "asked for. Make pairs of these two: reid-edge gallery pairs OLD NEW"
        )


def _print_migration(made: Migration, given: int) -> None:
    quality = made.quality
    for text, mean_ap, rank1 in (
        ("new model, its own features", quality.new_map, quality.new_rank1),
        ("new model, old features mapped", quality.mapped_map, quality.mapped_rank1),
        ("old model, its own features", quality.old_map, quality.old_rank1),
    ):
        console.print(f"{text:32} mAP {100 * mean_ap:5.1f}  R1 {100 * rank1:5.1f}")
    left_out = f" ({given - made.pairs:,} were the same crops again)" if given > made.pairs else ""
    console.print(
        f"learnt from {made.pairs:,} pairs{left_out} of {made.groups:,} people or tracks, judged by those that it was "
        f"not learnt from: a loss of {quality.loss:.1f} points of mAP, at most {made.max_loss:g} were accepted\n"
        "'gallery search' now compares both models' features, and marks the mapped ones. Stored features are "
        "unchanged; --remove ends it.",
        soft_wrap=True,
    )


def _folder_blocks(folders: list[Path], notify: Notify, *, skip_bad: bool) -> Iterator[Block]:
    """Yield crops of folders; those in one folder are a group."""
    from reid_edge.images import left_out, list_images, read_images

    paths = list_images(folders) if folders else []
    step, unreadable = notify("embedding crops by both models", len(paths)), []
    block: Block = ([], [])
    for path, image in read_images(paths, skip_bad=skip_bad):
        step()
        if image is None:
            unreadable.append(path)
            continue
        block[0].append(image)
        block[1].append(str(path.parent))
        if len(block[0]) == AT_ONCE:
            yield block
            block = ([], [])
    if block[0]:
        yield block
    if unreadable:
        say(left_out(unreadable, len(paths)))


def _video_blocks(
    uris: list[str], extractors: Sequence[Extractor], model: Path, camera: CameraOptions, notify: Notify
) -> Iterator[Block]:
    """Yield crops of videos; those of a track are a group."""
    sizes = [extractor.input_size for extractor in extractors]
    size = (max(height for height, _ in sizes), max(width for _, width in sizes))
    for number, uri in enumerate(uris):
        found = video_crops(uri, model, size, -(-MOST_CROPS // len(uris)), camera, notify)
        for start in range(0, len(found.crops), AT_ONCE):
            numbers = found.track_of[start : start + AT_ONCE]
            yield found.crops[start : start + AT_ONCE], [f"video {number} track {track}" for track in numbers]


def _embedded(blocks: Iterable[Block], extractors: Sequence[Extractor]) -> Pairs:
    """Embed crops by both models.

    Raises:
        PairsError: There is no crop, or the features cannot be paired.
    """
    from reid_edge.identity.migration import Pairs

    features: list[list[np.ndarray[tuple[int, ...], np.dtype[np.float32]]]] = [[], []]
    names: list[str] = []
    for crops, groups in blocks:
        for made, extractor in zip(features, extractors, strict=True):
            made.append(extractor(crops))
        names += groups
    if not names:
        raise PairsError("no crop of a person was found: give more crops, or a video in which people walk.")
    _, numbers = np.unique(names, return_inverse=True)
    old_hash, new_hash = (extractor.bundle.manifest.model_hash for extractor in extractors)
    return Pairs(
        old_hash=old_hash,
        new_hash=new_hash,
        old=np.concatenate(features[0]),
        new=np.concatenate(features[1]),
        groups=numbers.astype(np.int64),
    )
