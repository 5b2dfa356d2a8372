"""What a command tells of errors and of itself: one line, `--debug` for the traceback, `-v` for the log."""

from __future__ import annotations

import errno
import logging
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

import gconet.runtime as gr
from gconet.bench.photo_groups import EXAMPLES
from gconet.runtime import cli
from gconet.runtime.command_line import EXIT_FAULT, Parser, in_one_line, run, split_telling, warn

SOURCE = Path(__file__).resolve().parents[1] / "src"


def fail_with(error: BaseException) -> Callable[[object], int]:
    def main(_: object) -> int:
        raise error

    return main


def test_a_fault_of_ours_is_one_line_and_an_exit_code_of_its_own(capsys: pytest.CaptureFixture[str]) -> None:
    assert run(fail_with(ZeroDivisionError("division\nby zero")), []) == EXIT_FAULT == 70
    out, err = capsys.readouterr()
    assert out == ""
    assert err.count("\n") == 1
    assert err.startswith("gconet: a fault of gconet's own: ZeroDivisionError: division (test_telling.py, line ")
    assert "--debug" in err


@pytest.mark.parametrize(
    ("error", "code"), [(gr.BundleError("no bundle"), 2), (KeyError("a bug"), 70), (MemoryError(), 2)]
)
def test_debug_shows_the_traceback_before_the_line(
    error: Exception, code: int, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run(fail_with(error), []) == code
    assert "Traceback" not in capsys.readouterr().err
    assert run(fail_with(error), ["--debug"]) == code
    err = capsys.readouterr().err
    assert err.startswith("Traceback (most recent call last):")
    assert "raise error" in err
    assert err.splitlines()[-1].startswith("gconet: ")


def test_a_bundle_error_shows_its_cause_with_debug(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "manifest.json").write_text("{")
    words = ["detect", str(EXAMPLES / "cat"), "--bundle", str(tmp_path), "--out", str(tmp_path / "maps"), "--debug"]
    assert run(cli.main, words) == 2
    err = capsys.readouterr().err
    assert "JSONDecodeError" in err
    assert "BundleError" in err


def test_no_memory_is_the_users_to_mend(capsys: pytest.CaptureFixture[str]) -> None:
    assert run(fail_with(MemoryError()), []) == 2
    assert "out of memory" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("body", "told"),
    [
        ("    raise OSError(errno.ENOSPC, 'No space left on device', '/tmp/x')\n", "cannot write /tmp/x"),
        (
            (
                "    try:\n        raise OSError(errno.ENOSPC, 'No space left on device')\n"
                "    except OSError:\n        raise RuntimeError('export failed')\n"
            ),
            "cannot write",
        ),
    ],
    ids=["anywhere", "behind a library's error"],
)
def test_a_full_disk_is_one_line(body: str, told: str) -> None:
    code = f"import errno, sys; from gconet.runtime.command_line import run\ndef main(_):\n{body}sys.exit(run(main))"
    done = subprocess.run([sys.executable, "-c", code], env=environment(), capture_output=True, text=True, check=False)
    assert (done.returncode, done.stderr) == (2, f"gconet: {told}: No space left on device\n")


def test_no_place_for_temporary_files_is_told() -> None:
    code = "import tempfile, sys; from gconet.runtime.command_line import run\n"
    code += "sys.exit(run(lambda _: print(tempfile.gettempdir()) or 0, []))"
    words = [sys.executable, "-c", f"import resource; resource.setrlimit(resource.RLIMIT_FSIZE, (0, 0)); {code}"]
    done = subprocess.run(words, env=environment(), capture_output=True, text=True, check=False)
    assert done.returncode == 2
    assert done.stderr.startswith("gconet: cannot write: No usable temporary directory")
    assert done.stderr.count("\n") == 1


