"""Who made a bundle: signatures that openssl makes and checks too, and what is refused where a key is pinned."""

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import cv2
import numpy as np
import pytest

from reid_edge.bundle import MANIFEST, open_bundle
from reid_edge.errors import BundleCorruptError, BundleUntrustedError, MissingExtraError, SigningKeyError, UsageError
from reid_edge.runtime import Extractor
from reid_edge.signing import SIGNATURE, SigningKey, check_signature, trusted_key
from tests.commands import failure, success

needs_openssl = pytest.mark.skipif(shutil.which("openssl") is None, reason="openssl is not installed")


def openssl(*arguments):
    return subprocess.run(["openssl", *map(str, arguments)], check=True, capture_output=True)


@pytest.fixture
def key():
    return SigningKey.generate()


@pytest.fixture
def signed(bundle_copy, key):
    """The folder of a bundle that ``key`` has signed."""
    sign(bundle_copy.path, key)
    return bundle_copy.path


def sign(folder, key):
    (folder / SIGNATURE).write_bytes(key.sign((folder / MANIFEST).read_bytes()))


def test_a_signed_bundle_opens_with_the_key_in_each_form(signed, key, tmp_path):
    (tmp_path / "key.pub").write_bytes(key.public_pem())
    for given in (tmp_path / "key.pub", str(tmp_path / "key.pub"), key.public.text):
        assert open_bundle(signed, trusted_keys=[given]).signed_by == key.public.fingerprint
    assert open_bundle(signed).signed_by == ""  # nobody asked


def test_any_of_several_keys_will_do(signed, key):
    other = SigningKey.generate().public.text
    opened = open_bundle(signed, trusted_keys=[other, key.public.text])
    assert opened.signed_by == key.public.fingerprint
    assert opened.title == f"{signed} (made {opened.manifest.created}, signed by {key.public.fingerprint[:16]}…)"


def unsigned(folder):
    (folder / SIGNATURE).unlink()


def foreign(folder):
    sign(folder, SigningKey.generate())


def altered(folder):
    text = (folder / MANIFEST).read_bytes()
    (folder / MANIFEST).write_bytes(text + b" ")


def cut_short(folder):
    os.truncate(folder / SIGNATURE, 63)


def too_long(folder):
    with (folder / SIGNATURE).open("ab") as file:
        file.write(b"x")


def no_file(folder):
    (folder / SIGNATURE).unlink()
    (folder / SIGNATURE).mkdir()


@pytest.mark.parametrize("change", [unsigned, foreign, altered, cut_short, too_long, no_file])
def test_with_a_key_given_what_it_did_not_sign_is_refused_at_every_door(signed, key, change, tmp_path):
    change(signed)
    cv2.imwrite(str(tmp_path / "crop.png"), np.zeros((64, 32, 3), np.uint8))
    pinned = ["--trusted-key", key.public.text]
    with pytest.raises(BundleUntrustedError, match="reid-edge bundle sign"):
        open_bundle(signed, trusted_keys=[key.public.text])
    with pytest.raises(BundleUntrustedError):
        Extractor(signed, trusted_keys=[key.public.text])
    assert "BundleUntrustedError" in failure(
        "extract", signed, tmp_path / "crop.png", *pinned, "--out", tmp_path / "f.npy"
    )
    assert "BundleUntrustedError" in failure("verify", signed, *pinned)
    assert "BundleUntrustedError" in failure("build", signed, *pinned)
    assert "BundleUntrustedError" in failure("benchmark", signed, *pinned)
    assert "BundleUntrustedError" in failure("evaluate", signed, "--root", tmp_path, *pinned)
    by_image = ("--image", tmp_path / "crop.png", "--bundle", signed, "--purpose", "a test")
    assert "BundleUntrustedError" in failure("gallery", "search", f"sqlite:{tmp_path}/g.db", *by_image, *pinned)
    assert "BundleUntrustedError" in failure("bundle", "verify", signed, "--key", key.public.text)


