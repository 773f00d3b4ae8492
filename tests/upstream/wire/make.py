"""Wrote the stored messages, once for each folder: what cameras in the field send must stay readable.

    python tests/upstream/wire/make.py FOLDER

v1 holds messages of the first release, v1_galleries the first that name galleries and ask for a replay.  For new
fields, add records and run it with another name, which begins with the version; it never replaces a file.
"""

import json
import sys
from pathlib import Path

import numpy as np

from reid_edge.upstream.message import ENCODINGS, encode_ack, encode_batch, encode_observation
from reid_edge.upstream.observation import Ack, Gap, Observation, Refusal, Replay

CAMERA, INCARNATION = "c0123456789abcdef01234567", "8f14e45fceea167a"
GALLERIES = ("gallery", "second.gallery")


def observation(number: int) -> Observation:
    feature = np.cos(np.arange(32, dtype=np.float32) * (number + 1))
    return Observation(
        model_hash=f"{number:02x}" * 32,
        track=1000 + number,
        captured_us=1_795_000_000_000_000 + number,
        first_us=1_794_999_999_000_000,
        last_us=1_795_000_000_500_000,
        box=(0.25, 0.125, 0.5, 1.0),
        confidence=0.875,
        quality=0.5,
        crops=number + 1,
        final=number % 2 == 1,
        feature=feature / np.linalg.norm(feature),
    )


def write(path: Path, payload: bytes, expected: object) -> None:
    with path.open("xb") as file:
        file.write(payload)
    with path.with_suffix(".json").open("x") as file:
        json.dump(expected, file, indent=1)


def main() -> None:
    folder = Path(__file__).parent / sys.argv[1]
    folder.mkdir()
    made = [observation(number) for number in range(3)]
    gaps = (Gap(1, 40, 38, "full"), Gap(41, 41, 1, "expired"), Gap(50, 52, 3, "lost"))
    expected = {
        "camera": CAMERA,
        "epoch": INCARNATION,
        "observations": [[100 + i, {**vars(one), "feature": one.feature.tolist()}] for i, one in enumerate(made)],
        "gaps": [vars(gap) for gap in gaps],
        "galleries": list(GALLERIES),
    }
    for encoding in ENCODINGS:
        rows = [(100 + index, encode_observation(one, encoding)) for index, one in enumerate(made)]
        payload = encode_batch(CAMERA, INCARNATION, rows, gaps, galleries=GALLERIES)
        write(folder / f"batch_{encoding}.bin", payload, expected)
    refused = (Refusal((102, 103), "another model"),)
    replay = Replay("4f1c", 1_795_000_000_000_000)
    ack = Ack(CAMERA, INCARNATION, (100, 101, 2**40), ((1, 40), (41, 41)), refused, GALLERIES[1], replay)
    fields = {**vars(ack), "refused": [vars(refusal) for refusal in ack.refused], "replay": vars(replay)}
    fields["epoch"] = fields.pop("incarnation")
    write(folder / "ack.bin", encode_ack(ack), fields)


if __name__ == "__main__":
    main()
