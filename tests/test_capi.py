"""libgconet.so from C and C++: the examples' maps are Python's to the bit, threads, plugins, environments, memory."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import sysconfig
from collections.abc import Callable, Mapping
from pathlib import Path

import numpy as np
import pytest
from capi_build import STRICT, Compile, compiler_for, flags_of
from PIL import Image

import gconet.runtime as gr
from gconet.bench import capi_startup
from gconet.runtime import command_line
from gconet.runtime.capi import build
from gconet.runtime.cli import main
from gconet.runtime.preprocess import FloatArray, Photo, to_bytes

BundleMaker = Callable[[str, str], Path]
HERE = Path(__file__).resolve().parent
EXAMPLES = build.HERE / "examples"
SITE_PACKAGES = Path(sysconfig.get_paths()["purelib"])


@pytest.fixture(params=["onnxruntime", "openvino"])
def bundle(request: pytest.FixtureRequest, tiny_bundle: BundleMaker) -> Path:
    """A tiny fp32 bundle of each target."""
    return tiny_bundle(request.param, "fp32")


@pytest.fixture
def ppms(example_photos: list[Photo], tmp_path: Path) -> list[Path]:
    """Three photos of different sizes as C reads them."""
    (tmp_path / "maps").mkdir()
    paths = []
    for index, photo in enumerate(example_photos[4:7]):
        path = tmp_path / f"{index}.ppm"
        Image.fromarray(photo[: 90 + 10 * index, : 151 - 7 * index]).save(path)
        paths.append(path)
    magic, size, rest = paths[1].read_bytes().split(b"\n", 2)
    paths[1].write_bytes(b"\n".join([magic, b"# a comment", size, rest]))
    return paths


def run(*command: str | Path, **environment: str) -> subprocess.CompletedProcess[str]:
    """Run a program as from a shell that knows nothing of this project."""
    inherited = {name: value for name, value in os.environ.items() if not name.startswith(("PYTHON", "GCONET"))}
    return subprocess.run(
        [str(part) for part in command],
        env={**inherited, **environment}, capture_output=True, text=True, timeout=300, check=False,
    )  # fmt: skip


def read_pfm(path: Path) -> FloatArray:
    magic, size, scale, values = path.read_bytes().split(b"\n", 3)
    assert magic == b"Pf"
    width, height = map(int, size.split())
    floats = np.frombuffer(values, "<f4" if float(scale) < 0 else ">f4").reshape(height, width)
    return floats[::-1]


def check_maps(folder: Path, photos: list[Path], maps: list[FloatArray]) -> None:
    """The files are these maps, to the bit."""
    for photo, saliency in zip(photos, maps, strict=True):
        np.testing.assert_array_equal(read_pfm(folder / f"{photo.stem}.pfm"), saliency)
        np.testing.assert_array_equal(np.asarray(Image.open(folder / f"{photo.stem}.pgm")), to_bytes(saliency))
    assert len({saliency.shape for saliency in maps}) == len(maps)
    assert all(np.ptp(saliency) > 0.01 for saliency in maps)  # the comparison means something


def arrays(paths: list[Path]) -> list[Photo]:
    return [np.asarray(Image.open(path)) for path in paths]


# The examples


def test_the_c_examples_maps_are_pythons_to_the_bit(
    bundle: Path, ppms: list[Path], compile_c: Compile, tmp_path: Path
) -> None:
    done = run(compile_c(EXAMPLES / "detect.c"), bundle, tmp_path / "maps", *ppms)
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")
    check_maps(tmp_path / "maps", ppms, gr.load(bundle).detect(arrays(ppms)))


def test_the_cpp_examples_maps_are_pythons_to_the_bit(
    bundle: Path, ppms: list[Path], compile_c: Compile, tmp_path: Path
) -> None:
    done = run(compile_c(EXAMPLES / "detect.cpp"), bundle, tmp_path / "maps", *ppms[:2], "--", ppms[2])
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")
    detector, photos = gr.load(bundle), arrays(ppms)
    found = detector.segment(photos[2:], detector.consensus(photos[:2]))
    check_maps(tmp_path / "maps", ppms, [*detector.detect(photos[:2]), *found])


@pytest.mark.parametrize("source", ["detect.c", "detect.cpp"])
def test_examples_tell_what_is_wrong_in_one_line(
    source: str, tiny_bundle: BundleMaker, ppms: list[Path], compile_c: Compile, tmp_path: Path
) -> None:
    program, bundle = compile_c(EXAMPLES / source), tiny_bundle("onnxruntime", "fp32")
    (tmp_path / "short.ppm").write_bytes(ppms[0].read_bytes()[:-1])
    (tmp_path / "text.ppm").write_text("P3\n1 1\n255\n1 2 3\n")
    for arguments, complaint in [
        ((), "usage: "),
        ((tmp_path / "absent.gconet", tmp_path, ppms[0]), "no bundle at "),
        ((bundle, tmp_path, tmp_path / "short.ppm"), "short.ppm ends too early"),
        ((bundle, tmp_path, tmp_path / "text.ppm"), "text.ppm is no binary PPM of 8 bits"),
        ((bundle, tmp_path / "absent", ppms[0]), "written" if source == "detect.c" else "cannot write"),
    ]:
        done = run(program, *arguments)
        assert (done.returncode, done.stdout) == (2, "")
        assert complaint in done.stderr
        assert done.stderr.count("\n") == 1


def test_the_readmes_example_compiles(capi: dict[str, Path], tmp_path: Path) -> None:
    source, readme = tmp_path / "readme.c", (HERE.parent / "README.md").read_text("utf-8")
    source.write_text(readme.split("```c\n")[1].split("```")[0], "utf-8")
    command = [*compiler_for(source), *STRICT, "-c", source, "-o", tmp_path / "readme.o", *flags_of(capi)[:1]]
    done = run(*command)
    assert (done.returncode, done.stderr) == (0, "")


def test_cmake_finds_and_builds_the_examples(
    capi: dict[str, Path], tiny_bundle: BundleMaker, ppms: list[Path], tmp_path: Path
) -> None:
    if shutil.which("cmake") is None or shutil.which("g++") is None:
        pytest.skip("needs cmake and g++")
    prefix, moved = capi["header"].parents[1], tmp_path / "moved"
    shutil.copytree(prefix, moved, symlinks=True)  # the files name no folder
    configured = run("cmake", "-S", EXAMPLES, "-B", tmp_path / "cmake", f"-DCMAKE_PREFIX_PATH={moved}")
    assert configured.returncode == 0, configured.stderr
    compiled = run("cmake", "--build", tmp_path / "cmake")
    assert compiled.returncode == 0, compiled.stdout + compiled.stderr
    bundle = tiny_bundle("onnxruntime", "fp32")
    done = run(tmp_path / "cmake" / "detect", bundle, tmp_path / "maps", *ppms)
    assert (done.returncode, done.stderr) == (0, "")
    check_maps(tmp_path / "maps", ppms, gr.load(bundle).detect(arrays(ppms)))


# Hosts


def test_eight_threads_share_a_detector(bundle: Path, compile_c: Compile) -> None:
    done = run(compile_c(HERE / "capi_threads.c"), bundle)
    assert (done.returncode, done.stdout, done.stderr) == (0, "ok\n", "")


def test_a_plugin_whose_symbols_nobody_sees_works(
    capi: dict[str, Path], tiny_bundle: BundleMaker, compile_c: Compile
) -> None:
    program = compile_c(HERE / "capi_plugin.c")
    done = run(program, capi["library"], tiny_bundle("onnxruntime", "fp32"))
    assert (done.returncode, done.stdout, done.stderr) == (0, "GCONET_OK \n", "")


def test_a_python_that_is_missing_or_lacks_the_packages_is_an_error(
    capi: dict[str, Path], tiny_bundle: BundleMaker, compile_c: Compile, tmp_path: Path
) -> None:
    command = compile_c(HERE / "capi_plugin.c"), capi["library"], tiny_bundle("onnxruntime", "fp32")
    subprocess.run([sys.executable, "-m", "venv", "--without-pip", tmp_path / "bare"], check=True)
    bare = str(tmp_path / "bare" / "bin" / "python")
    for environment, complaint in [
        (
            {"GCONET_PYTHON": str(tmp_path / "absent")},
            f"there is no Python at {tmp_path / 'absent'}; set GCONET_PYTHON",
        ),
        ({"GCONET_PYTHON": bare}, f"{bare} has no usable gconet-deploy[capi] (No module named '_cffi_backend'); set"),
    ]:
        done = run(*command, **environment)
        assert (done.returncode, done.stderr) == (1, "")
        assert done.stdout.startswith(f"GCONET_ERROR_PYTHON {complaint}")
    folders = os.pathsep.join([*build.source_folders(), str(SITE_PACKAGES)])
    done = run(*command, GCONET_PYTHON=bare, GCONET_PYTHONPATH=folders)
    assert (done.returncode, done.stdout) == (0, "GCONET_OK \n")


def test_a_hosts_own_python_settings_do_not_matter(
    capi: dict[str, Path], tiny_bundle: BundleMaker, compile_c: Compile, tmp_path: Path
) -> None:
    (tmp_path / "numpy.py").write_text("raise SystemExit('the wrong numpy')")
    command = compile_c(HERE / "capi_plugin.c"), capi["library"], tiny_bundle("onnxruntime", "fp32")
    done = run(*command, PYTHONPATH=str(tmp_path), PYTHONHOME=str(tmp_path), PYTHONVERBOSE="1", LC_ALL="C")
    assert (done.returncode, done.stdout, done.stderr) == (0, "GCONET_OK \n", "")


@pytest.mark.slow
def test_address_sanitizer_finds_nothing(tiny_bundle: BundleMaker, compile_c: Compile, tmp_path: Path) -> None:
    """The library and a program of eight threads, leaks looked for too; `lsan.supp` lists the interpreter's own."""
    flags = ["-fsanitize=address", "-fno-omit-frame-pointer", "-g"]
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("CFLAGS", " ".join(flags))
        files = build.build(tmp_path / "asan")
    # The sanitizer looks for C++'s throw when the program starts, and takes SIGSEGV unless told not to.
    flags += ["-Wl,--no-as-needed", "-lstdc++"]
    environment = {
        "ASAN_OPTIONS": "detect_leaks=1:handle_segv=0",
        "LSAN_OPTIONS": f"suppressions={build.HERE / 'lsan.supp'}:print_suppressions=0",
        "TBB_ENABLE_SANITIZERS": "1",  # OpenVINO's threads, which else load a library in a way that it forbids
    }
    program = compile_c(HERE / "capi_threads.c", flags, files)
    for target in ("onnxruntime", "openvino"):
        done = run(program, tiny_bundle(target, "fp32"), **environment)
        assert (done.returncode, done.stdout, done.stderr) == (0, "ok\n", "")
    leaky = compile_c(HERE / "capi_threads.c", [*flags, "-DLEAKY"], files)
    done = run(leaky, tiny_bundle("onnxruntime", "fp32"), **environment)
    assert (done.returncode, done.stdout) != (0, "ok\n")
    assert "LeakSanitizer: detected memory leaks" in done.stderr  # so that the above means something