def test_every_flipped_bit_of_the_signature_is_refused(signed, key):
    whole, text = (signed / SIGNATURE).read_bytes(), (signed / MANIFEST).read_bytes()
    check_signature(text, whole, [key.public])
    for bit in range(len(whole) * 8):
        flipped = bytearray(whole)
        flipped[bit // 8] ^= 1 << bit % 8
        with pytest.raises(BundleUntrustedError):
            check_signature(text, bytes(flipped), [key.public])


def test_a_signature_vouches_for_every_file(signed, key):
    opened = open_bundle(signed, trusted_keys=[key.public.text])
    for entry in opened.manifest.entries():
        path = signed / entry.path
        content = path.read_bytes()
        path.write_bytes(content[:-1] + bytes([content[-1] ^ 1]))
        with pytest.raises(BundleCorruptError):
            opened.read(entry)
        path.write_bytes(content)
    listed = {str(signed / entry.path) for entry in opened.manifest.entries()}
    found = {str(path) for path in signed.rglob("*") if path.is_file()}
    assert found - listed == {str(signed / MANIFEST), str(signed / SIGNATURE)}


def test_an_unsigned_manifest_is_not_even_parsed(signed, key):
    (signed / MANIFEST).write_bytes(b"{")
    with pytest.raises(BundleUntrustedError):
        open_bundle(signed, trusted_keys=[key.public.text])


def test_keys_for_a_bundle_that_is_open_already_are_an_error(session_bundle, key):
    with pytest.raises(UsageError, match="open_bundle"):
        Extractor(session_bundle, trusted_keys=[key.public.text])


@pytest.mark.parametrize("given", ["", "missing.pub", "MCowBQYDK2VwAyEA", ".", "\x00"])
def test_what_is_no_key_refuses_every_bundle(signed, given):
    with pytest.raises(SigningKeyError, match="reid-edge bundle keygen"):
        open_bundle(signed, trusted_keys=[given])


@pytest.mark.parametrize("given", ["", "key.pub", Path("key.pub")])
def test_one_key_that_is_no_list_pins_nothing_unnoticed(session_bundle, given):
    for open_it in (open_bundle, Extractor):
        with pytest.raises(UsageError, match="a list of keys"):
            open_it(session_bundle.path, trusted_keys=given)


def test_a_public_key_that_anybody_may_write_is_refused(tmp_path, key):
    (tmp_path / "key.pub").write_bytes(key.public_pem())
    (tmp_path / "key.pub").chmod(0o666)
    with pytest.raises(SigningKeyError, match=r"mode 666.*chmod o-w"):
        trusted_key(tmp_path / "key.pub")


def test_without_the_package_a_pinned_key_refuses_and_says_what_to_install(signed, key, monkeypatch):
    pinned = [key.public.text]
    for module in [name for name in sys.modules if name.partition(".")[0] == "cryptography"]:
        monkeypatch.delitem(sys.modules, module)
    monkeypatch.setitem(sys.modules, "cryptography", None)
    with pytest.raises(MissingExtraError, match=r"reid-edge\[signing\]"):
        open_bundle(signed, trusted_keys=pinned)
    assert open_bundle(signed).signed_by == ""


# The commands.


def test_keygen_sign_verify(bundle_copy, tmp_path):
    private, public = tmp_path / "key.pem", tmp_path / "key.pem.pub"
    told = success("bundle", "keygen", private)
    assert trusted_key(public).text in told
    assert trusted_key(public).fingerprint in told.replace("\n", "")
    assert private.stat().st_mode & 0o777 == 0o600
    success("bundle", "sign", bundle_copy.path, "--key", private)
    assert "10 files" in success("bundle", "verify", bundle_copy.path, "--key", public)
    assert "exists already" in failure("bundle", "keygen", private)


def test_sign_compares_every_file_first(bundle_copy, tmp_path):
    success("bundle", "keygen", tmp_path / "key.pem")
    (bundle_copy.path / bundle_copy.manifest.artifacts[0].files[0].path).write_bytes(b"x")
    assert "BundleCorruptError" in failure("bundle", "sign", bundle_copy.path, "--key", tmp_path / "key.pem")
    assert not (bundle_copy.path / SIGNATURE).exists()


def test_verify_compares_every_file(signed, key):
    (signed / "golden.npz").write_bytes(b"x")
    assert "BundleCorruptError" in failure("bundle", "verify", signed, "--key", key.public.text)


def test_a_private_key_that_others_may_read_is_refused(bundle_copy, tmp_path):
    success("bundle", "keygen", tmp_path / "key.pem")
    (tmp_path / "key.pem").chmod(0o640)
    assert "chmod 600" in failure("bundle", "sign", bundle_copy.path, "--key", tmp_path / "key.pem")


def test_an_encrypted_key_needs_its_password(bundle_copy, tmp_path):
    (tmp_path / "password").write_text("secret ä\n")
    (tmp_path / "wrong").write_text("secret\n")
    private = tmp_path / "key.pem"
    success("bundle", "keygen", private, "--password-file", tmp_path / "password")
    assert b"ENCRYPTED" in private.read_bytes()
    sign_it = ["bundle", "sign", bundle_copy.path, "--key", private]
    assert "password is wrong" in failure(*sign_it, "--password-file", tmp_path / "wrong")
    assert "cannot be read" in failure(*sign_it, "--password-file", tmp_path / "missing")
    success(*sign_it, "--password-file", tmp_path / "password")
    success("bundle", "verify", bundle_copy.path, "--key", f"{private}.pub")


@pytest.mark.parametrize("content", [b"", b"no key", b"-----BEGIN PRIVATE KEY-----\nAAAA\n-----END PRIVATE KEY-----\n"])
def test_a_file_that_holds_no_key_is_named(bundle_copy, tmp_path, content):
    path = tmp_path / "key.pem"
    path.write_bytes(content)
    path.chmod(0o600)
    assert "key.pem holds no private key" in failure("bundle", "sign", bundle_copy.path, "--key", path)
    with pytest.raises(SigningKeyError, match=r"key\.pem holds no public key"):
        trusted_key(path)


@needs_openssl
def test_openssl_checks_what_is_signed_here_and_makes_what_is_checked_here(bundle_copy, tmp_path):
    folder, private, public = bundle_copy.path, tmp_path / "key.pem", tmp_path / "public.pem"
    openssl("genpkey", "-algorithm", "ed25519", "-out", private)
    openssl("pkey", "-in", private, "-pubout", "-out", public)
    success("bundle", "sign", folder, "--key", private)
    files = ["-rawin", "-in", folder / MANIFEST]
    openssl("pkeyutl", "-verify", "-pubin", "-inkey", public, *files, "-sigfile", folder / SIGNATURE)
    der = openssl("pkey", "-pubin", "-in", public, "-outform", "DER").stdout
    digest = subprocess.run(["openssl", "sha256", "-r"], input=der, capture_output=True, check=True).stdout.split()[0]
    assert digest.decode() == trusted_key(public).fingerprint
    (folder / SIGNATURE).unlink()
    openssl("pkeyutl", "-sign", "-inkey", private, *files, "-out", folder / SIGNATURE)
    success("bundle", "verify", folder, "--key", public)


@needs_openssl
def test_a_key_of_another_kind_is_refused(bundle_copy, tmp_path):
    private, public = tmp_path / "rsa.pem", tmp_path / "rsa.pub"
    openssl("genpkey", "-algorithm", "RSA", "-out", private)
    openssl("pkey", "-in", private, "-pubout", "-out", public)
    assert "expected Ed25519" in failure("bundle", "sign", bundle_copy.path, "--key", private)
    with pytest.raises(SigningKeyError, match="expected Ed25519"):
        trusted_key(public)


def test_inspect_says_whether_there_is_a_signature(signed):
    assert "reid-edge bundle verify" in success("inspect", signed)
    (signed / SIGNATURE).unlink()
    assert "reid-edge bundle verify" not in success("inspect", signed)


def test_an_export_replaces_a_signed_bundle_and_its_signature_goes(signed, tmp_path):
    from reid_edge.export.staging import staged_folder

    with staged_folder(signed, force=True) as folder:
        (folder / MANIFEST).write_bytes((signed / MANIFEST).read_bytes())
    assert not (signed / SIGNATURE).exists()


def test_a_manifest_written_by_hand_is_signed_as_it_stands(bundle_copy, tmp_path):
    """The signature is over bytes: however the JSON is laid out, what was signed is what is checked."""
    path = bundle_copy.path / MANIFEST
    path.write_text(json.dumps(json.loads(path.read_text())))
    success("bundle", "keygen", tmp_path / "key.pem")
    success("bundle", "sign", bundle_copy.path, "--key", tmp_path / "key.pem")
    success("bundle", "verify", bundle_copy.path, "--key", tmp_path / "key.pem.pub")
