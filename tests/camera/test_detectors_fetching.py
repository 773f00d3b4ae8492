"""Detectors fetched from an archive on a real socket, through a real proxy, or from a folder; and what goes wrong."""

import hashlib
import subprocess
from pathlib import Path

import pytest

from reid_edge.camera.detectors import catalogue as catalogue_module
from reid_edge.camera.detectors.catalogue import CatalogueDetector, CatalogueFile, catalogue, located
from reid_edge.camera.detectors.download import download, proxy_for
from reid_edge.camera.detectors.fetching import RECORD, fetch
from reid_edge.errors import DownloadError, OutputError
from tests.broker import HOSTS, make_certs
from tests.camera.archive import Archive, Proxy, content, endless, redirect
from tests.camera.test_agent import fill, small_disk  # noqa: F401 - a fixture
from tests.commands import failure, run_command, success

XML, WEIGHTS = b"<net/>" * 1000, bytes(range(256)) * 200
SECRET = "hunter2secret"


@pytest.fixture(autouse=True)
def no_proxy_of_ours(monkeypatch):
    for name in ("http_proxy", "https_proxy", "no_proxy", "all_proxy"):
        monkeypatch.delenv(name, raising=False)
        monkeypatch.delenv(name.upper(), raising=False)


@pytest.fixture
def archive():
    server = Archive()
    yield server
    server.close()


def entry(url: str) -> CatalogueDetector:
    """A detector of our own, as the catalogue describes one, at an address."""
    files = tuple(
        CatalogueFile(
            path=f"FP16/tiny.{kind}",
            size=len(body),
            sha384=hashlib.sha384(body).hexdigest(),
            url=f"{url}/archive/tiny/FP16/tiny.{kind}",
        )
        for kind, body in (("xml", XML), ("bin", WEIGHTS))
    )
    like = catalogue()["person-detection-retail-0013"]
    return CatalogueDetector(
        name="tiny",
        about="tests",
        licence="Apache-2.0",
        licence_url="https://licence.example",
        page="https://page.example",
        input_hw=(8, 8),
        gflops=0.1,
        output=like.output,
        person=like.person,
        confidence=like.confidence,
        start=like.start,
        files={"fp16": files, "fp32": files, "int8": files},
    )


@pytest.fixture
def tiny(archive):
    archive.answers = {
        "/archive/tiny/FP16/tiny.xml": content(XML),
        "/archive/tiny/FP16/tiny.bin": content(WEIGHTS),
    }
    return entry(archive.url)


def nothing_is_in(folder: Path) -> bool:
    return not [path for path in folder.rglob("*") if path.is_file()]


def test_both_files_arrive_with_their_licence_and_source_and_are_fetched_once(tiny, archive, tmp_path):
    path = fetch(tiny, "fp16", folder=tmp_path)
    assert path == tmp_path / "tiny/FP16/tiny.xml"
    assert (path.read_bytes(), path.with_suffix(".bin").read_bytes()) == (XML, WEIGHTS)
    record = path.with_name(RECORD).read_text()
    for fact in ("Apache-2.0, https://licence.example", tiny.files["fp16"][0].url, tiny.files["fp16"][1].sha384):
        assert fact in record
    assert "Apache License" in (tmp_path / "tiny/LICENSE").read_text()
    assert len(archive.requests) == 2
    fetch(tiny, "fp16", folder=tmp_path)
    assert len(archive.requests) == 2


def test_only_what_is_missing_is_fetched_after_an_interruption(tiny, archive, tmp_path):
    archive.answers["/archive/tiny/FP16/tiny.xml"] = content(XML[:100], length=len(XML))  # then the connection closes
    with pytest.raises(DownloadError, match=r"100 bytes came of 6,000; run the command again"):
        fetch(tiny, "fp16", folder=tmp_path)
    # A detector is there once its '.xml' is.
    assert [path.name for path in tmp_path.rglob("*") if path.is_file()] == ["tiny.bin"]
    archive.answers["/archive/tiny/FP16/tiny.xml"] = content(XML)
    fetch(tiny, "fp16", folder=tmp_path)
    assert [path for path, _ in archive.requests].count("/archive/tiny/FP16/tiny.bin") == 1


