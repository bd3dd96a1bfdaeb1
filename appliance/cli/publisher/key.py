"""`appliance key`: a person's signing key, on that person's own machine."""

from __future__ import annotations

from pathlib import Path

import click

from appliance.cli.console.options import json_option, pass_terminal, passphrase_option
from appliance.cli.console.passphrase import passphrase_source
from appliance.cli.console.terminal import Terminal
from appliance.keys.signers.key_name import open_signer
from appliance.keys.signers.pem import create_key, load_public, public_pem


@click.group("key", context_settings={"help_option_names": ["-h", "--help"]})
def command() -> None:
    """Make a signing key, or show its public half.

    \b
    Example:
      appliance key create alice.pem
    """


@command.command("create")
@click.argument("file", type=click.Path(dir_okay=False, path_type=Path))
@passphrase_option
@json_option
@pass_terminal
def create(terminal: Terminal, file: Path, passphrase_fd: int | None, as_json: bool) -> None:
    """Make a key of your own in FILE, and its public half beside it.

    FILE is encrypted with a passphrase; the public half has the ending .pub. Do this on your own machine. Hand over the
    .pub file, write the fingerprint on paper, and keep FILE to yourself.

    \b
    Example:
      appliance key create alice.pem
    """
    key = create_key(file, passphrase_source(passphrase_fd, confirm=True)(f"new passphrase for {file}")).public
    half = file.with_suffix(".pub")
    half.write_bytes(public_pem(key))
    terminal.message(f"made {file}, which stays with you, and {half}, which you hand over")
    _answer(terminal, as_json, key.fingerprint, str(half))


@command.command("show")
@click.argument("key", metavar="KEY")
@click.option("--out", metavar="FILE", type=click.Path(dir_okay=False, path_type=Path), help="Write the public half.")
@passphrase_option
@json_option
@pass_terminal
def show(terminal: Terminal, key: str, out: Path | None, passphrase_fd: int | None, as_json: bool) -> None:
    """Show the fingerprint of KEY.

    KEY is a .pub or .pem file, or a key on a token. With --out its public half is written to a file.

    \b
    Example:
      appliance key show alice.pub
      appliance key show 'pkcs11:token=bob;object=signing?module-path=/usr/lib/softhsm/libsofthsm2.so' --out bob.pub
    """
    path = Path(key)
    is_private = not path.is_file() or b"PRIVATE KEY" in path.read_bytes()[:4096]
    public = open_signer(key, passphrase_source(passphrase_fd), ()).public if is_private else load_public(path)
    if out is not None:
        out.write_bytes(public_pem(public))
    _answer(terminal, as_json, public.fingerprint, str(out) if out else "")


def _answer(terminal: Terminal, as_json: bool, fingerprint: str, half: str) -> None:
    if as_json:
        terminal.answer_json({"fingerprint": fingerprint, "public": half or None})
    else:
        terminal.answer(f"fingerprint {fingerprint}")
