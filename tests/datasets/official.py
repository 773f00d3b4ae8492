"""Names of files as the official distributions have them, and trees of empty files with such names.

Where the names are from: readers and READMEs of public repositories (torchreid, fast-reid, person-re-ranking), lists
that are published beside them, and reports of users.  Names that are published nowhere are made up in the same form.
"""

from pathlib import Path

from tests.datasets.trees import touch

#: Market-1501: images of the train split, the queries, junk, distractors, and the people in ``bounding_box_test``.
MARKET_COUNTS = {"bounding_box_train": (12_936, 751), "query": (3_368, 750), "bounding_box_test": (13_115, 750)}
MARKET_JUNK, MARKET_DISTRACTORS = 3_819, 2_798
#: Cameras of identity 1488, whose six queries end in ``.jpg.jpg``; which of the gallery do is not published: here all.
MARKET_1488 = {"query": (1, 2, 3, 4, 5, 6), "bounding_box_test": (1, 1, 2, 2, 3, 3, 3, 4, 4, 4, 5, 5, 5)}
#: What Windows and macOS leave in folders; the first is in the official archive.
LEFT_BEHIND = ("Thumbs.db", "._0001_c1s1_001051_00.jpg", ".DS_Store", "desktop.ini")

#: DukeMTMC-reID: images and people; 408 people of the gallery are searched for by nobody.
DUKE_COUNTS = {"bounding_box_train": (16_522, 702), "query": (2_228, 702), "bounding_box_test": (17_661, 1_110)}
#: Names that descriptions of the dataset give.
DUKE_NAMES = {
    "bounding_box_train": ("0001_c2_f0046182.jpg", "0008_c3_f0026318.jpg", "7140_c4_f0175988.jpg"),
    "query": ("0005_c2_f0046985.jpg",),
    "bounding_box_test": ("0002_c1_f0044158.jpg", "3761_c6_f0183709.jpg", "7139_c2_f0160815.jpg"),
}
#: People of CUHK03's camera pairs.
CUHK03_PEOPLE = {1: 843, 2: 440, 3: 77, 4: 58, 5: 49}

#: Numbers from 000 to 873 that VIPeR does not use.
_VIPER_GAPS = """247-299 349 352 356 363 396-499 530 559 586 602 644 663 665 668 681 688 691 694-695 704 710 712 718-719
727 730 739 742-799 810 857"""

#: First and last lines of MSMT17's lists.
MSMT17_LISTS = {
    "train": "0000/0000_045_12_0303morning_0006_2.jpg 0\n"
    "0000/0000_046_12_0303morning_0006_2_ex.jpg 0\n"
    "1040/1040_168_07_0302morning_0340_3_ex.jpg 1040\n",
    "val": "0000/0000_013_04_0303morning_0020_2.jpg 0\n1040/1040_158_07_0302morning_0331_0_ex.jpg 1040\n",
    "query": "0000/0000_000_01_0303morning_0015_0.jpg 0\n3059/3059_043_04_0113noon_1652_0.jpg 3059\n",
    "gallery": "0000/0000_008_01_0303morning_0019_2.jpg 0\n"
    "0000/0000_009_01_0303morning_0019_2_ex.jpg 0\n"
    "3059/3059_042_04_0113noon_1651_0.jpg 3059\n",
}
#: The folders of version 1 and version 2.
MSMT17_FOLDERS = {1: ("train", "test"), 2: ("mask_train_v2", "mask_test_v2")}

GRID_PROBE = (
    "0001_1_25004_107_32_106_221.jpeg",
    "0005_1_25120_210_22_84_215.jpeg",
    "0009_1_25208_126_19_71_215.jpeg",
    "0248_1_33170_101_100_90_308.jpeg",
)
GRID_GALLERY = (
    "0000_1_25698_101_16_87_246.jpeg",
    "0000_1_26113_116_13_72_212.jpeg",
    "0001_2_25023_116_134_128_330.jpeg",
    "0005_2_25139_116_134_128_330.jpeg",
    "0009_2_25226_176_72_87_246.jpeg",
    "0248_5_33193_101_100_90_308.jpeg",
)


def market1501(root: Path) -> Path:
    """As many files as the archive has, in its folder."""
    for folder, (images, people) in MARKET_COUNTS.items():
        names = market_names(folder, images, people)
        if folder == "bounding_box_test":
            names += [f"-1_c{1 + n % 6}s1_{n:06d}_00.jpg" for n in range(MARKET_JUNK)]
            names += [f"0000_c{1 + n % 6}s1_{n:06d}_00.jpg" for n in range(MARKET_DISTRACTORS)]
        touch(root / "Market-1501-v15.09.15" / folder, *names, *LEFT_BEHIND)
    return root


def market_names(folder: str, images: int, people: int) -> list[str]:
    """1488 is the last person; the others share what is left."""
    last = [f"1488_c{camera}s6_{23021 + n:06d}_00.jpg.jpg" for n, camera in enumerate(MARKET_1488.get(folder, ()))]
    others = people - bool(last)
    return [f"{1 + n % others:04d}_c{1 + n % 6}s1_{n:06d}_00.jpg" for n in range(images - len(last))] + last


def dukemtmc(root: Path) -> Path:
    """As many files as the archive has, with the names that are known among them."""
    for folder, (images, people) in DUKE_COUNTS.items():
        known = DUKE_NAMES[folder]
        others = people - len(known)
        names = [f"{1000 + n % others:04d}_c{1 + n % 8}_f{n:07d}.jpg" for n in range(images - len(known))]
        touch(root / "DukeMTMC-reID" / folder, *known, *names, *LEFT_BEHIND)
    return root


def viper(root: Path) -> Path:
    """632 people, numbered with the official gaps; angles are made up but for the first two and the last two."""
    gaps: set[int] = set()
    for part in _VIPER_GAPS.split():
        first, _, last = part.partition("-")
        gaps |= set(range(int(first), int(last or first) + 1))
    people = [number for number in range(874) if number not in gaps]
    angles_b = {0: 45, 1: 90, 872: 180, 873: 180}
    touch(root / "VIPeR" / "cam_a", *(f"{n:03d}_{0 if n >= 872 else 45}.bmp" for n in people))
    touch(root / "VIPeR" / "cam_b", *(f"{n:03d}_{angles_b.get(n, 90)}.bmp" for n in people))
    touch(root / "VIPeR", "README.txt")
    return root


def msmt17(root: Path, version: int, *, encoding: str = "utf-8", newline: str = "\n", suffix: str = ".jpg") -> Path:
    """Files of the lists, whose names end in ``suffix`` on disk."""
    train, test = MSMT17_FOLDERS[version]
    for name, text in MSMT17_LISTS.items():
        folder = root / (train if name in ("train", "val") else test)
        touch(folder, *(line.split()[0].replace(".jpg", suffix) for line in text.splitlines()))
        (root / f"list_{name}.txt").write_bytes(text.replace("\n", newline).encode(encoding))
    return root