@pytest.mark.parametrize(
    ("answer", "message"),
    [
        (content(bytes(len(WEIGHTS))), r"is not the file of the catalogue: expected 51,200 bytes with SHA-384"),
        (content(WEIGHTS[:-1]), r"51,199 bytes came of 51,200"),
        (content(WEIGHTS + b"x"), r"51,201 bytes came of 51,200"),
        (content(b""), r"0 bytes came of 51,200"),
        (endless, r"51,201 bytes came of 51,200"),
        (None, r"answered 404 Not Found: is the address right\?"),
        (redirect("ftp://127.0.0.1/x"), r"cannot fetch|ftp"),
        (redirect("/archive/tiny/FP16/tiny.bin"), r"answered 302"),
        (lambda handler: handler.send_error(503), r"answered 503 .*try again later"),
        (lambda handler: handler.wfile.write(b"rubbish\r\n\r\n"), r"cannot fetch .*tiny\.bin"),
        (lambda handler: None, r"cannot fetch .*tiny\.bin"),
    ],
    ids=["hash", "short", "long", "empty", "endless", "404", "ftp", "circle", "503", "no-http", "hangs-up"],
)
def test_whatever_else_comes_is_refused_and_leaves_nothing(tiny, archive, tmp_path, answer, message):
    archive.answers["/archive/tiny/FP16/tiny.bin"] = answer
    if answer is None:
        del archive.answers["/archive/tiny/FP16/tiny.bin"]
    with pytest.raises(DownloadError, match=message):
        fetch(tiny, "fp16", folder=tmp_path)
    assert nothing_is_in(tmp_path)


def test_redirects_are_followed_without_the_password_of_a_mirror(tiny, archive, tmp_path):
    other = Archive()
    other.answers["/elsewhere"] = content(WEIGHTS)
    archive.answers |= {
        "/mirror/tiny/FP16/tiny.bin": redirect(f"{other.url}/elsewhere"),
        "/mirror/tiny/FP16/tiny.xml": content(XML),
    }
    origin = archive.url.replace("//", f"//somebody:{SECRET}@") + "/mirror/"
    path = fetch(tiny, "fp16", folder=tmp_path, origin=origin)
    other.close()
    assert all("authorization" in headers for _, headers in archive.requests)
    assert "authorization" not in other.requests[0][1]
    assert SECRET not in path.with_name(RECORD).read_text() and "/mirror" in path.with_name(RECORD).read_text()


def test_an_archive_that_answers_too_slowly_is_given_up(tiny, archive, monkeypatch):
    def trickle(handler):
        handler.send_response(200)
        handler.end_headers()
        for _ in range(50):
            handler.wfile.write(bytes(1))
            handler.wfile.flush()

    monkeypatch.setattr("reid_edge.camera.detectors.download._BEGIN_S", 0.0)
    archive.answers["/slow"] = trickle
    with pytest.raises(DownloadError, match=r"of 1,000,000 bytes came in"):
        monkeypatch.setattr("reid_edge.camera.detectors.download._SLOWEST", 10**12)
        download(f"{archive.url}/slow", 1_000_000)


@pytest.fixture(scope="module")
def certs(tmp_path_factory):
    folder = tmp_path_factory.mktemp("certs")
    for arguments in (["ca"], ["gallery", *HOSTS]):
        assert make_certs(folder, *arguments).returncode == 0
    return folder


@pytest.fixture
def https(certs):
    server = Archive((str(certs / "gallery.crt"), str(certs / "gallery.key")))
    server.answers["/file"] = content(WEIGHTS)
    yield server
    server.close()


def test_https_is_checked_against_the_authorities_of_the_machine_or_of_ssl_cert_file(https, certs, monkeypatch):
    with pytest.raises(DownloadError, match=r"CERTIFICATE_VERIFY_FAILED.*set SSL_CERT_FILE to its CA certificate"):
        download(f"{https.url}/file", len(WEIGHTS))
    monkeypatch.setenv("SSL_CERT_FILE", str(certs / "ca.crt"))
    assert download(f"{https.url}/file", len(WEIGHTS)) == WEIGHTS


@pytest.mark.parametrize("user", ["", f"somebody:{SECRET}"])
def test_https_goes_through_the_tunnel_of_the_proxy(https, certs, monkeypatch, user):
    proxy = Proxy(user)
    monkeypatch.setenv("SSL_CERT_FILE", str(certs / "ca.crt"))
    monkeypatch.setenv("HTTPS_PROXY", f"http://{user}{'@' if user else ''}127.0.0.1:{proxy.port}")
    assert download(f"{https.url}/file", len(WEIGHTS)) == WEIGHTS
    assert proxy.asked == [https.url.removeprefix("https://")]
    assert SECRET not in proxy_for(https.url) and str(proxy.port) in proxy_for(https.url)
    monkeypatch.setenv("NO_PROXY", "localhost")
    assert download(f"{https.url}/file", len(WEIGHTS)) == WEIGHTS
    assert len(proxy.asked) == 1 and proxy_for(https.url) == ""
    proxy.close()