def environment() -> dict[str, str]:
    return {**os.environ, "PYTHONPATH": str(SOURCE)}


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="needs /dev/full, a disk that is always full")
def test_output_to_a_full_disk_is_one_line() -> None:
    with open("/dev/full", "w") as full:  # noqa: PTH123 (a device)
        done = subprocess.run(
            [sys.executable, "-m", "gconet.runtime.cli", "--help"],
            env=environment(),
            stdout=full,
            stderr=subprocess.PIPE,
            text=True,
            check=False,
        )
    assert done.returncode in (0, 2)  # argparse ignores that its help cannot be written
    assert "Traceback" not in done.stderr
    code = "import sys; from gconet.runtime.command_line import run; sys.exit(run(lambda _: print('x') or 0, []))"
    with open("/dev/full", "w") as full:  # noqa: PTH123
        words = [sys.executable, "-c", code]
        done = subprocess.run(words, env=environment(), stdout=full, stderr=subprocess.PIPE, text=True, check=False)
    assert (done.returncode, done.stderr) == (2, "gconet: cannot write: No space left on device\n")


def test_other_errors_of_the_system_are_faults_of_ours(capsys: pytest.CaptureFixture[str]) -> None:
    assert run(fail_with(OSError(errno.EBADF, "Bad file descriptor")), []) == 70
    assert "OSError" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("arguments", "debug", "verbose", "rest"),
    [
        (["detect", "a", "--debug"], True, 0, ["detect", "a"]),
        (["--debug", "-v", "detect", "a"], True, 1, ["detect", "a"]),
        (["detect", "-v", "a", "--verbose"], False, 2, ["detect", "a"]),
        (["-vv", "detect"], False, 2, ["detect"]),
        (["detect", "--", "-v", "--debug"], False, 0, ["detect", "--", "-v", "--debug"]),
        (["detect", "--out=-v"], False, 0, ["detect", "--out=-v"]),
    ],
)
def test_both_options_are_taken_from_anywhere(arguments: list[str], debug: bool, verbose: int, rest: list[str]) -> None:
    telling, left = split_telling(arguments)
    assert (telling.debug, telling.verbose, left) == (debug, verbose, rest)


@pytest.mark.parametrize("command", ["detect", "doctor", "sign"])
def test_every_commands_help_names_both(command: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        run(cli.main, [command, "--help"])
    out = capsys.readouterr().out
    assert "--debug" in out
    assert "-v, --verbose" in out


@pytest.mark.parametrize("target", ["onnxruntime", "openvino"])
def test_the_log_tells_engine_version_threads_groups_and_times(
    target: str, tiny_bundle: Callable[[str, str], Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    bundle = tiny_bundle(target, "fp32")
    words = [
        "detect",
        str(EXAMPLES / "cat"),
        "--bundle",
        str(bundle),
        "--threads",
        "1",
        "--out",
        str(tmp_path / "maps"),
    ]
    assert run(cli.main, [*words, "-v"]) == 0
    lines = capsys.readouterr().err.splitlines()
    said = [line for line in lines if line.startswith("gconet: ")]
    text = "\n".join(said)
    version = __import__(target).__version__
    for mention in (str(bundle), f"{target} fp32", version, "threads: 1", "group of 5", "computed in", "verified in"):
        assert mention in text
    assert run(cli.main, [*words, "--overwrite"]) == 0
    assert not [line for line in capsys.readouterr().err.splitlines() if line.startswith("gconet: ")]
    assert not logging.getLogger("gconet").handlers


def test_odd_names_cannot_break_a_line_or_colour_a_terminal(capsys: pytest.CaptureFixture[str]) -> None:
    assert in_one_line("a\nb\t c\x1b[31m \udcff é 猫") == r"a b c\x1b[31m \udcff é 猫"
    warn("left out: a\nb.jpg")
    assert capsys.readouterr().err == "gconet: left out: a b.jpg\n"
    with pytest.raises(SystemExit):
        Parser("gconet x", "").parse_args(["--a\nb"])
    assert capsys.readouterr().err.count("\n") == 1


def test_a_name_that_is_no_text_can_be_printed() -> None:
    code = "import sys; from gconet.runtime.command_line import run; sys.exit(run(lambda _: print('\\udcff') or 0, []))"
    done = subprocess.run([sys.executable, "-c", code], env=environment(), capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout, done.stderr) == (0, "\\udcff\n", "")
