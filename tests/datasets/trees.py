"""Small trees in the real datasets' layouts."""

from pathlib import Path

import cv2
import h5py
import numpy as np
from scipy.io import savemat


def touch(folder: Path, *names: str) -> None:
    for parent in {(folder / name).parent for name in names}:
        parent.mkdir(parents=True, exist_ok=True)
    for name in names:
        (folder / name).touch()


def market1501(root: Path) -> Path:
    touch(root / "bounding_box_train", "0002_c1s1_000451_03.jpg", "0007_c3s3_077419_03.jpg", "Thumbs.db")
    touch(root / "query", "0001_c1s1_001051_00.jpg", "0001_c2s1_000301_00.jpg")
    touch(
        root / "bounding_box_test",
        "-1_c1s1_000401_03.jpg",
        "0000_c1s1_000151_01.jpg",
        "0001_c1s1_002301_02.jpg",
        "0003_c2s1_002301_02.jpg",
    )
    return root


def dukemtmc(root: Path) -> Path:
    touch(root / "bounding_box_train", "0001_c2_f0046182.jpg", "0005_c7_f0046302.jpg")
    touch(root / "query", "0002_c1_f0044158.jpg")
    touch(root / "bounding_box_test", "0002_c2_f0044158.jpg", "7139_c8_f0088888.jpg")
    return root


def msmt17(root: Path, version: int) -> Path:
    lists = {
        "train": "0000/0000_000_01_0303morning_0015_0.jpg 0\n0001/0001_005_14_0303noon_0023_1.jpg 1\n",
        "val": "0000/0000_001_01_0303morning_0022_0.jpg 0\n",
        "query": "0000/0000_000_02_0303morning_0021_0.jpg 0\n",
        "gallery": "0000/0000_002_15_0303afternoon_0021_0.jpg 0\n0003/0003_003_03_0303morning_0021_2.jpg 3\n",
    }
    for name, text in lists.items():
        part = "train" if name in ("train", "val") else "test"
        folder = part if version == 1 else f"mask_{part}_v2"
        touch(root / folder, *(line.split()[0] for line in text.splitlines()))
        (root / f"list_{name}.txt").write_text(text)
    return root


def viper(root: Path, people: int) -> Path:
    """Numbers with gaps, as VIPeR's."""
    for camera, angle in (("cam_a", 45), ("cam_b", 90)):
        touch(root / "VIPeR" / camera, *(f"{3 * person:03d}_{angle}.bmp" for person in range(people)))
    return root


def grid(root: Path, people: int, others: int) -> Path:
    folder = root / "underground_reid"
    touch(folder / "probe", *(f"{person:04d}_1_25004_107_32_106_{person}.jpeg" for person in range(1, people + 1)))
    touch(folder / "gallery", *(f"{person:04d}_2_25023_116_35_92_{person}.jpeg" for person in range(1, people + 1)))
    touch(folder / "gallery", *(f"0000_5_25098_116_35_92_{number}.jpeg" for number in range(others)))
    return root


def grid_partitions(root: Path, halves: list[list[int]]) -> None:
    """A 1×10 cell of structs whose third field is the training half."""
    cells = np.empty((1, len(halves)), dtype=object)
    for place, half in enumerate(halves):
        cells[0, place] = {"partition": place + 1, "testIdx": [9999], "trainIdx": half}
    savemat(root / "underground_reid" / "features_and_partitions.mat", {"trainIdxAll": cells, "features": np.eye(2)})


#: Camera pairs of people of ten cells each, a seed for an image and None for an empty cell.
CUHK03_CELLS = (
    ((1, 2, None, None, None, 3, None, None, None, None), (4, None, None, None, None, 5, 6, None, None, None)),
    ((7, None, None, None, None, 8, None, None, None, 9),),
)
#: The images of these cells, by the names that the protocol gives them.
CUHK03_FILES = {
    "1_001_1_01.png": 1,
    "1_001_1_02.png": 2,
    "1_001_2_06.png": 3,
    "1_002_1_01.png": 4,
    "1_002_2_06.png": 5,
    "1_002_2_07.png": 6,
    "2_001_1_01.png": 7,
    "2_001_2_06.png": 8,
    "2_001_2_10.png": 9,
}


def cuhk03_image(seed: int) -> np.ndarray:
    """H×W×3 uint8 RGB."""
    return np.random.default_rng(seed).integers(0, 256, (6 + seed, 4, 3), dtype=np.uint8)


