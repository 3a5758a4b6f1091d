"""examples/edge_filters.py: filters, a layer's gradients by loops, a network's by slopes."""

import importlib.util
from pathlib import Path

import numpy as np
import pytest

SCRIPT = Path(__file__).parents[1] / "examples" / "edge_filters.py"


@pytest.fixture(scope="module")
def example():
    """The example as a module."""
    if not SCRIPT.is_file():
        pytest.skip("the examples are not here")
    spec = importlib.util.spec_from_file_location("edge_filters", SCRIPT)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.fixture
def noise():
    return np.random.default_rng(0).random((3, 140, 250), "f4")


def test_results_are_what_loops_and_numpy_make_of_them(example, noise):
    errors = example.worst_errors(noise)
    assert len(errors) == 8
    assert max(errors.values()) < 1e-5


def test_the_networks_gradients_are_slopes(example):
    """What NumPy computes from the same text says nothing of the text: so the slope is measured."""
    random = np.random.default_rng(2)
    shapes = {"images": (2, 3, 7, 6), "first": (5, 3, 3, 3), "second": (4, 5, 3, 3)}
    operands = {name: random.standard_normal(shape) for name, shape in shapes.items()}
    wanted = random.standard_normal((2, 4, 7, 6))
    gradients = example.network(**operands, wanted=wanted)
    for name, values in operands.items():
        way = random.standard_normal(values.shape)
        ahead, behind = (
            example.network(**operands | {name: values + step * way}, wanted=wanted)["distance"]
            for step in (1e-6, -1e-6)
        )
        slope = (ahead - behind) / 2e-6
        np.testing.assert_allclose((gradients[name] * way).sum(), slope, rtol=1e-5)


def test_the_blur_is_done_in_two_passes(example, noise):
    passes = example.longest_steps(noise[0])
    assert [each.count("*") for each in passes] == [1, 1]
    assert sorted(each.split("sum_")[1][:2] for each in passes) == ["k ", "l "]


def test_edges_are_where_the_picture_changes(example):
    picture = np.zeros((40, 50), "f4")
    picture[:, 20:] = 1
    along_rows, along_columns = example.differences(picture, example.sobel())
    inner = np.s_[1:-1, 1:-1]  # around the picture there are zeros
    assert {*np.nonzero(along_rows[inner])[1] + 1} == {19, 20}
    assert not along_columns[inner].any()


def test_a_filter_answers_to_stripes_at_its_angle(example):
    y, x = np.mgrid[:80, :80]
    angles = np.arange(8) * np.pi / 8
    across = x * np.cos(angles[3]) + y * np.sin(angles[3])
    stripes = np.cos(2 * np.pi * across / 6).astype("f4")
    answers = np.abs(example.bank(stripes, example.gabor(angles)))[:, 20:-20, 20:-20]
    assert answers.max(axis=(1, 2)).argmax() == 3


def test_the_picture_is_drawn(example, noise, tmp_path):
    pytest.importorskip("matplotlib")
    example.draw(noise, tmp_path / "filters.png")
    assert (tmp_path / "filters.png").read_bytes().startswith(b"\x89PNG")
