"""Wire encodings: what fp16 and int8 cost in ranking quality and save in bytes, on real features.

    python benchmarks/encodings.py BUNDLE MARKET1501_FOLDER [--partial]

Every feature, of queries and gallery, goes through the bytes of an observation and back.
"""

import argparse
from pathlib import Path

import numpy as np

from reid_edge.datasets.loading import load_split
from reid_edge.evaluation.comparison import Labelled
from reid_edge.evaluation.ranking import rank
from reid_edge.features import l2_normalised, row_cosines
from reid_edge.runtime import Extractor
from reid_edge.runtime.extractor import extract_files
from reid_edge.upstream.message import ENCODINGS, decode_observation, encode_batch, encode_observation
from reid_edge.upstream.observation import Observation


def observation(model_hash: str, feature: np.ndarray) -> Observation:
    return Observation(
        model_hash=model_hash,
        track=1234,
        captured_us=1_795_000_000_000_000,
        first_us=1_794_999_999_000_000,
        last_us=1_795_000_000_000_000,
        box=(0.25, 0.125, 0.5, 0.75),
        confidence=0.9,
        quality=0.8,
        crops=3,
        final=False,
        feature=feature,
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("bundle")
    parser.add_argument("root", type=Path)
    parser.add_argument("--partial", action="store_true")
    options = parser.parse_args()
    extractor = Extractor(options.bundle, engine="openvino", precision="fp32")
    model_hash = extractor.bundle.manifest.model_hash
    images = {
        split: load_split("market1501", options.root, split, partial=options.partial) for split in ("query", "gallery")
    }
    features = {
        split: l2_normalised(extract_files(extractor, [image.path for image in images[split]]).features)
        for split in images
    }
    counts = " and ".join(f"{len(rows):,} {split}" for split, rows in features.items())
    print(f"{extractor.description}; {counts} features of {features['query'].shape[1]}\n")
    print("| encoding | bytes alone | bytes in a batch of 64 | R1 | mAP | cosine: mean | least |\n|---|" + "---|" * 6)
    for encoding in ENCODINGS:
        decoded, cosines = {}, []
        for split, rows in features.items():
            encoded = [encode_observation(observation(model_hash, row), encoding) for row in rows]
            decoded[split] = np.stack([decode_observation(data).feature for data in encoded])
            cosines.append(row_cosines(rows, decoded[split]))
        query, gallery = (
            Labelled(
                decoded[split],
                np.array([image.identity for image in images[split]]),
                np.array([image.camera for image in images[split]]),
            )
            for split in ("query", "gallery")
        )
        result = rank(query, gallery, distance="cosine", on_block=lambda _: None)
        alone, batch = (
            len(encode_batch("c" + "0" * 24, "0" * 16, list(enumerate(encoded[:size], 1 << 30)))) / size
            for size in (1, 64)
        )
        joined = np.concatenate(cosines)
        print(
            f"| {encoding} | {alone:,.0f} | {batch:,.0f} | {100 * result.cmc[0]:.2f} | {100 * result.mean_ap:.3f} | "
            f"{joined.mean():.8f} | {joined.min():.8f} |"
        )


if __name__ == "__main__":
    main()
