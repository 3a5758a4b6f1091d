"""The examples in docstrings are right, in every module."""

import doctest
import importlib
import pkgutil

import einsumc
import numpy as np
import pytest

MODULES = ["einsumc", *(m.name for m in pkgutil.walk_packages(einsumc.__path__, "einsumc."))]
PARTS = ("einsumc.compiler", "einsumc.runtime")  # an editable install also finds tests and scripts


@pytest.mark.filterwarnings("ignore:the matrix subclass")
@pytest.mark.parametrize("name", [n for n in MODULES if n == "einsumc" or n.startswith(PARTS)])
def test_examples(name):
    module = importlib.import_module(name)
    result = doctest.testmod(module, extraglobs={"np": np})
    assert result.failed == 0
