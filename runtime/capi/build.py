"""Compile libgconet.so with this machine's C compiler, for the Python that runs this and its environment."""

from __future__ import annotations

import contextlib
import io
import os
import shlex
import shutil
import site
import subprocess
import sys
import sysconfig
import tempfile
from dataclasses import dataclass
from importlib import metadata
from pathlib import Path
from string import Template
from typing import Any

from gconet.runtime.atomic import cannot_write, replacing
from gconet.runtime.errors import TargetError, UsageError
from gconet.runtime.paths import kind_of

HERE = Path(__file__).resolve().parent
HEADER, MODULE, MARK, ABI = "gconet.h", "gconet_native", "/* ---- */", 1
LIBRARY = f"libgconet.so.{ABI}"
# Only the interface can be seen from outside, under a version that a later ABI will not share.
EXPORTS = f"GCONET_{ABI} {{ global: gconet_*; local: *; }};\n"
FLAGS = ("-std=gnu11", "-O2", "-fPIC", "-shared", "-pthread", "-fvisibility=hidden", "-Wno-unused-parameter")
DISTRIBUTION = "gconet-deploy"


@dataclass(frozen=True)
class PythonLibrary:
    """The shared library that a Python lives in.

    Attributes
    ----------
    path : to link with.
    soname : that programs load it by.
    """

    path: Path
    soname: str


def files_of(out: Path) -> dict[str, Path]:
    """What `build` writes below `out`, by what it is."""
    return {
        "header": out / "include" / HEADER,
        "library": out / "lib" / LIBRARY,
        "link": out / "lib" / "libgconet.so",
        "pkg-config": out / "lib" / "pkgconfig" / "gconet.pc",
        "cmake": out / "lib" / "cmake" / "gconet" / "gconet-config.cmake",
        "cmake version": out / "lib" / "cmake" / "gconet" / "gconet-config-version.cmake",
    }


def build(out: Path, overwrite: bool = False) -> dict[str, Path]:
    """Compile the library and write it to `out`, with its header and what pkg-config and CMake find it by.

    The compiler is `$CC` or cc; `$CFLAGS` and `$LDFLAGS` are heeded.

    Returns
    -------
    As `files_of`.

    Raises
    ------
    UsageError
        If one of the files exists and is not to be overwritten, or cannot be written.
    TargetError
        If cffi, the compiler, Python's headers or its shared library are missing, or the compiler fails.
    """
    files = files_of(out)
    present = [path for path in files.values() if kind_of(path)]
    if present and not overwrite:
        raise UsageError(f"{present[0]} exists already: choose another --out or pass --overwrite")
    values = {"version": version(), "library": LIBRARY}
    with tempfile.TemporaryDirectory(prefix="gconet-capi-") as folder:
        library = _compile(Path(folder))
        _write(files["library"], library.read_bytes(), mode=0o755)
    _write(files["header"], (HERE / HEADER).read_bytes())
    _link(files["link"])
    for what in ("pkg-config", "cmake", "cmake version"):
        template = (HERE / f"{files[what].name}.in").read_text("utf-8")
        _write(files[what], _Template(template).substitute(values).encode())
    return files


def version() -> str:
    """Of this project, as it is installed; "0" where it is not."""
    try:
        return metadata.version(DISTRIBUTION)
    except metadata.PackageNotFoundError:
        return "0"


def declarations(header: str) -> str:
    """The part of a header in this folder that is plain declarations, as cffi reads them."""
    text = (HERE / header).read_text("utf-8").split(MARK)[1]
    return text.replace("GCONET_API ", "")


def python_library() -> PythonLibrary:
    """The shared library of this Python; raises TargetError if there is none, or it has no headers."""
    name = str(sysconfig.get_config_var("LDLIBRARY") or "")
    soname = str(sysconfig.get_config_var("INSTSONAME") or name)
    folders = [sysconfig.get_config_var("LIBDIR"), Path(sys.base_prefix, "lib")]
    found = [Path(folder, soname) for folder in folders if folder and Path(folder, soname).is_file()]
    if ".so" not in soname or not found:
        raise TargetError(
            f"the Python at {sys.executable} has no shared library to embed ({name or 'none is named'}): use one that "
            "has, such as your distribution's with python3-dev, conda's, uv's, or one built with --enable-shared"
        )
    if not Path(sysconfig.get_paths()["include"], "Python.h").is_file():
        raise TargetError(
            f"the Python at {sys.executable} has no headers: apt-get install python3-dev, or python3-devel"
        )
    return PythonLibrary(found[0], soname)


