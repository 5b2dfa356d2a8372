"""libgconet.so and programs that use it, compiled once for all tests: fixtures `capi` and `compile_c`."""

from __future__ import annotations

import os
import shutil
import subprocess
from collections.abc import Callable, Sequence
from pathlib import Path

import pytest

from gconet.runtime.capi.build import build
from gconet.runtime.errors import TargetError

STRICT = ["-Wall", "-Wextra", "-Werror", "-pedantic"]
Compile = Callable[..., Path]


@pytest.fixture(scope="session")
def capi(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """The files of `gconet build-capi`; skips where a library cannot be built."""
    try:
        return build(tmp_path_factory.mktemp("capi") / "prefix")
    except TargetError as error:
        pytest.skip(str(error))


def compiler_for(source: Path) -> list[str]:
    """The C or C++ compiler and its language; skips where there is none."""
    name, standard = ("g++", "-std=c++17") if source.suffix == ".cpp" else ("gcc", "-std=c11")
    if shutil.which(name) is None:
        pytest.skip(f"needs {name}")
    return [name, standard]


def flags_of(files: dict[str, Path]) -> list[str]:
    """What a program is compiled with, from pkg-config where that is installed."""
    rpath = f"-Wl,-rpath,{files['library'].parent}"
    if shutil.which("pkg-config") is None:
        return [f"-I{files['header'].parent}", f"-L{files['library'].parent}", "-lgconet", rpath]
    found = subprocess.run(
        ["pkg-config", "--cflags", "--libs", "gconet"],
        env={**os.environ, "PKG_CONFIG_PATH": str(files["pkg-config"].parent)},
        capture_output=True, text=True, check=True,
    )  # fmt: skip
    return [*found.stdout.split(), rpath]


def run(*command: str | Path, **environment: str) -> subprocess.CompletedProcess[str]:
    """Run a program as from a shell that knows nothing of this project."""
    inherited = {name: value for name, value in os.environ.items() if not name.startswith(("PYTHON", "GCONET"))}
    return subprocess.run(
        [str(part) for part in command],
        env={**inherited, **environment}, capture_output=True, text=True, timeout=300, check=False,
    )  # fmt: skip


@pytest.fixture(scope="session")
def compile_c(capi: dict[str, Path], tmp_path_factory: pytest.TempPathFactory) -> Compile:
    """Compile a program against the library, strictly, once."""
    folder = tmp_path_factory.mktemp("programs")

    def compile_once(source: Path, extra: Sequence[str] = (), files: dict[str, Path] | None = None) -> Path:
        program = folder / f"{source.name}{''.join(extra)}.out".replace("/", "")
        if not program.exists():
            flags = [*STRICT, *extra, str(source), "-o", str(program), *flags_of(files or capi), "-pthread", "-ldl"]
            done = subprocess.run([*compiler_for(source), *flags], capture_output=True, text=True, check=False)
            assert (done.returncode, done.stderr) == (0, "")
        return program

    return compile_once
