import base64
import sys
from dataclasses import replace
from html.parser import HTMLParser

import cv2
import numpy as np
import pytest

from reid_edge.cli.explain import explain as command
from reid_edge.errors import MissingExtraError, OutputError, UsageError
from reid_edge.osnet.architecture import NetworkVariant
from reid_edge.osnet.checkpoint import save_checkpoint
from reid_edge.training.explain.activations import overlay
from reid_edge.training.explain.explanation import PRIVACY, ExplainOptions, explain
from reid_edge.training.explain.html_page import difference_picture, page
from reid_edge.training.explain.png_sheet import GAP, HEIGHT, TEXT_WIDTH, TITLE_HEIGHT, sheet
from tests.training.test_explain import small_checkpoint, write_images

EVIL = "a<img src=x onerror=y>&.png"


class Reader(HTMLParser):
    def __init__(self, text):
        super().__init__()
        self.tags, self.addresses, self.names, self.text = [], [], [], ""
        self.feed(text)
        self.close()

    def handle_starttag(self, tag, attrs):
        values = dict(attrs)
        self.tags.append(tag)
        self.addresses += [value for name, value in attrs if name in ("src", "href", "action", "srcset")]
        if tag == "img":
            self.names.append(values["alt"])

    def handle_data(self, data):
        self.text += data


@pytest.fixture(scope="module")
def found(tmp_path_factory):
    folder = tmp_path_factory.mktemp("crops")
    paths = write_images(folder, 11)
    paths[0] = paths[0].rename(folder / EVIL)
    return explain(small_checkpoint(), paths, ExplainOptions(clusters=3, nearest=4, maps=5), name="c<b>.safetensors")


def decoded(address):
    return cv2.imdecode(np.frombuffer(base64.b64decode(address.partition(",")[2]), np.uint8), cv2.IMREAD_UNCHANGED)


def test_the_page_holds_all_it_shows_and_can_ask_for_nothing(found):
    text = page(found)
    reader = Reader(text)
    nearest = [index for cluster in found.clustering.clusters for index in cluster.nearest]
    assert len(reader.addresses) == 3 + len(nearest) + 2 * 5
    assert all(address.startswith("data:image/") for address in reader.addresses)
    assert "default-src 'none'; style-src 'unsafe-inline'; img-src data:" in text
    assert not {"script", "link", "iframe", "object"} & set(reader.tags)
    assert reader.names.count(EVIL) == nearest.count(0) + 1
    assert "OSNet ×0.25 from inside" in reader.text
    assert "c<b>.safetensors" in reader.text
    assert PRIVACY in reader.text
    assert "stream 4, 9×9" in reader.text


