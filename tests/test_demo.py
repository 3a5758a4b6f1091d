"""examples/digits_norms.py: its network, norms and picture, on a few digits or random data."""

import importlib.util
import sys
from pathlib import Path

import numpy as np
import pytest

SCRIPT = Path(__file__).parents[1] / "examples" / "digits_norms.py"


@pytest.fixture(scope="module")
def demo():
    """The example as a module."""
    if not SCRIPT.is_file():
        pytest.skip("the examples are not here")
    spec = importlib.util.spec_from_file_location("digits_norms", SCRIPT)
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module  # dataclasses look their module up
    spec.loader.exec_module(module)
    yield module
    del sys.modules[spec.name]


@pytest.fixture
def random_digits():
    random = np.random.default_rng(0)
    return random.uniform(size=(50, 64)), random.integers(0, 10, 50)


def passes(demo, network, images, labels):
    inputs, scores = demo.forward(network, images)
    return inputs, demo.backward(network, inputs, scores, labels)


def test_norms_are_those_of_one_backward_pass_per_example(demo, random_digits):
    network = demo.random_network(demo.SIZES)
    norms = demo.gradient_norms(*passes(demo, network, *random_digits))
    slow = demo.slow_norms(network, *random_digits)
    assert demo.largest_difference(norms, slow) <= demo.TOLERANCE


def test_the_check_finds_one_wrong_norm(demo, random_digits):
    network = demo.random_network(demo.SIZES)
    slow = demo.slow_norms(network, *random_digits)
    wrong = slow.copy()
    wrong[7] *= 1 + 1e-9
    assert demo.largest_difference(wrong, slow) > demo.TOLERANCE


def test_gradients_are_those_of_finite_differences(demo, random_digits):
    """Independent of both ways to the norms: change a weight, and see what the loss does."""
    images, labels = random_digits
    network = demo.random_network(demo.SIZES)

    def loss():
        _, scores = demo.forward(network, images)
        picked = scores[np.arange(len(labels)), labels]
        return np.sum(np.log(np.exp(scores).sum(axis=1)) - picked)

    inputs, gradients = passes(demo, network, images, labels)
    for layer, a, b in zip(network, inputs, gradients, strict=True):
        for parameter, gradient in ((layer.weights, a.T @ b), (layer.bias, b.sum(axis=0))):
            place = np.unravel_index(np.abs(gradient).argmax(), gradient.shape)
            before, step = parameter[place], 1e-5
            parameter[place] = before + step
            above = loss()
            parameter[place] = before - step
            below = loss()
            parameter[place] = before
            assert gradient[place] == pytest.approx((above - below) / (2 * step), rel=1e-6)


def test_all_methods_agree(demo):
    random = np.random.default_rng(0)
    b, a = random.standard_normal((20, 6)), random.standard_normal((20, 9))
    expected = [np.sum(np.outer(one, other) ** 2) for one, other in zip(b, a, strict=True)]
    for name, method in demo.METHODS.items():
        np.testing.assert_allclose(method(b, a), expected, rtol=1e-12, err_msg=name)


def test_real_digits_are_learnt(demo):
    pytest.importorskip("sklearn", reason="the digits come with scikit-learn (extra: demo)")
    images, labels = (array[:300] for array in demo.load_digits())
    network = demo.train(images, labels, steps=100)
    _, scores = demo.forward(network, images)
    assert np.mean(scores.argmax(axis=1) == labels) > 0.9
    again = demo.train(images, labels, steps=100)
    assert all(np.array_equal(x.weights, y.weights) for x, y in zip(network, again, strict=True))
    norms = demo.gradient_norms(*passes(demo, network, images, labels))
    assert demo.largest_difference(norms, demo.slow_norms(network, images, labels)) < 1e-10


def test_picture_is_drawn(demo, random_digits, tmp_path):
    pytest.importorskip("matplotlib", reason="pictures need matplotlib (extra: demo)")
    images, labels = random_digits
    path = tmp_path / "new" / "picture.png"
    demo.draw(path, images, np.linspace(1, 2, len(images)), labels, labels[::-1])
    assert path.read_bytes().startswith(b"\x89PNG")
