"""Make the page of a preview: one HTML file with its pictures and style; no scripts, no network access."""

from __future__ import annotations

import datetime
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import msgspec

from reid_edge.camera.pipeline import Pipeline
from reid_edge.camera.preview.recording import Recorder, SeenCrop, SeenTrack
from reid_edge.camera.review import Counts, listed
from reid_edge.camera.settings import AgentSettings
from reid_edge.errors import MissingExtraError
from reid_edge.pages import jpeg_uri, page_asset, page_template
from reid_edge.redaction import redacted, scrubbed
from reid_edge.wording import counted

if TYPE_CHECKING:
    from reid_edge.camera.preview.running import PreviewOptions

try:
    TEMPLATE = page_template(__package__)
except ModuleNotFoundError as error:  # now, not after the work whose result the page is to show
    raise MissingExtraError("jinja2", "camera", "making a page") from error

PRIVACY = (
    "This page holds pictures of people. Show it only to those who may see the video, and delete it by the same rules. "
    "Nothing was published: no feature went to a gallery or an outbox."
)
#: Tables of the settings that play no part here, and may hold addresses and names of key files.
NOT_SHOWN = ("upstream", "operation", "camera")
#: Words for the reasons of the camera's parts; a reason that is not here is shown by its own name.
WORDS = {
    "first": "chosen: the first good one",
    "better": "chosen: clearly better than earlier ones",
    "interval": "chosen: the interval has passed",
    "every": "chosen: every crop is chosen",
    "waits": "not chosen: waiting for a better first crop",
    "soon": "not chosen: one was chosen just now",
    "no_better": "not chosen: not clearly better than earlier ones",
    "has_one": "not chosen: the track already has its one crop",
    "low_score": "not chosen: its score is too low",
    "averaged": "in the tracklet's feature",
    "doubted": "left out: unlike the others",
    "split": "starts another tracklet: shows somebody else",
    "late": "left out: too many live tracks",
    "dropped": "dropped: the engine is too slow",
}

#: Words for the reasons of :mod:`~reid_edge.camera.person_check`.
FAILING = {
    "short": "the track is too short to tell whether it is a person",
    "weak": "most of its scores are too low",
    "cut_off": "the edge of the frame cuts it off in nearly all boxes: no head, or a half of a body",
    "unsteady": "its height changes too much, as with body parts or several people",
    "still": "it has hardly moved",
    "odd_size": "it is much lower or higher than others in its place, as legs, small animals and two people are",
    "out_of_depth": "few moving things here look like one whole person, so 'motion' does not suit the scene",
}


@dataclass(frozen=True)
class _Picture:
    """A crop on the page."""

    address: str
    chosen: bool
    time: str
    figures: str
    words: tuple[str, ...]


@dataclass(frozen=True)
class _Card:
    """A track on the page, and its bar in the timeline, in per cent of the width."""

    number: int
    verdict: str
    published: bool
    facts: str
    pictures: list[_Picture]
    left: float
    width: float


def page(
    recorder: Recorder,
    counts: Counts,
    wrong: Sequence[str],
    settings: AgentSettings,
    options: PreviewOptions,
    pipeline: Pipeline,
) -> str:
    """Render the page as text."""
    first_us = recorder.first_us or 0
    length_us = max(1, recorder.last_us - first_us)
    cards = [_card(track, first_us, length_us) for track in recorder.tracks.values()]
    return TEMPLATE.render(
        source=pipeline.source.name,
        detector=scrubbed(pipeline.detector.description),
        made=datetime.datetime.now(datetime.timezone.utc).strftime("%Y-%m-%d %H:%M UTC"),
        began=_moment(first_us),
        length=clock(length_us),
        privacy=PRIVACY,
        wrong=wrong,
        counts=_counted(recorder, counts),
        cards=cards,
        published=sum(card.published for card in cards),
        picture=jpeg_uri(recorder.picture) if recorder.picture else "",
        picture_time=clock(recorder.picture_us - first_us),
        masks=len(settings.filter.masks),
        left_out=_left_out(recorder, options),
        settings=_settings(settings),
        counted=counted,
        style=page_asset(__package__, "page.css"),
    )


def clock(passed_us: int) -> str:
    """Return a time from the first frame: ``1:02.5``, ``1:00:02.5``."""
    tenths = max(0, round(passed_us / 1e5))
    minutes, seconds = divmod(tenths / 10, 60)
    hours, minutes = divmod(int(minutes), 60)
    return f"{hours}:{minutes:02}:{seconds:04.1f}" if hours else f"{minutes}:{seconds:04.1f}"


