"""``reid-edge bundle keygen``, ``sign`` and ``verify``: who made a bundle."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Annotated

import typer

from reid_edge.cli.shared_options import BundleArgument, ForceOption
from reid_edge.console import console
from reid_edge.errors import SigningKeyError, UsageError
from reid_edge.wording import counted

bundle_app = typer.Typer(no_args_is_help=True, help="Sign a bundle, and check who signed it.")

PasswordFileOption = Annotated[
    Path | None, typer.Option(help="File whose first line is the key's password. Default: ask.")
]


@bundle_app.command()
def keygen(
    key: Annotated[Path, typer.Argument(help="File for the private key, PEM; the public key is written to KEY.pub.")],
    password: Annotated[bool, typer.Option("--password", help="Encrypt the private key.")] = False,
    password_file: PasswordFileOption = None,
    force: ForceOption = False,
) -> None:
    """Make a pair of keys: a private one that signs bundles, and a public one for the cameras."""
    from reid_edge.files import check_output, write_whole
    from reid_edge.signing import SigningKey

    public = key.with_name(f"{key.name}.pub")
    for path in (key, public):
        check_output(path, force=force)
    secret = b""
    if password or password_file is not None:
        secret = _password(key, password_file, confirm=True)
        if not secret:
            raise UsageError("an empty password encrypts nothing.")
    made = SigningKey.generate()
    write_whole(key, made.private_pem(secret), private=True)
    write_whole(public, made.public_pem())
    console.print(f"{key}: signs bundles; keep it off the cameras", soft_wrap=True)
    console.print(f"{public}: checks them; sha256 {made.public.fingerprint}", soft_wrap=True)
    console.print(f'On a camera: [engine] trusted_keys = ["{made.public.text}"]', soft_wrap=True, markup=False)


@bundle_app.command()
def sign(
    bundle: BundleArgument,
    key: Annotated[Path, typer.Option(help="Private Ed25519 key, PEM; only you may have access to it.")],
    password_file: PasswordFileOption = None,
) -> None:
    """Check a bundle's files and sign its manifest, which holds the sha256 of each."""
    from reid_edge.bundle import Bundle, parse_manifest, read_manifest
    from reid_edge.files import write_whole
    from reid_edge.signing import SIGNATURE, SigningKey

    loaded = SigningKey.load(key, lambda: _password(key, password_file))
    folder, text = read_manifest(bundle)
    manifest = parse_manifest(text, folder)
    Bundle(folder, manifest).check_files()
    write_whole(folder / SIGNATURE, loaded.sign(text))
    console.print(
        f"{folder / SIGNATURE}: {counted(len(manifest.entries()), 'file')} of {manifest.created}, signed by "
        f"{loaded.public.fingerprint}",
        soft_wrap=True,
    )


@bundle_app.command()
def verify(
    bundle: BundleArgument,
    key: Annotated[
        list[str], typer.Option(help="Public key (PEM file or base64). May be repeated; one match is enough.")
    ],
) -> None:
    """Check that one of the keys signed a bundle, and that no file has changed since."""
    from reid_edge.bundle import open_bundle

    opened = open_bundle(bundle, trusted_keys=key, built_dir=None)
    opened.check_files()
    manifest = opened.manifest
    console.print(
        f"{bundle}: {counted(len(manifest.entries()), 'file')} of {manifest.created}, as signed by {opened.signed_by}",
        soft_wrap=True,
    )


def _password(key: Path, file: Path | None, *, confirm: bool = False) -> bytes:
    """Read the password of a key from a file, or ask for it."""
    if file is not None:
        try:
            return file.read_bytes().split(b"\n", 1)[0].rstrip(b"\r")
        except OSError as error:
            raise SigningKeyError(f"the password file {file} cannot be read: {error.strerror}.") from error
    if not sys.stdin.isatty():
        raise SigningKeyError(f"{key} needs a password, and there is no terminal to ask at: give --password-file FILE.")
    entered: str = typer.prompt(f"Password of {key}", hide_input=True, confirmation_prompt=confirm, err=True)
    return entered.encode()
