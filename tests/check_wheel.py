"""Check what a built wheel holds: `python tests/check_wheel.py FOLDER`."""

from __future__ import annotations

import subprocess
import sys
import zipfile
from pathlib import Path

FOLDERS = ("train", "export", "engines", "runtime", "bench")
DATA = {
    "gconet/train/weights/MODEL_CARD.md",
    "gconet/train/weights/gconet-demo.safetensors",
    "gconet/runtime/py.typed",
    "gconet/bench/examples/LICENSE.md",
}


def expected_files(repository: Path) -> set[str]:
    """Every Python file of the five folders, what C programs need, the example photos and masks, and the licence."""
    tracked = subprocess.run(
        ["git", "ls-files", *FOLDERS], cwd=repository, capture_output=True, text=True, check=True
    ).stdout.splitlines()
    modules = {f"gconet/{name}" for name in tracked if name.endswith(".py") and "/examples/" not in name}
    pictures = {f"gconet/{name}" for name in tracked if "/examples/" in name and name.endswith((".jpg", ".png"))}
    interface = {
        f"gconet/{name}"
        for name in tracked
        if name.startswith("runtime/capi/") and (name.endswith((".c", ".h", ".in", ".supp")) or "/examples/" in name)
    }
    return modules | pictures | interface | DATA


def main() -> int:
    """Exit code 1, with the difference, if a file is missing or does not belong."""
    (wheel,) = Path(sys.argv[1]).glob("*.whl")
    with zipfile.ZipFile(wheel) as archive:
        files = {name for name in archive.namelist() if ".dist-info/" not in name}
    expected = expected_files(Path(__file__).resolve().parents[1])
    for name in sorted(expected ^ files):
        print(f"{'missing from' if name in expected else 'does not belong in'} {wheel.name}: {name}")
    if expected == files:
        print(f"{wheel.name} holds the {len(files)} files it should")
    return int(expected != files)


if __name__ == "__main__":
    sys.exit(main())
