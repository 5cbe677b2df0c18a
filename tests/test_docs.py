"""The examples in docstrings run, and every public name has one or needs none."""

import doctest
import importlib
import inspect
import pkgutil

import pytest

import simota_triton

MODULES = sorted(
    name
    for _, name, is_package in pkgutil.walk_packages(simota_triton.__path__, "simota_triton.")
    if not is_package and not name.endswith("__main__")
)
WITHOUT_EXAMPLE = {"AssignSummary", "ImageAssignment", "assign"}
"""Records that a call returns, and a call that is another in one line."""


def modules():
    for name in ["simota_triton", *MODULES]:
        try:
            yield importlib.import_module(name)
        except ImportError as error:  # an optional package that a module is about, such as mmdet
            if (error.name or "").startswith("simota_triton"):
                raise


def test_examples_run():
    flags = doctest.NORMALIZE_WHITESPACE | doctest.FAIL_FAST
    attempted = 0
    for module in modules():
        found = doctest.testmod(module, extraglobs={"torch": __import__("torch")}, optionflags=flags)
        assert not found.failed, module.__name__
        attempted += found.attempted
    assert attempted > 20


@pytest.mark.parametrize("name", simota_triton.__all__)
def test_public_names_say_what_they_are_and_show_it(name):
    thing = getattr(simota_triton, name)
    text = inspect.getdoc(thing)
    assert text
    if name not in WITHOUT_EXAMPLE:
        assert ">>>" in text, name


def test_public_functions_describe_all_their_arguments():
    for name in simota_triton.__all__:
        thing = getattr(simota_triton, name)
        if name in WITHOUT_EXAMPLE or not callable(thing):
            continue
        text = inspect.getdoc(thing) + (
            inspect.getdoc(thing.__call__) or "" if inspect.isclass(thing) else ""
        )
        for argument in inspect.signature(thing).parameters:
            if "Arguments as" not in text:
                assert f"{argument}:" in text or f"``{argument}``" in text, (name, argument)
