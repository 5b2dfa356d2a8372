"""`gconet build-capi`: the library, header, pkg-config and CMake files for C and C++ programs."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from gconet.runtime.capi.build import HERE, build
from gconet.runtime.command_line import EXIT_DONE, Parser

DESCRIPTION = "Compile libgconet.so, the runtime for C and C++, for this Python and its environment."
EPILOG = f"""\
example:
  gconet build-capi --out build/capi
  cc {HERE / "examples" / "detect.c"} -o detect \\
      $(PKG_CONFIG_PATH=build/capi/lib/pkgconfig pkg-config --cflags --libs gconet) -Wl,-rpath,$PWD/build/capi/lib

Written to DIR: include/gconet.h, lib/libgconet.so, lib/pkgconfig/gconet.pc, lib/cmake/gconet/. The folder may be moved.
The library binds to the shared library of the Python that runs this command, and starts with this environment's
packages; GCONET_PYTHON names the interpreter of another environment of the same Python version, GCONET_PYTHONPATH
folders that come first. A C compiler, Python's headers and the extra `capi` are needed; CC, CFLAGS and LDFLAGS are
heeded. Linux only."""


def main(arguments: Sequence[str]) -> int:
    """Run `gconet build-capi`; errors as raised by `build`."""
    parser = Parser("gconet build-capi", DESCRIPTION, EPILOG)
    parser.add_argument("--out", type=Path, default=Path("build/capi"), metavar="DIR", help="folder to write to "
                        "(default: %(default)s)")  # fmt: skip
    parser.add_argument("--overwrite", action="store_true", help="replace what an earlier run wrote there")
    options = parser.parse_args(arguments)
    files = build(options.out, options.overwrite)
    print(f"{files['link']} and {files['header']}; examples in {HERE / 'examples'}")
    return EXIT_DONE