# The command


def test_the_command_builds_and_does_not_overwrite_unasked(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], capi: dict[str, Path]
) -> None:
    out = tmp_path / "out"
    assert main(["build-capi", "--out", str(out)]) == 0
    assert str(out / "include" / "gconet.h") in capsys.readouterr().out
    found = {path.relative_to(out) for path in out.rglob("*") if not path.is_dir()}
    assert found == {path.relative_to(out) for path in build.files_of(out).values()}
    assert (out / "lib" / "libgconet.so").readlink() == Path("libgconet.so.1")
    assert capi.keys() == build.files_of(out).keys()
    with pytest.raises(gr.UsageError, match=r"gconet\.h exists already: .*--overwrite"):
        main(["build-capi", "--out", str(out)])
    assert main(["build-capi", "--out", str(out), "--overwrite"]) == 0


@pytest.mark.parametrize(
    ("environment", "complaint"),
    [
        ({"CC": "no-such-compiler"}, r"no C compiler no-such-compiler: .*CC"),
        ({"CFLAGS": "-include no/such/header.h"}, r"cannot compile libgconet\.so, it says: .*no/such/header\.h"),
    ],
    ids=["none", "fails"],
)
def test_a_compiler_that_is_missing_or_fails_is_one_line_and_leaves_nothing(
    environment: Mapping[str, str],
    complaint: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capi: dict[str, Path],  # noqa: ARG001 (skips where nothing can be built)
) -> None:
    for name, value in environment.items():
        monkeypatch.setenv(name, value)
    with pytest.raises(gr.TargetError, match=complaint) as caught:
        build.build(tmp_path / "out")
    assert "\n" not in str(caught.value)
    assert not (tmp_path / "out").exists()