def cuhk03_pixels(path: Path) -> None:
    """What MATLAB writes as version 7.3: cells are references, every axis is reversed, an empty cell holds its size."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with h5py.File(path, "w") as file:
        pairs = []
        for people in CUHK03_CELLS:
            cells = np.empty((10, len(people)), dtype=h5py.ref_dtype)
            for person, seeds in enumerate(people):
                for number, seed in enumerate(seeds):
                    content = np.zeros(2, np.uint64) if seed is None else cuhk03_image(seed).transpose(2, 1, 0)
                    cells[number, person] = file.create_dataset(
                        f"#refs#/{len(file.get('#refs#', ()))}", data=content
                    ).ref
            pair = file.create_dataset(f"#refs#/pair{len(pairs)}", cells.shape, dtype=h5py.ref_dtype)
            pair[...] = cells
            pairs.append(pair.ref)
        detected = file.create_dataset("detected", (1, len(pairs)), dtype=h5py.ref_dtype)
        detected[0] = pairs


def cuhk03_protocol(folder: Path, **changes: object) -> None:
    """People 11, 12 (training) and 21; indices count from 1."""
    names = np.array([[name] for name in CUHK03_FILES], dtype=object)
    variables = {
        "filelist": names,
        "labels": np.array([[11], [11], [11], [12], [12], [12], [21], [21], [21]], np.float64),
        "train_idx": np.array([[1], [2], [3], [4], [5], [6]], np.float64),
        "query_idx": np.array([[7]], np.float64),
        "gallery_idx": np.array([[8], [9]], np.float64),
    }
    savemat(folder / "cuhk03_new_protocol_config_detected.mat", {**variables, **changes})


def cuhk03(root: Path) -> Path:
    cuhk03_pixels(root / "cuhk03_release" / "cuhk-03.mat")
    cuhk03_protocol(root)
    return root


def cuhk03_test_sets(pixels: Path, people: list[list[tuple[int, int]]]) -> None:
    """Camera pair and person of each test set, counted from 1, as a 20×1 cell of N×2 numbers."""
    pixels.parent.mkdir(parents=True, exist_ok=True)
    with h5py.File(pixels, "a") as file:
        sets = file.create_dataset("testsets", (1, len(people)), dtype=h5py.ref_dtype)
        for number, rows in enumerate(people):
            sets[0, number] = file.create_dataset(f"#refs#/test{number}", data=np.array(rows, np.float64).T).ref


def cuhk03_np(root: Path) -> Path:
    touch(root / "detected" / "bounding_box_train", "0001_c1_1.png", "0001_c2_6.png", "0002_c1_11.png")
    touch(root / "detected" / "query", "0003_c1_21.png")
    touch(root / "detected" / "bounding_box_test", "0003_c2_26.png")
    return root


def folder(root: Path) -> Path:
    touch(root / "train", "anna/a_c1_0.jpg", "anna/a_c2_0.jpg", "ben/c2-7.png", "ben/notes.txt")
    touch(root / "query", "cleo/x_c1.jpg")
    touch(root / "gallery", "cleo/x_c2.jpg", "anna/y_c3.jpg")
    return root


def market_attributes(root: Path) -> Path:
    """Identity 2: a young man in a black shirt; 7: a teenage woman in white, short sleeves; 1 and 3: old, adult."""
    market1501(root)
    upper = ("black", "white", "red", "purple", "yellow", "gray", "blue", "green")
    lower = ("black", "white", "pink", "purple", "yellow", "gray", "blue", "green", "brown")
    fields = ["gender", "hair", "up", "down", "clothes", "hat", "backpack", "bag", "handbag"]
    fields += [f"up{colour}" for colour in upper] + [f"down{colour}" for colour in lower]
    train = {field: np.array([1, 1], np.uint8) for field in fields}
    train |= {"age": np.array([1, 2], np.uint8), "gender": np.array([1, 2], np.uint8), "up": np.array([1, 2], np.uint8)}
    train |= {"upblack": np.array([2, 1], np.uint8), "upwhite": np.array([1, 2], np.uint8)}
    train["image_index"] = np.array(["0002", "0007"], dtype=object)
    # In the real file, too, the two parts have their fields in different orders.
    test = {field: np.array([1, 1], np.uint8) for field in reversed(fields)}
    test |= {"age": np.array([4, 3], np.uint8), "downbrown": np.array([2, 1], np.uint8)}
    test["image_index"] = np.array(["0001", "0003"], dtype=object)
    savemat(root / "market_attribute.mat", {"market_attribute": {"train": train, "test": test}})
    return root


def pa100k(root: Path, pictures: str = "data") -> Path:
    names = {
        "train": ["000001.jpg", "000002.jpg", "000003.jpg"],
        "val": ["000004.jpg", "000007.jpg"],
        "test": ["000005.jpg", "000006.jpg"],
    }
    labels = {"train": [[0, 1], [1, 1], [0, 0]], "val": [[1, 0], [1, 1]], "test": [[1, 0], [0, 1]]}
    variables = {"attributes": np.array([["Female"], ["Hat"]], dtype=object)}
    for split, files in names.items():
        touch(root / pictures, *files)
        variables[f"{split}_images_name"] = np.array([[file] for file in files], dtype=object)
        variables[f"{split}_label"] = np.array(labels[split], np.uint8)
    savemat(root / "annotation.mat", variables)
    return root


def cifar_image(seed: int) -> np.ndarray:
    """32×32×3 uint8 RGB."""
    return np.random.default_rng(seed).integers(0, 256, (32, 32, 3), dtype=np.uint8)


def cifar_rows(labels: list[tuple[int, ...]], first_seed: int) -> bytes:
    """Labels, then the red, green and blue planes."""
    rows = b""
    for number, before in enumerate(labels):
        image = cifar_image(first_seed + number)
        rows += bytes(before) + b"".join(image[:, :, channel].tobytes() for channel in range(3))
    return rows


def write_image(path: Path, image_bgr: np.ndarray) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(cv2.imencode(".png", image_bgr)[1].tobytes())