def source_folders() -> list[str]:
    """Folders of this process's `sys.path` that the package comes from, but for those that a Python knows itself."""
    known = {*site.getsitepackages(), *map(sysconfig.get_path, ("purelib", "platlib"))}
    return [
        folder
        for folder in sys.path
        if folder and folder not in known and Path(folder, "gconet", "runtime", "capi").is_dir()
    ]


class _Template(Template):
    """With @, as $ is a sign of both pkg-config and CMake."""

    delimiter = "@"


def _compile(folder: Path) -> Path:
    """Write the sources into a folder and run the compiler there."""
    if sys.platform != "linux":
        raise TargetError(f"libgconet.so is made for Linux, not {sys.platform}: use the Python interface there")
    python = python_library()
    bridge = folder / "bridge.c"
    _bridge_source(bridge)
    (folder / "config.h").write_text(_config(python), "utf-8")
    (folder / "exports.map").write_text(EXPORTS, "utf-8")
    library = folder / LIBRARY
    environment = {name: _split(name) for name in ("CC", "CFLAGS", "LDFLAGS")}
    command = [
        *(environment["CC"] or ["cc"]), *FLAGS, *environment["CFLAGS"],
        f"-I{folder}", f"-I{HERE}", f"-I{sysconfig.get_paths()['include']}",
        str(HERE / "gconet.c"), str(bridge), "-o", str(library),
        f"-Wl,-soname,{LIBRARY}", f"-Wl,--version-script={folder / 'exports.map'}",
        f"-Wl,-rpath,{python.path.parent}", *environment["LDFLAGS"], str(python.path), "-ldl",
    ]  # fmt: skip
    if shutil.which(command[0]) is None:
        raise TargetError(f"no C compiler {command[0]}: apt-get install gcc, or name another in CC")
    done = subprocess.run(command, capture_output=True, text=True, errors="replace", check=False)
    if done.returncode:
        lines = (
            [line for line in done.stderr.splitlines() if "error" in line] or done.stderr.splitlines() or ["nothing"]
        )
        raise TargetError(f"{command[0]} cannot compile libgconet.so, it says: {lines[0].strip()[:300]}")
    return library


def _split(name: str) -> list[str]:
    """A variable of the environment as words."""
    try:
        return shlex.split(os.environ.get(name, ""))
    except ValueError as error:
        raise UsageError(f"{name} in the environment cannot be read as words: {error}") from error


def _bridge_source(path: Path) -> None:
    """The functions of bridge.h as cffi makes them."""
    try:
        from cffi import FFI
    except ImportError as error:
        raise TargetError(f"cffi cannot be imported: pip install '{DISTRIBUTION}[capi]'") from error
    ffi: Any = FFI()
    ffi.cdef(declarations(HEADER).split("/* GCONET_ABI_VERSION")[0])  # the types; the functions are C's own
    ffi.embedding_api(declarations("bridge.h"))
    ffi.set_source(MODULE, '#include "bridge.h"\n')
    ffi.embedding_init_code((HERE / "embedded.py").read_text("utf-8"))
    with contextlib.redirect_stdout(io.StringIO()):  # it says what it does
        ffi.emit_c_code(str(path))


def _config(python: PythonLibrary) -> str:
    """What a library is told of where it was built."""
    facts = {
        "GCONET_VERSION": version(),
        "GCONET_EXECUTABLE": sys.executable,
        "GCONET_FOLDERS": os.pathsep.join(source_folders()),
        "GCONET_LIBPYTHON": python.soname,
    }
    return "".join(f"#define {name} {_c_string(value)}\n" for name, value in facts.items())


def _c_string(text: str) -> str:
    """A literal of C; other characters than plain ones as octal numbers, of three digits, which end by themselves."""
    plain = {*range(0x20, 0x7F)} - set(b'"\\?')
    return '"' + "".join(chr(byte) if byte in plain else f"\\{byte:03o}" for byte in os.fsencode(text)) + '"'


def _write(path: Path, content: bytes, mode: int = 0o644) -> None:
    with replacing(path) as temporary:
        temporary.write_bytes(content)
        temporary.chmod(mode)


def _link(path: Path) -> None:
    """The name that compilers look for, as a link to the one that programs load."""
    with replacing(path) as temporary, cannot_write(path):
        temporary.unlink(missing_ok=True)  # of a process of this number that was killed
        temporary.symlink_to(LIBRARY)
