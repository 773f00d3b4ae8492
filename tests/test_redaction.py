"""Redaction of addresses, held to random secrets in every position of every kind of address."""

import json
import logging
import re
import subprocess
import sys
from urllib.parse import quote

import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from reid_edge.errors import SettingsError
from reid_edge.logs import set_up_logs
from reid_edge.redaction import (
    hidden,
    is_secret_name,
    redacted,
    remember,
    scrubbed,
    without_passwords,
    without_userinfo,
)

#: Anything that can be typed: letters, marks, digits, punctuation, signs, blanks.
secrets = (
    st.text(st.characters(exclude_categories=("C",)), min_size=3, max_size=24)
    .map(str.strip)
    .filter(lambda text: len(text) >= 3)
)
keys = st.sampled_from(
    [
        *("password", "PASSWORD", "passwd", "psw", "pwd", "pass", "p", "pin", "pw", "token", "secret", "auth", "key"),
        *("sig", "user", "usr", "api_key", "X-Amz-Signature", "sslpassword", "authorization", "p%61ssword", "loginpas"),
    ]
)


def leaked(secret: str, shown: str, public: str) -> list[str]:
    """Return the parts of three characters that are shown, though they are in no public part."""
    parts = {secret[start : start + 3] for start in range(len(secret) - 2)}
    return [part for part in sorted(parts) if part in shown and part not in public]


STREAMS = [
    "rtsp://operator:{}@cam7.example:554/live/1?channel=2",
    "rtsp://operator:{}@cam7.example",
    "rtsp://{}@cam7.example/live",
    "RTSPS://:{}@[2001:db8::7]:322/",
    "rtsp:/operator:{}@cam7.example/1",
    "operator:{}@cam7.example/1",
    "http://cam7.example/video?channel=1&{key}={}&subtype=0",
    "http://cam7.example:8080/video?{key}={}",
    "http://cam7.example/video;{key}={}?channel=1",
    "http://cam7.example/video#{key}={}",
    "rtsp://cam7.example/channel=1_{key}={}_stream=0.sdp",
    "rtsp://operator:x@cam7.example/video?{key}={}",
    "rtsp://operator:{}@cam7.example/video?{key}=x",
    "https://cam7.example/a.m3u8|User-Agent=VLC&Authorization=Bearer {}",
    "https://cam7.example/a?{key}%3D{}",
]


@given(st.sampled_from(STREAMS), keys, secrets)
@settings(max_examples=300, deadline=None)
def test_no_part_of_a_secret_of_a_stream_is_shown(template, key, secret):
    for typed in (secret, quote(secret, safe="")):
        uri = template.replace("{key}", key).replace("{}", typed)
        public = template.replace("{key}", key).replace("{}", "") + "***"
        for show in (redacted, without_userinfo):
            if show is without_userinfo and "://" not in uri:
                continue
            shown = show(uri)
            assert not leaked(secret, shown, public), shown
            assert not leaked(typed, shown, public), shown
            assert show(shown) == shown, "what was redacted once stays"


PIPELINES = [
    ('gst:rtspsrc location="rtsp://operator:{}@cam7.example/1" latency=200 ! decodebin ! appsink', True),
    ("rtspsrc location=rtsp://operator:{}@cam7.example/1 protocols=tcp ! decodebin ! appsink", False),
    ('gst:rtspsrc location="rtsp://cam7.example/1" user-id=operator user-pw="{}" ! appsink', True),
    ("gst:rtspsrc location=rtsp://cam7.example/1 user-id=operator user-pw={} ! appsink", False),
    ("gst:souphttpsrc location=http://cam7.example/1 extra-headers=h,Authorization=Bearer\\ {} ! appsink", False),
    ('gst:souphttpsrc location=http://cam7.example/1 extra-headers="h,Authorization=(string)\\"Basic {}\\"" ! x', True),
    ('gst:souphttpsrc location=http://cam7.example/1 cookies="{}" ! appsink', True),
    ('gst:srtsrc uri="srt://cam7.example:1?passphrase={}&mode=caller" pbkeylen=16 ! tsdemux ! appsink', True),
    ("gst:custom access={} name=src ! appsink", False),
]


@given(st.sampled_from(PIPELINES), secrets)
@settings(max_examples=300, deadline=None)
def test_no_part_of_a_secret_of_a_pipeline_is_shown(template, secret):
    text, quoted = template
    forms = [re.sub(r'(["\\])', r"\\\1", secret)] if quoted else [re.sub(r"([\s\"'\\!])", r"\\\1", secret)]
    if "!" not in secret and '"' not in secret and "\\" not in secret:
        forms.append(secret)  # as people type it, with blanks
    for typed in forms:
        if not quoted and typed == secret:
            # An unquoted blank ends the value; the rest may be a property of its own to anybody but its author.
            assume(not re.search(r"\s[a-z][\w:.-]*=|\s-?\d", typed))
        shown = redacted(text.replace("{}", typed))
        assert not leaked(secret, shown, text.replace("{}", "") + "***"), shown


