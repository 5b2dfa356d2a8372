"""Every public function's errors are in its docstring, and those it names are errors a user can be shown."""

from __future__ import annotations

import inspect
import re
from collections.abc import Callable, Iterator

import pytest

import gconet.runtime as gr
from gconet.runtime.errors import GconetError

# What raises nothing of its own: records, and attributes of them.
SILENT = {
    "Bundle",
    "Bundle.graphs",
    "Consensus",
    "ConsensusBuilder.__len__",
    "Detector",
    "Detector.streams",
    "Manifest",
    "Manifest.to_json",
    "Preprocessing",
}
ALIKE = re.compile(
    r"see `(\w+)`|[Aa]s for `(\w+)`|errors are those of `(\w+)`|errors are raised as there", re.IGNORECASE
)


def public_functions() -> Iterator[tuple[str, Callable[..., object]]]:
    """Functions and classes of `gconet.runtime`, and the public methods of the classes, inherited ones too."""
    for name in gr.__all__:
        value = getattr(gr, name)
        if inspect.isclass(value) and issubclass(value, Exception):
            continue
        yield name, value
        if inspect.isclass(value):
            ours = (base for base in reversed(value.__mro__) if base.__module__.startswith("gconet."))
            for method, function in {name: entry for base in ours for name, entry in vars(base).items()}.items():
                if isinstance(function, staticmethod):
                    function = function.__func__
                if inspect.isfunction(function) and not method.startswith("_"):
                    yield f"{name}.{method}", function


FUNCTIONS = dict(public_functions())


def errors_named(text: str) -> set[str]:
    """Names of exceptions in a docstring."""
    return set(re.findall(r"\b[A-Z]\w*Error\b", text))


@pytest.mark.parametrize("name", FUNCTIONS)
def test_errors_are_told(name: str) -> None:
    text = " ".join((inspect.getdoc(FUNCTIONS[name]) or "").split())
    assert text
    if name not in SILENT:
        assert errors_named(text) or ALIKE.search(text) or "The same" in text, f"{name} does not tell its errors"


@pytest.mark.parametrize("name", FUNCTIONS)
def test_errors_that_are_told_exist(name: str) -> None:
    for error in errors_named(inspect.getdoc(FUNCTIONS[name]) or ""):
        known = getattr(gr, error, None) or getattr(__import__("builtins"), error, None)
        assert isinstance(known, type)
        assert issubclass(known, GconetError | KeyError | TypeError | ValueError)


@pytest.mark.parametrize("name", FUNCTIONS)
def test_what_a_function_raises_itself_it_tells(name: str) -> None:
    function = FUNCTIONS[name]
    if inspect.isclass(function):
        return
    raised = set(re.findall(r"\braise (\w+Error)\b", inspect.getsource(function)))
    caught = {error for error in raised if not issubclass(getattr(gr, error, ValueError), GconetError)}
    assert raised - caught <= errors_named(inspect.getdoc(function) or ""), f"{name} raises {raised}"
