"""The structure that the folders' READMEs promise: who imports whom, and that nobody is missing one."""

import ast
import re
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]

# Folder -> what its README says it imports of the others.
IMPORTS = {
    "train": {"bench.metrics", "runtime"},
    "export": {"train", "engines", "bench", "runtime"},
    "engines": {"runtime"},
    "runtime": set(),
    "bench": {"train", "export", "engines", "runtime"},
}


def imported(file: Path) -> set[str]:
    """Modules that a file imports, inside functions too, by their full names."""
    found: set[str] = set()
    for node in ast.walk(ast.parse(file.read_text("utf-8"))):
        if isinstance(node, ast.Import):
            found |= {name.name for name in node.names}
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{file}: relative import"
            found |= {f"{node.module}.{name.name}" for name in node.names}
    return found


@pytest.mark.parametrize("folder", IMPORTS)
def test_imports_only_what_the_readme_says(folder: str) -> None:
    files = list((ROOT / folder).rglob("*.py"))
    assert files
    for file in files:
        for name in imported(file):
            part = name.removeprefix("gconet.")
            if part != name and part.split(".")[0] != folder:
                assert any(f"{part}.".startswith(f"{allowed}.") for allowed in IMPORTS[folder]), f"{file}: {name}"


def test_runtime_never_imports_the_training_side() -> None:
    for file in (ROOT / "runtime").rglob("*.py"):
        assert not {name.split(".")[0] for name in imported(file)} & {"torch", "onnx", "onnxscript"}, file


@pytest.mark.parametrize("folder", [*IMPORTS, "tests"])
def test_readme_names_files_that_exist(folder: str) -> None:
    text = (ROOT / folder / "README.md").read_text("utf-8")
    for name in re.findall(r"`([\w*./]+\.(?:py|md)|\w+/)`", text):
        assert list((ROOT / folder).glob(name.rstrip("/"))), f"{folder}/README.md: {name}"


def headings_of(document: Path) -> set[str]:
    """What a document's headings are linked by."""
    lines = re.findall(r"^#+(.*)", document.read_text("utf-8"), re.MULTILINE)
    return {re.sub(r"[^\w -]", "", line).strip().lower().replace(" ", "-") for line in lines}


DOCUMENTS = sorted(
    str(path.relative_to(ROOT))
    for folder in (".", *IMPORTS, "tests", "bench/results", "train/weights")
    for path in (ROOT / folder).glob("*.md")
)


@pytest.mark.parametrize("document", DOCUMENTS)
def test_links_between_documents_lead_somewhere(document: str) -> None:
    for link in re.findall(r"\]\(([^)]+)\)", (ROOT / document).read_text("utf-8")):
        path, _, heading = link.partition("#")
        if link.startswith("https://"):
            continue
        target = (ROOT / document).parent / path if path else ROOT / document
        assert target.exists(), f"{document}: {link}"
        assert not heading or heading in headings_of(target), f"{document}: {link}"