GALLERIES = [
    "postgresql://operator:{}@db.example:5432/people?sslmode=verify-full",
    "postgresql://operator:{}@db.example,db2.example:1/people",
    "postgresql://:{}@db.example/people",
    "postgresql://operator:{}@/people?host=/run/postgresql",
    "postgresql://db.example/people?user=operator&password={}&sslmode=require",
    "postgresql://operator@db.example:5432/people?password={}",
    "postgresql://db.example/people?sslmode=verify-full&sslpassword={}",
    "http://operator:{}@milvus.example:19530/people",
    "https://milvus.example:19530?token={}",
    "host=db.example password='{}' dbname=people",
    "dbname=people password={} host=db.example",
    "password={}",
]


@given(st.sampled_from(GALLERIES), secrets)
@settings(max_examples=300, deadline=None)
def test_no_part_of_a_secret_of_a_gallery_is_shown(template, secret):
    for typed in (secret, quote(secret, safe="")):
        if "='{}'" in template:
            typed = re.sub(r"(['\\])", r"\\\1", typed)
        uri, public = template.replace("{}", typed), template.replace("{}", "") + "***"
        shown = without_passwords(uri)
        assert not leaked(secret, shown, public), shown
        assert not leaked(typed, shown, public), shown


@given(st.sampled_from(GALLERIES[:4]), secrets)
@settings(max_examples=200, deadline=None)
def test_what_the_driver_says_of_an_address_holds_no_part_of_its_secret(template, secret):
    conninfo = pytest.importorskip("psycopg.conninfo")
    import psycopg

    for typed in (secret, quote(secret, safe="")):
        uri = template.replace("{}", typed)
        try:
            conninfo.conninfo_to_dict(uri)
        except UnicodeError:
            continue  # it repeats nothing, and the store makes an error of it
        except psycopg.Error as error:
            text = hidden(str(error), uri)
            public = template.replace("{}", "") + "***" + str(error).replace(uri, "").split('"')[0]
            words = " invalid integer value for connection option unexpected character in position URI percent-encoded"
            words += " missing and invalid query parameter host port failed to match closing IPv6 separator token"
            words += " expected end of string forbidden value key="
            assert not leaked(secret, text, public + words), text


def test_an_address_that_does_not_decode_is_a_settings_error_without_its_secret():
    pytest.importorskip("psycopg")
    from reid_edge.gallery.store.postgresql_connection import verified

    with pytest.raises(SettingsError, match="UTF-8") as caught:
        verified("postgresql://ann:S3CRET%80@db.example/people")
    assert "S3CRET" not in str(caught.value)


@pytest.mark.parametrize("secret", ["://", "a://b:c", "p=q", "x host=y", "0=0", "12 34", "&p=@"])
def test_secrets_that_look_like_parts_of_an_address(secret):
    """Found by long runs of the above."""
    for template in [each for each in GALLERIES if "='{}'" in each or "://" in each]:
        public = template.replace("{}", "") + "***"
        assert not leaked(secret, without_passwords(template.replace("{}", secret)), public)
    pipeline = "rtspsrc location=rtsp://operator:{}@cam7.example/1 ! appsink"
    if " host=" not in secret:  # of an unquoted blank, what follows is a property to anybody but its author
        assert not leaked(secret, redacted(pipeline.replace("{}", secret)), pipeline.replace("{}", "") + "***")


def test_an_address_without_secrets_is_shown_whole():
    for uri in (
        "rtsp://cam:554/live/1?channel=2&subtype=0",
        "http://cam/axis-cgi/mjpg/video.cgi?resolution=640x480&fps=5",
        "/data/videos/gate 1.mp4",
        "videos/2026-01-01T10:00:00.avi",
        "C:/videos/x@home.avi"[3:],
        "/dev/video0",
        "gst:v4l2src device=/dev/video0 ! video/x-raw,width=640,framerate=30/1 ! videoconvert ! "
        "video/x-raw,format=BGR ! appsink drop=true max-buffers=1",
        'gst:rtspsrc location="rtsp://cam/1" latency=200 protocols=tcp ! rtph264depay ! avdec_h264 ! appsink',
    ):
        assert redacted(uri) == uri
    for uri in (
        "postgresql://ann@db.example:5433/people?sslmode=verify-full&sslrootcert=/etc/ca.crt&others_may_read=yes",
        "postgresql:///people?host=/run/postgresql",
        "host=db.example dbname=people user=ann",
        "http://milvus:19530/people",
        "people/gallery=1.db",
    ):
        assert without_passwords(uri) == uri