@pytest.mark.parametrize("scheme", ["http", "https"])
@pytest.mark.parametrize(
    "given",
    [
        "",
        f"somebody:{SECRET}x@",
        "somebody:p@ss#w/rd@",
        f"somebody:{SECRET}:8080@",
        "u:pw1@",
        f"somebody:{SECRET}/x@",
        f"{SECRET}@",
    ],
)
def test_no_password_of_a_proxy_is_in_a_message(https, archive, monkeypatch, scheme, given):
    proxy = Proxy("other:user")
    monkeypatch.setenv(f"{scheme.upper()}_PROXY", f"http://{given}127.0.0.1:{proxy.port}")
    url = https.url if scheme == "https" else archive.url
    with pytest.raises(DownloadError) as error:
        download(f"{url}/file", len(WEIGHTS))
    proxy.close()
    message = f"{error.value}"
    for secret in (SECRET, "p@ss", "w/rd", "pw1"):
        assert secret not in message
    assert error.value.__cause__ is None and error.value.__suppress_context__
    if "#" not in given and "/" not in given:
        assert "407" in message and "%40 for @" in message


@pytest.mark.parametrize(
    "proxy",
    [f"http://somebody:{SECRET}", f"somebody:{SECRET}@127.0.0.1:1", f"http://u:{SECRET}@ho st:1", f"u:{SECRET}"],
)
def test_no_password_of_a_proxy_that_is_written_wrongly_is_in_a_message(archive, monkeypatch, proxy):
    monkeypatch.setenv("HTTP_PROXY", proxy)
    with pytest.raises(DownloadError, match="through the proxy") as error:
        download(f"{archive.url}/file", 1)
    assert SECRET not in str(error.value) + proxy_for(archive.url)


def test_a_proxy_that_is_away_or_of_another_kind_is_named(archive, monkeypatch):
    monkeypatch.setenv("HTTP_PROXY", "http://127.0.0.1:1")
    with pytest.raises(DownloadError, match=r"through the proxy http://127\.0\.0\.1:1: .*refused.*--from FOLDER"):
        download(f"{archive.url}/file", 1)
    monkeypatch.setenv("HTTP_PROXY", f"socks5://somebody:{SECRET}@127.0.0.1:1")
    with pytest.raises(DownloadError, match=r"socks5://\*\*\*@127\.0\.0\.1:1 is not an HTTP proxy"):
        download(f"{archive.url}/file", 1)


def test_an_address_that_is_none_is_refused(tmp_path):
    for url in ("ftp://host/x", "https:///x", "file:///etc/passwd"):
        with pytest.raises(DownloadError, match=r"expected https://HOST/FOLDER"):
            download(url, 1)


@pytest.mark.parametrize("layout", ["tiny/FP16/tiny", "intel/tiny/FP16/tiny", "FP16/tiny", "tiny"])
def test_a_folder_brought_on_a_stick_will_do_and_is_checked_alike(tiny, archive, tmp_path, layout):
    stick, here = tmp_path / "stick", tmp_path / "here"
    for kind, body in (("xml", XML), ("bin", WEIGHTS)):
        file = stick / f"{layout}.{kind}"
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_bytes(body)
    assert fetch(tiny, "fp16", folder=here, origin=str(stick)).read_bytes() == XML
    assert archive.requests == []
    (stick / f"{layout}.bin").write_bytes(bytes(len(WEIGHTS)))
    with pytest.raises(DownloadError, match="is not the file of the catalogue"):
        fetch(tiny, "fp16", folder=tmp_path / "other", origin=str(stick))
    (stick / f"{layout}.bin").write_bytes(WEIGHTS + b"x")
    with pytest.raises(DownloadError, match=r"is not the file of the catalogue.* got more than 51,200 bytes"):
        fetch(tiny, "fp16", folder=tmp_path / "longer", origin=str(stick))
    (stick / f"{layout}.bin").unlink()
    with pytest.raises(DownloadError, match=r"has no FP16/tiny\.bin of tiny.*--to FOLDER"):
        fetch(tiny, "fp16", folder=tmp_path / "third", origin=str(stick))
    assert nothing_is_in(tmp_path / "other") and nothing_is_in(tmp_path / "third")