def verdict(track: SeenTrack) -> str:
    """Say whether a track was published, and why if not."""
    if track.published:
        parts = [f"{number} ({counted(crops, 'crop')})" for number, crops in track.published.items()]
        return f"published as tracklet {' and '.join(parts)}"
    if track.failing:
        return f"not published: {FAILING.get(track.failing, track.failing)} ({track.failing.replace('_', ' ')})"
    if not track.chosen:
        return f"not published: no crop was chosen ({listed(dict(track.left))})"
    if track.uses["dropped"] == sum(track.uses.values()) > 0:
        return "not published: all of its crops were dropped because the engine is too slow"
    return "not published"


def _card(track: SeenTrack, first_us: int, length_us: int) -> _Card:
    shown = track.shown(chosen=True), track.shown(chosen=False)
    chosen, others = track.chosen.total(), track.left.total()
    facts = (
        f"{clock(track.first_us - first_us)} to {clock(track.last_us - first_us)}, "
        f"{counted(track.boxes, 'box', 'boxes')}, scores "
        f"{track.lowest:.2f} to {track.highest:.2f}; {counted(chosen, 'crop')} chosen ({shown[0]} shown), "
        f"{others:,} not ({shown[1]} shown" + (f"; reasons: {listed(dict(track.left))}" if track.left else "") + ")"
    )
    pictures = [_picture(crop, first_us) for crop in sorted(track.crops, key=lambda crop: crop.captured_us)]
    left = 100 * (track.first_us - first_us) / length_us
    width = max(0.3, 100 * (track.last_us - track.first_us) / length_us)
    return _Card(track.number, verdict(track), bool(track.published), facts, pictures, min(left, 99.7), width)


def _picture(crop: SeenCrop, first_us: int) -> _Picture:
    words = [crop.reason, *([crop.use] if crop.use else [])]
    return _Picture(
        jpeg_uri(crop.picture),
        crop.chosen,
        clock(crop.captured_us - first_us),
        f"score {crop.score:.2f}, quality {crop.quality:.2f}",
        tuple(WORDS.get(word, word.replace("_", " ")) for word in words),
    )


def _counted(recorder: Recorder, counts: Counts) -> list[tuple[str, str]]:
    """Return rows of text and number."""
    rows = [
        ("frames looked at", f"{counts.frames:,}"),
        ("frames that could not be decoded", f"{counts.unreadable:,}" if counts.unreadable else ""),
        ("frames while switched off", f"{counts.off:,}" if counts.off else ""),
        ("boxes kept by the filter", f"{counts.detections:,}"),
        ("boxes dropped by the filter", listed(counts.filtered) or "0"),
        ("tracks, also those of which no crop was chosen", f"{len(recorder.tracks) + recorder.not_kept:,}"),
        ("crops chosen", f"{counts.chosen:,}"),
        ("crops dropped because the engine is too slow", f"{counts.overload:,}" if counts.overload else ""),
        ("tracks that began to show somebody else", f"{counts.split:,}" if counts.split else ""),
        ("tracklets withheld, not like one whole person", listed(counts.withheld)),
        ("tracklets that 'run' would have published", f"{recorder.tracklets:,}"),
    ]
    return [(text, number) for text, number in rows if number]


def _left_out(recorder: Recorder, options: PreviewOptions) -> list[str]:
    """Say what the page does not show."""
    limits, found = options.limits, []
    if recorder.not_kept:
        found.append(
            f"{counted(recorder.not_kept, 'later track')} counted and not shown: the page has room for "
            f"{limits.tracks:,}. Shorten it with --seconds to see fewer, or cut the video."
        )
    if any(track.chosen.total() > track.shown(chosen=True) for track in recorder.tracks.values()):
        found.append(
            f"Of the chosen crops, at most {limits.chosen} of a track are shown, evenly from all. The page has room "
            f"for {limits.crops:,} crops."
        )
    found.append(f"Of the crops that were not chosen, at most {limits.left} of a track are shown, a second apart.")
    return found


def _settings(settings: AgentSettings) -> list[tuple[str, str]]:
    """Return names and values of the settings that play a part, without secrets."""
    tables: dict[str, Any] = msgspec.to_builtins(settings, enc_hook=str)
    rows = []
    for table, values in tables.items():
        if table not in NOT_SHOWN:
            for name, value in values.items():
                shown = redacted(value) if (table, name) == ("source", "uri") else scrubbed(str(value))
                rows.append((f"{table}.{name}", shown))
    return rows


def _moment(moment_us: int) -> str:
    moment = datetime.datetime.fromtimestamp(moment_us / 1e6, datetime.timezone.utc)
    return moment.strftime("%Y-%m-%d %H:%M:%S UTC")
