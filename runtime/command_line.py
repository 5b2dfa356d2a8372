"""What all commands share: the parser's manners, one-line errors, exit codes."""

from __future__ import annotations

import argparse
import json
import os
import sys
import warnings
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, NoReturn

from gconet.runtime.atomic import replacing
from gconet.runtime.errors import GconetError

EXIT_DONE, EXIT_CHECK_FAILED, EXIT_BAD_INPUT, EXIT_INTERRUPTED = 0, 1, 2, 130


class Parser(argparse.ArgumentParser):
    """An argument parser whose errors are one line and whose help shows defaults."""

    def __init__(self, prog: str, description: str, epilog: str = "") -> None:
        super().__init__(
            prog=prog,
            description=description,
            epilog=epilog,
            formatter_class=argparse.RawDescriptionHelpFormatter,
            allow_abbrev=False,
        )

    def error(self, message: str) -> NoReturn:
        """Print one line and exit with code 2."""
        self.exit(EXIT_BAD_INPUT, f"{self.prog}: {message} (see {self.prog} --help)\n")


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
    print(f"gconet: {message}", file=sys.stderr)


def write_json(path: Path, document: Any) -> None:
    """Write a report, replacing an earlier one at once; raises UsageError if the folder cannot be written."""
    with replacing(path) as temporary:
        temporary.write_text(json.dumps(document, indent=2) + "\n", "utf-8")


def run(main: Callable[[Sequence[str]], int], arguments: Sequence[str] | None = None) -> int:
    """Run a command: user errors become one line and exit code 2, Ctrl-C exit code 130."""
    warnings.filterwarnings("ignore", module=r"PIL\.")  # odd metadata in photos; in a command the process is ours
    try:
        code = main(sys.argv[1:] if arguments is None else arguments)
        sys.stdout.flush()  # a reader that has gone is noticed here, not at exit
        return code
    except GconetError as error:
        print(f"gconet: {' '.join(str(error).split())}", file=sys.stderr)
        return EXIT_BAD_INPUT
    except KeyboardInterrupt:
        print("gconet: interrupted", file=sys.stderr)
        return EXIT_INTERRUPTED
    except BrokenPipeError:
        # The reader of our output (head, less) has gone; keep the interpreter from complaining at exit.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return EXIT_DONE