def test_a_stick_that_is_not_there_or_has_another_precision_is_told_as_such(tiny, tmp_path):
    with pytest.raises(DownloadError, match=r"there is no folder .*stick\. Is the stick or share mounted"):
        fetch(tiny, "fp16", folder=tmp_path / "here", origin=str(tmp_path / "stick"))
    detector = catalogue()["person-detection-0202"]
    for file in detector.files["int8"]:
        place = tmp_path / "stick" / detector.name / file.path
        place.parent.mkdir(parents=True, exist_ok=True)
        place.write_bytes(b"")
    with pytest.raises(DownloadError, match=r"has no FP16/person-detection-0202\.bin .*It has int8: --precision int8"):
        fetch(detector, "fp16", folder=tmp_path / "here", origin=str(tmp_path / "stick"))


def test_another_file_of_the_same_name_is_kept_unless_forced(tiny, tmp_path):
    mine = tmp_path / "tiny/FP16/tiny.bin"
    mine.parent.mkdir(parents=True)
    mine.write_bytes(b"mine" * 100_000)
    with pytest.raises(OutputError, match=r"tiny\.bin exists and is not the catalogue's file; use --force"):
        fetch(tiny, "fp16", folder=tmp_path)
    assert mine.read_bytes()[:4] == b"mine" and not mine.with_suffix(".xml").exists()
    fetch(tiny, "fp16", folder=tmp_path, force=True)
    assert mine.read_bytes() == WEIGHTS


def test_a_disk_that_takes_nothing_is_told_and_nothing_is_left(tiny, archive, small_disk):  # noqa: F811
    fill(small_disk / "ballast")
    with pytest.raises(OutputError, match=r"No space left"):
        fetch(tiny, "fp16", folder=small_disk)
    assert [path.name for path in small_disk.rglob("*") if path.is_file()] == ["ballast"]
    (small_disk / "ballast").unlink()
    subprocess.run(["mount", "-o", "remount,ro", small_disk], check=True)
    archive.requests.clear()
    with pytest.raises(OutputError, match=r"Read-only|not a writable folder"):
        fetch(tiny, "fp16", folder=small_disk)
    assert archive.requests == []  # told before anything was fetched


# --- the command


@pytest.fixture
def shown(tiny, tmp_path, monkeypatch):
    """The command, with a catalogue of one and a home of its own."""
    monkeypatch.setattr(catalogue_module, "catalogue", lambda: {"tiny": tiny})
    monkeypatch.setenv("XDG_DATA_HOME", str(tmp_path / "home"))
    monkeypatch.setenv("XDG_DATA_DIRS", str(tmp_path / "machine"))


def test_get_shows_licence_size_and_addresses_and_takes_nothing_without_consent(shown, tiny, archive, tmp_path):
    message = failure("detector", "get", "tiny")
    for fact in ("Apache-2.0", "https://licence.example", "0.1 MB", tiny.files["fp16"][1].url, "add --yes"):
        assert fact in message
    assert archive.requests == [] and nothing_is_in(tmp_path)


@pytest.mark.parametrize("word", ["--yes", "--accept-licence"])
def test_get_then_list_shows_what_is_here(shown, tiny, tmp_path, word):
    assert "reid-edge detector get NAME" in success("detector", "list")
    printed = success("detector", "get", "tiny", word)
    assert "--detector tiny" in printed
    assert located(tiny) == ("fp16", tmp_path / "home/reid-edge/detectors/tiny/FP16/tiny.xml")
    assert "fp16" in success("detector", "list").splitlines()[-4]


@pytest.mark.parametrize(("answer", "code"), [("n", 1), ("y", 0)])
def test_a_person_is_asked(shown, tmp_path, monkeypatch, answer, code):
    import io
    import sys

    terminal = io.StringIO(f"{answer}\n")
    terminal.isatty = lambda: True
    monkeypatch.setattr(sys, "stdin", terminal)
    assert run_command("detector", "get", "tiny").returncode == code
    assert nothing_is_in(tmp_path) == bool(code)


def test_a_stick_for_a_machine_without_a_network(shown, archive, tmp_path):
    stick = tmp_path / "stick"
    assert f"--detector {stick}/tiny/FP16/tiny.xml" in success("detector", "get", "tiny", "--yes", "--to", stick)
    archive.close()
    success("detector", "get", "tiny", "--yes", "--from", stick)
    assert (tmp_path / "home/reid-edge/detectors/tiny/FP16/tiny.xml").read_bytes() == XML