@pytest.mark.parametrize("name", ["Password", "user-pw", "accessToken", "X-Api-Key", "rtsp_pass", "sessionid", "PIN"])
def test_names_of_secrets(name):
    assert is_secret_name(name)


@pytest.mark.parametrize("name", ["channel", "subtype", "stream", "latency", "width", "port", "passfile", "pinned"])
def test_names_of_what_is_no_secret(name):
    assert not is_secret_name(name)


@pytest.fixture
def remembering(monkeypatch):
    monkeypatch.setattr("reid_edge.redaction._remembered", set())
    return remember


PASSWORD = "Sup3r S€cr/t@1"


@pytest.mark.parametrize(
    "address",
    [
        f"rtsp://operator:{PASSWORD}@cam7.example/1",
        f"rtsp://operator:{quote(PASSWORD, safe='')}@cam7.example/1",
        f"http://cam7.example/video?password={PASSWORD}",
        f'gst:rtspsrc location=rtsp://cam7.example/1 user-pw="{PASSWORD}" ! appsink',
        f"postgresql://operator:{PASSWORD}@db.example/people",
        f"host=db.example password='{PASSWORD}'",
    ],
)
def test_a_remembered_secret_is_in_no_log_line_no_traceback_and_none_of_its_causes(address, remembering, capsys):
    remembering(address)
    before = logging.getLogger().handlers[:], logging.getLogger().level
    try:
        for form in ("text", "json"):
            set_up_logs(form, "info")
            log = logging.getLogger("any.library")
            log.error("cannot open %s: %s", address, PASSWORD)
            try:
                try:
                    raise OSError(f"no route: {address}")
                except OSError as error:
                    raise RuntimeError(f"with {quote(PASSWORD, safe='')}") from error
            except RuntimeError:
                log.exception("failed with %r", PASSWORD)
    finally:
        logging.getLogger().handlers[:] = before[0]
        logging.getLogger().setLevel(before[1])
    shown = capsys.readouterr().err
    assert shown.count("OSError: no route") == 2
    assert "RuntimeError" in shown
    for secret in (PASSWORD, quote(PASSWORD, safe=""), repr(PASSWORD)[1:-1], "Sup3r", "S€cr/t"):
        assert secret not in shown
        assert json.dumps(secret)[1:-1] not in shown


def test_words_beside_a_secret_are_still_logged(remembering):
    remembering("http://cam7.example/video?user=operator&password=Sup3rSecr3t&channel=main&subtype=extra")
    remembering('gst:rtspsrc location="rtsp://cam7.example/1" user-id=operator user-pw="An0ther" ! decodebin ! appsink')
    remembering("dbname=people password=Th1rdOne host=db.example")
    line = "operator: password wrong, channel=main subtype=extra decodebin appsink host=db.example people"
    assert scrubbed(line) == line
    assert scrubbed("Sup3rSecr3t An0ther Th1rdOne") == "*** *** ***"


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("opening rtsp://ann:pw1234@cam/1 failed", "opening rtsp://***@cam/1 failed"),
        ("Authorization: Bearer abc.def-123", "Authorization: Bearer ***"),
        ("sent 'Authorization': 'Basic YW5uOnB3'", "sent 'Authorization': 'Basic ***'"),
        ("headers,Authorization=Bearer\\ abcdef", "headers,Authorization=Bearer\\ ***"),
        ("http://cam/1: 401, 3 of 7 tried", "http://cam/1: 401, 3 of 7 tried"),
    ],
)
def test_what_is_known_by_its_form_is_scrubbed(text, shown, remembering):
    assert scrubbed(text) == shown


def test_errors_that_nobody_catches_are_shown_without_secrets():
    code = (
        "import threading\n"
        "from reid_edge.logs import scrub_tracebacks\n"
        "from reid_edge.redaction import remember\n"
        "scrub_tracebacks(); uri = 'rtsp://ann:Sup3r Secr3t@cam'; remember(uri)\n"
        "def fail(): raise ValueError(uri)\n"
        "thread = threading.Thread(target=fail); thread.start(); thread.join(); fail()\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60)
    assert done.returncode == 1
    assert done.stderr.count("ValueError") == 2
    assert "Secr3t" not in done.stderr.replace(code, "")