def test_a_python_without_a_shared_library_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(build.sysconfig, "get_config_var", {"LDLIBRARY": "libpython3.11.a"}.get)
    with pytest.raises(gr.TargetError, match=r"no shared library to embed \(libpython3\.11\.a\): .*python3-dev"):
        build.python_library()


def test_without_cffi_the_extra_is_named(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setitem(sys.modules, "cffi", None)
    monkeypatch.setattr(
        build, "python_library", lambda: build.PythonLibrary(Path("/lib/libpython3.so"), "libpython3.so")
    )
    assert command_line.run(main, ["build-capi", "--out", str(tmp_path / "out")]) == 2
    assert capsys.readouterr().err == "gconet: cffi cannot be imported: pip install 'gconet-deploy[capi]'\n"


def test_the_flags_are_pkg_configs(capi: dict[str, Path]) -> None:
    if shutil.which("pkg-config") is None:
        pytest.skip("needs pkg-config")
    assert f"-L{capi['library'].parent}" in [os.path.normpath(flag) if flag[:2] == "-L" else flag
                                             for flag in flags_of(capi)]  # fmt: skip
    told = run("pkg-config", "--modversion", "gconet", PKG_CONFIG_PATH=str(capi["pkg-config"].parent))
    assert told.stdout.strip() == build.version()


def test_the_bench_of_starting_runs_both_programs_step_by_step(
    tiny_bundle: BundleMaker,
    tmp_path: Path,
    capi: dict[str, Path],  # noqa: ARG001 (skips where nothing can be built)
) -> None:
    bundle = str(tiny_bundle("onnxruntime", "fp32"))
    arguments = ["--bundle", bundle, "--group", "1", "--rounds", "1", "--json", str(tmp_path / "startup.json")]
    assert capi_startup.main(arguments) == 0
    told = json.loads((tmp_path / "startup.json").read_text())
    assert told["medians"].keys() == {"C", "Python"}
    for figures in told["medians"].values():
        for unit in ("s", "cpu_s"):
            steps = [figures[f"{step}_{unit}"] for step in capi_startup.STEPS]
            assert steps == sorted(steps)
            assert steps[0] > 0
        assert figures["peak_rss_mb"] > 10
    assert "/" not in told["command"].replace("bench/capi_startup.py", "")  # no folder of this machine


def test_peak_memory_is_told_in_a_million_bytes() -> None:
    start = capi_startup.measure([sys.executable, "-c", "print('1 ' * 8, 10**6)"])  # KiB
    assert start.peak_rss_mb == pytest.approx(1024)
