"""`gconet sign`: make keys, sign a bundle, check a bundle's signature."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from gconet.runtime.bundle import open_bundle, read_manifest, verify_files
from gconet.runtime.command_line import EXIT_DONE, Parser
from gconet.runtime.signing import SIGNATURE_NAME, make_keys, sign_manifest

DESCRIPTION = "Sign a bundle, so that others can tell that it is yours and as you built it."
EPILOG = """\
examples:
  gconet sign --new-key release                    writes release.private.pem and release.public.pem
  gconet sign --bundle build/gconet.gconet --key release.private.pem
  gconet sign --bundle build/gconet.gconet --check release.public.pem
  gconet detect photos/ --bundle build/gconet.gconet --require-signature release.public.pem

The signature, Ed25519, is of manifest.json, which holds the SHA-256 of every file an engine gets to see; it lies
beside it as manifest.sig. Every file is checked before a bundle is signed. The private key stays where you sign, the
public key goes to whoever runs bundles, by another way than the bundles do. A bundle that is built anew is signed anew.
SECURITY.md tells what a signature protects from, and what not."""


def main(arguments: Sequence[str]) -> int:
    """Run `gconet sign`; errors as raised by `open_bundle`, `make_keys`, `sign_manifest` and `check_signature`."""
    parser = Parser("gconet sign", DESCRIPTION, EPILOG)
    parser.add_argument("--new-key", type=Path, metavar="NAME", help="write a new pair of keys, NAME.private.pem and "
                        "NAME.public.pem; neither ever replaces a file")  # fmt: skip
    parser.add_argument("--bundle", type=Path, metavar="B", help="bundle to sign or check")
    parser.add_argument("--key", type=Path, metavar="PRIVATE", help="private key to sign with, Ed25519 in PEM")
    parser.add_argument("--check", type=Path, metavar="PUBLIC", help="public key that must have signed it, in PEM")
    parser.add_argument("--overwrite", action="store_true", help="replace a signature by another key")
    options = parser.parse_args(arguments)
    chosen = [option for option in ("new_key", "key", "check") if getattr(options, option) is not None]
    if len(chosen) != 1:
        parser.error("give one of --new-key NAME, --key PRIVATE and --check PUBLIC")
    if (options.bundle is None) != (options.new_key is not None):
        parser.error("--bundle goes with --key and --check, and only with them")

    if options.new_key is not None:
        pair = make_keys(options.new_key)
        print(f"key {pair.key_id}: {pair.private}, to be kept secret, and {pair.public}")
    elif options.key is not None:
        content = read_manifest(options.bundle)
        verify_files(options.bundle, content)  # a signature on a damaged bundle would help nobody
        name = sign_manifest(options.bundle, content, options.key, options.overwrite)
        print(f"{options.bundle} is signed by key {name}: {options.bundle / SIGNATURE_NAME}")
    else:
        open_bundle(options.bundle, require_signature=options.check)
        print(f"{options.bundle} is whole")
    return EXIT_DONE
