"""What all commands share: the parser's manners, one-line errors, exit codes."""

from __future__ import annotations

import argparse
import contextlib
import errno
import io
import json
import logging
import os
import sys
import traceback
import warnings
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NoReturn

from gconet.runtime.atomic import DISK_ERRORS, replacing
from gconet.runtime.errors import GconetError, one_line
from gconet.runtime.paths import reason

EXIT_DONE, EXIT_CHECK_FAILED, EXIT_BAD_INPUT, EXIT_FAULT, EXIT_INTERRUPTED = 0, 1, 2, 70, 130  # 70: sysexits.h


class Parser(argparse.ArgumentParser):
    """An argument parser whose errors are one line; its help shows what `run` takes of any command."""

    def __init__(self, prog: str, description: str, epilog: str = "") -> None:
        super().__init__(
            prog=prog,
            description=description,
            epilog=epilog,
            formatter_class=argparse.RawDescriptionHelpFormatter,
            allow_abbrev=False,
        )
        everywhere = self.add_argument_group("with every command")
        everywhere.add_argument("-v", "--verbose", action="count", default=0,
                                help="tell on standard error what is loaded, and how long it takes")  # fmt: skip
        everywhere.add_argument("--debug", action="store_true", help="show the traceback of an error")

    def error(self, message: str) -> NoReturn:
        """Print one line and exit with code 2."""
        self.exit(EXIT_BAD_INPUT, f"{self.prog}: {in_one_line(message)} (see {self.prog} --help)\n")


@dataclass(frozen=True)
class Telling:
    """How much a command tells of itself: tracebacks of errors, and the log from INFO (1) or DEBUG (2) on."""

    debug: bool = False
    verbose: int = 0


def split_telling(arguments: Sequence[str]) -> tuple[Telling, list[str]]:
    """Take `--debug`, `-v` and `--verbose` out of a command's arguments, wherever they stand before a `--`."""
    end = arguments.index("--") if "--" in arguments else len(arguments)
    debug, verbose, rest = False, 0, list[str]()
    for argument in arguments[:end]:
        if argument == "--debug":
            debug = True
        elif argument in ("-v", "-vv", "--verbose"):
            verbose += 2 if argument == "-vv" else 1
        else:
            rest.append(argument)
    return Telling(debug, verbose), [*rest, *arguments[end:]]


def add_signature_argument(parser: argparse._ActionsContainer) -> None:
    """The option of every command that loads a bundle, for `open_bundle` or `load`."""
    parser.add_argument("--require-signature", type=Path, metavar="KEY", help="refuse a bundle that the owner of this "
                        "public key did not sign; see gconet sign")  # fmt: skip


def positive(text: str) -> int:
    """Argument type: a whole number of at least 1."""
    value = int(text) if text.isdecimal() else 0
    if value < 1:
        raise argparse.ArgumentTypeError(f"{text!r} is not a whole number of at least 1")
    return value


def positive_float(text: str) -> float:
    """Argument type: a finite number above 0."""
    try:
        value = float(text)
    except ValueError:
        value = 0.0
    if not 0 < value < float("inf"):
        raise argparse.ArgumentTypeError(f"{text!r} is not a number above 0")
    return value


def warn(message: str) -> None:
    """Say a line on standard error, and go on."""
    print(f"gconet: {in_one_line(message)}", file=sys.stderr)


def in_one_line(message: str) -> str:
    """A message fit for a terminal: white space is made single, and what does not print, as in odd names, escaped."""
    return "".join(
        character if character.isprintable() else character.encode("unicode_escape").decode()
        for character in " ".join(message.split())
    )


def write_json(path: Path, document: Any) -> None:
    """Write a report, replacing an earlier one at once; raises UsageError if the folder cannot be written."""
    with replacing(path) as temporary:
        temporary.write_text(json.dumps(document, indent=2) + "\n", "utf-8")


def run(main: Callable[[Sequence[str]], int], arguments: Sequence[str] | None = None) -> int:
    """Run a command. Errors become one line: a user's with exit code 2, ours with 70; Ctrl-C is exit code 130.

    `--debug` and `-v` are taken out of the arguments here, for every command.
    """
    warnings.filterwarnings("ignore", module=r"PIL\.")  # odd metadata in photos; in a command the process is ours
    if isinstance(sys.stdout, io.TextIOWrapper):
        sys.stdout.reconfigure(errors="backslashreplace")  # names of files need not be text
    telling, rest = split_telling(sys.argv[1:] if arguments is None else arguments)
    try:
        with _logging(telling.verbose):
            code = main(rest)
        sys.stdout.flush()  # a reader that has gone is noticed here, not at exit
        return code
    except KeyboardInterrupt:
        print("gconet: interrupted", file=sys.stderr)
        return EXIT_INTERRUPTED
    except BrokenPipeError:
        _drop_output()  # its reader (head, less) has gone
        return EXIT_DONE
    except GconetError as error:
        _show(error, telling)
        warn(str(error))
        return EXIT_BAD_INPUT
    except MemoryError as error:
        _show(error, telling)
        warn(f"out of memory{_place(error)}: give it less at once, or more memory")
        return EXIT_BAD_INPUT
    except Exception as error:
        _show(error, telling)
        if full := _full_disk(error):
            _drop_output()  # which may be what the disk is too full for
            warn(f"cannot write{f' {full.filename}' if full.filename else ''}: {reason(full)}")
            return EXIT_BAD_INPUT
        return _fault(error, telling)


def _full_disk(error: BaseException) -> OSError | None:
    """The error of a disk that is behind another one: libraries hide it in errors of their own."""
    seen: BaseException | None = error
    while seen is not None:
        if isinstance(seen, OSError):
            full = seen.errno in DISK_ERRORS - {errno.EIO}  # which reading has, too
            if full or "No usable temporary directory" in str(seen):  # so tempfile says it
                return seen
        seen = seen.__cause__ or seen.__context__
    return None


def _fault(error: Exception, telling: Telling) -> int:
    what = f"a fault of gconet's own: {type(error).__name__}: {one_line(error)}{_place(error)}"
    warn(f"{what}; please report it, with {'this' if telling.debug else 'what the same command prints with --debug'}")
    return EXIT_FAULT


def _show(error: BaseException, telling: Telling) -> None:
    if telling.debug:
        traceback.print_exception(error)


def _drop_output() -> None:
    """Keep the interpreter from complaining at exit of output that nobody takes."""
    with contextlib.suppress(OSError):
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


def _place(error: BaseException) -> str:
    """The innermost line of the traceback."""
    frames = traceback.extract_tb(error.__traceback__)
    return f" ({Path(frames[-1].filename).name}, line {frames[-1].lineno})" if frames else ""


@contextlib.contextmanager
def _logging(verbose: int) -> Iterator[None]:
    """Send gconet's log to standard error while a command runs, if asked to."""
    if not verbose:
        yield
        return
    logger, handler = logging.getLogger("gconet"), logging.StreamHandler()
    handler.setFormatter(logging.Formatter("gconet: %(relativeCreated).0f ms: %(message)s"))
    level = logger.level
    logger.addHandler(handler)
    logger.setLevel(logging.DEBUG if verbose > 1 else logging.INFO)
    try:
        yield
    finally:
        logger.removeHandler(handler)
        logger.setLevel(level)