def test_pictures_are_those_of_the_images_named(found):
    reader = Reader(page(found))
    by_name = {path.name: path for path in found.paths}
    plain = [(name, address) for name, address in zip(reader.names, reader.addresses, strict=True) if name in by_name]
    assert len(plain) > 5
    for name, address in plain:
        shown = decoded(address)
        height = shown.shape[0]
        expected = cv2.resize(cv2.imread(str(by_name[name])), (height // 2, height), interpolation=cv2.INTER_LINEAR)
        assert shown.shape == expected.shape
        assert np.abs(shown.astype(int) - expected).mean() < 12  # JPEG of noise


def test_the_page_says_what_each_cluster_weighs(found):
    text = Reader(page(found)).text
    for cluster in found.clustering.clusters:
        assert f"{cluster.size} image" in text
        for row in cluster.centre:
            assert f"{sum(row) / len(row):.4f}" in text


def test_one_cluster_and_no_maps_make_a_page(tmp_path):
    paths = write_images(tmp_path, 2)
    text = Reader(page(explain(small_checkpoint(), paths, ExplainOptions(clusters=1, maps=0), name="c"))).text
    assert "Cluster 1: 2 images" in text
    assert "Where the network is active" not in text


def test_a_channel_is_orange_above_the_mean_blue_below_and_nothing_at_it():
    shown = difference_picture(np.array([[0.2, -0.1, 0.0]]), 0.2)
    assert shown.shape == (1, 3, 4)
    opacities = shown[0, :, 3].tolist()
    assert opacities[0] == 255
    assert opacities[1] in (127, 128)
    assert opacities[2] == 0
    assert shown[0, 0, 2] > 200 > shown[0, 0, 0]  # red over blue
    assert shown[0, 1, 0] > 200 > shown[0, 1, 2]
    assert difference_picture(np.zeros((2, 2)), 0.0)[..., 3].max() == 0


def test_an_overlay_is_red_where_the_map_is_highest_and_blue_where_it_is_lowest():
    grey = np.full((64, 32, 3), 128, np.uint8)
    activations = np.full((4, 2), 0.1, np.float32)
    activations[3, 1] = 0.9
    shown = overlay(grey, activations).astype(int)
    assert shown.shape == grey.shape
    blue, green, red = shown[60, 28]  # Turbo's end, (122, 4, 3) in RGB, mixed half with grey
    assert (abs(red - 125), abs(green - 66), abs(blue - 66)) < (3, 3, 3)
    blue, _, red = shown[5, 5]  # Turbo's start, (48, 18, 59)
    assert blue > red
    assert np.ptp(overlay(grey, np.full((4, 2), 0.3, np.float32)).reshape(-1, 3), axis=0).max() == 0


def test_the_sheet_shows_pictures_pixel_by_pixel(found):
    shown = cv2.imdecode(np.frombuffer(sheet(found), np.uint8), cv2.IMREAD_COLOR)
    row_height = HEIGHT + 4 * GAP
    assert shown.shape[0] == TITLE_HEIGHT + row_height * (3 + 1)
    for row, cluster in enumerate(found.clustering.clusters):
        for column, index in enumerate(cluster.nearest):
            expected = cv2.resize(cv2.imread(str(found.paths[index])), (64, HEIGHT), interpolation=cv2.INTER_LINEAR)
            top, left = TITLE_HEIGHT + row * row_height, TEXT_WIDTH + column * (64 + GAP)
            cut = shown[top : top + HEIGHT, left : left + 64].astype(int)
            assert np.abs(cut - expected).mean() < 3  # the renderer may be a pixel off at an edge


def test_a_sheet_of_maps_alone(tmp_path):
    checkpoint = small_checkpoint(NetworkVariant(fusion="addition"))
    options = ExplainOptions(clusters=0, maps=20)
    data = sheet(explain(checkpoint, write_images(tmp_path, 20), options, name="c"))
    height = cv2.imdecode(np.frombuffer(data, np.uint8), cv2.IMREAD_COLOR).shape[0]
    assert height == TITLE_HEIGHT + 3 * (HEIGHT + 4 * GAP)  # 8 pairs a row


def test_a_sheet_that_no_picture_can_hold_is_refused(found):
    many = replace(found, shown=(0,) * 4000, maps=np.repeat(found.maps[:1], 4000, axis=0))
    with pytest.raises(OutputError, match=r"too large.*\.html"):
        sheet(many)


@pytest.fixture
def folder(tmp_path):
    (tmp_path / "crops").mkdir()
    write_images(tmp_path / "crops", 5)
    save_checkpoint(small_checkpoint(), tmp_path / "c.safetensors")
    return tmp_path


def call(folder, name, *, force=False, clusters=2):
    command(
        folder / "c.safetensors",
        [folder / "crops"],
        clusters=clusters,
        nearest=3,
        maps=2,
        seed=1,
        out=folder / "made" / name,
        force=force,
    )


def test_the_command_writes_a_page_or_a_sheet_and_keeps_what_is_there(folder, capsys):
    call(folder, "e.html")
    call(folder, "e.png")
    assert PRIVACY in capsys.readouterr().out
    assert (folder / "made" / "e.html").read_text(encoding="utf-8").startswith("<!doctype html>")
    assert (folder / "made" / "e.png").read_bytes().startswith(b"\x89PNG")
    (folder / "made" / "e.html").write_text("precious")
    with pytest.raises(OutputError, match="--force"):
        call(folder, "e.html")
    assert (folder / "made" / "e.html").read_text() == "precious"
    call(folder, "e.html", force=True)
    assert sorted(path.name for path in (folder / "made").iterdir()) == ["e.html", "e.png"]


def test_an_output_that_cannot_be_is_refused_before_images_are_read(folder):
    for path in (folder / "crops").iterdir():
        path.write_bytes(b"no image")
    with pytest.raises(OutputError, match=r"\.html \(a page\) or \.png"):
        call(folder, "e.pdf")
    (folder / "made" / "e.html").mkdir(parents=True)
    with pytest.raises(OutputError, match="is a folder"):
        call(folder, "e.html", force=True)
    with pytest.raises(UsageError, match="6 clusters need"):
        call(folder, "f.html", clusters=6)


def test_a_place_that_cannot_be_written_is_an_error(folder):
    (folder / "made").write_text("a file")
    with pytest.raises(OutputError, match="cannot write"):
        call(folder, "e.html")


@pytest.mark.parametrize(
    ("name", "module", "package"), [("e.html", "html_page", "jinja2"), ("e.png", "png_sheet", "matplotlib")]
)
def test_a_missing_package_is_named_before_images_are_read(folder, monkeypatch, name, module, package):
    monkeypatch.delitem(sys.modules, f"reid_edge.training.explain.{module}", raising=False)
    monkeypatch.setitem(sys.modules, package, None)
    monkeypatch.setitem(sys.modules, "matplotlib.figure", None)
    for path in (folder / "crops").iterdir():
        path.write_bytes(b"no image")
    with pytest.raises(MissingExtraError, match=rf"{package}.*reid-edge\[explain\]"):
        call(folder, name)


def test_real_crops_of_a_trained_network(real_data, checkpoint):
    crops = sorted((real_data / "market1501" / "bounding_box_train").glob("*.jpg"))[::160]
    found = explain(checkpoint, crops, ExplainOptions(clusters=4, maps=6), name="shipped")
    assert sum(cluster.size for cluster in found.clustering.clusters) == len(crops) > 70
    assert found.clustering.explained > 0.5
    upright = np.sort(found.maps.reshape(6, -1), axis=1)
    assert (upright[:, -1] > 2 * upright.mean(1)).all()  # it looks at places, not everywhere
