"""Every layer's formulas against gradients that are found by the definition.

Each layer's output is an affine function of each of its parameters. So the gradient of
`sum(g * output)` at one element of a parameter is what the output gains where that element alone
grows by one: no formula of a gradient is needed to check one.
"""

from collections.abc import Callable
from dataclasses import dataclass, replace

import numpy as np
import pytest
from einsumc import gradnorms
from einsumc.gradnorms import Layer
from sweeps import every, sweep

EXAMPLES = 3


@dataclass(frozen=True)
class Case:
    """A layer, its parameters, and how its output for one example follows from them."""

    layer: Layer
    parameters: dict[str, np.ndarray]
    forward: Callable[..., np.ndarray]  # (number of the example, **parameters)
    outputs: str = "outputs"

    def gradients(self) -> dict[str, np.ndarray]:
        """The gradient of every parameter for every example, by the definition."""
        g = np.asarray(getattr(self.layer, self.outputs))
        found = {}
        for name, value in self.parameters.items():
            gradient = np.empty((len(g), *value.shape))
            for n in range(len(g)):
                base = self.forward(n, **self.parameters)
                for place in np.ndindex(value.shape):
                    more = value.copy()
                    more[place] += 1
                    moved = self.forward(n, **{**self.parameters, name: more})
                    gradient[n, *place] = np.sum(g[n] * (moved - base))
            found[name] = gradient
        return found


def normal(*shape: int, seed: int = 0) -> np.ndarray:
    return np.random.default_rng([seed, *shape]).normal(size=shape)


def linear(*between: int, bias: bool = True, weight: bool = True) -> Case:
    x, g = normal(EXAMPLES, *between, 4), normal(EXAMPLES, *between, 2)
    parameters = {"weight": normal(2, 4)} if weight else {}
    if bias:
        parameters["bias"] = normal(2)

    def forward(n, weight=0.0, bias=0.0):
        return (x[n] @ weight.T if np.ndim(weight) else 0) + bias + 0 * g[n]

    return Case(gradnorms.Linear(g, x, bias=bias, weight=weight), parameters, forward)


def projection(bias: bool) -> Case:
    x, g = normal(EXAMPLES, 5, 4), normal(EXAMPLES, 5, 2, 3)
    parameters = {"weight": normal(2, 3, 4)} | ({"bias": normal(2, 3)} if bias else {})

    def forward(n, weight, bias=0.0):
        return np.einsum("hdi,ti->thd", weight, x[n]) + bias

    return Case(gradnorms.Projection(g, x, bias), parameters, forward)


def bilinear(*between: int) -> Case:
    left, right = normal(EXAMPLES, *between, 3), normal(EXAMPLES, *between, 2, seed=1)
    g = normal(EXAMPLES, *between, 4)

    def forward(n, weight, bias):
        return np.einsum("oij,...i,...j->...o", weight, left[n], right[n]) + bias

    parameters = {"weight": normal(4, 3, 2), "bias": normal(4)}
    return Case(gradnorms.Bilinear(g, left, right), parameters, forward)


def lora(scale: float) -> Case:
    x, g, down, up = normal(EXAMPLES, 5, 4), normal(EXAMPLES, 5, 3), normal(2, 4), normal(3, 2)

    def forward(n, down, up):
        return scale * (x[n] @ down.T) @ up.T

    layer = gradnorms.LoRA(g, x, down, up, scale)
    return Case(layer, {"down": down, "up": up}, forward)


def lstm() -> Case:
    x, states, g = normal(EXAMPLES, 5, 4), normal(EXAMPLES, 5, 3), normal(EXAMPLES, 5, 12)

    def forward(n, weight_ih, weight_hh, bias_ih, bias_hh):
        return x[n] @ weight_ih.T + states[n] @ weight_hh.T + bias_ih + bias_hh

    parameters = {"weight_ih": normal(12, 4), "weight_hh": normal(12, 3)}
    parameters |= {"bias_ih": normal(12), "bias_hh": normal(12)}
    return Case(gradnorms.LSTM(g, x, states), parameters, forward, outputs="gates")


def layer_norm(axes: int, bias: bool, *between: int) -> Case:
    shape = (4, 3)[:axes]
    x, g = normal(EXAMPLES, *between, *shape), normal(EXAMPLES, *between, *shape, seed=1)
    parameters = {"weight": normal(*shape)} | ({"bias": normal(*shape)} if bias else {})
    over = tuple(range(-axes, 0))

    def forward(n, weight, bias=0.0):
        z = (x[n] - x[n].mean(over, keepdims=True)) / np.sqrt(x[n].var(over, keepdims=True) + 1e-5)
        return weight * z + bias

    return Case(gradnorms.LayerNorm(g, x, axes, bias=bias), parameters, forward)


def rms_norm() -> Case:
    x, g = normal(EXAMPLES, 5, 4), normal(EXAMPLES, 5, 4, seed=1)

    def forward(n, weight):
        return weight * x[n] / np.sqrt(np.mean(x[n] ** 2, -1, keepdims=True) + 1e-6)

    return Case(gradnorms.RMSNorm(g, x), {"weight": normal(4)}, forward)


def group_norm(groups: int | None, *between: int) -> Case:
    x, g = normal(EXAMPLES, 4, *between), normal(EXAMPLES, 4, *between, seed=1)

    def forward(n, weight, bias):
        z = x[n].reshape(groups or 4, -1)
        z = (z - z.mean(1, keepdims=True)) / np.sqrt(z.var(1, keepdims=True) + 1e-5)
        rest = (4, *(1 for _ in between))
        return weight.reshape(rest) * z.reshape(x[n].shape) + bias.reshape(rest)

    layer = gradnorms.GroupNorm(g, x, groups)
    return Case(layer, {"weight": normal(4), "bias": normal(4)}, forward)


def embedding(*between: int) -> Case:
    ids = np.random.default_rng(5).integers(0, 3, (EXAMPLES, *between))
    g = normal(EXAMPLES, *between, 4)

    def forward(n, weight):
        return weight[ids[n]]

    return Case(gradnorms.Embedding(ids, g, rows=6), {"weight": normal(6, 4)}, forward)


def tied() -> Case:
    ids = np.random.default_rng(6).integers(0, 3, (EXAMPLES, 5))
    g, x, logits = normal(EXAMPLES, 5, 4), normal(EXAMPLES, 5, 4, seed=1), normal(EXAMPLES, 5, 6)
    layer = gradnorms.tied(ids, g, x, logits)

    def forward(n, weight):  # both outputs, weighted, in one
        return np.sum(g[n] * weight[ids[n]]) + np.sum(logits[n] * (x[n] @ weight.T))

    ones = replace(layer, outputs=layer.outputs)
    return Case(ones, {"weight": normal(6, 4)}, forward, outputs="ones")


CASES = {
    "linear": linear(),
    "linear, sequence": linear(5),
    "linear, picture": linear(2, 3),
    "linear without bias": linear(5, bias=False),
    "bias": linear(5, weight=False),
    "projection": projection(False),
    "projection with bias": projection(True),
    "bilinear": bilinear(),
    "bilinear, sequence": bilinear(5),
    "LoRA": lora(1.0),
    "LoRA, scaled": lora(0.25),
    "LSTM": lstm(),
    "layer norm": layer_norm(1, True),
    "layer norm, sequence": layer_norm(1, False, 5),
    "layer norm of two axes": layer_norm(2, True, 2, 3),
    "RMS norm": rms_norm(),
    "group norm": group_norm(2, 5),
    "group norm, picture": group_norm(2, 3, 2),
    "instance norm": group_norm(None, 5),
    "embedding": embedding(5),
    "embedding of a picture": embedding(2, 3),
    "tied embedding": tied(),
}


VARIANTS = {
    *("linear, picture", "projection", "bilinear", "LoRA", "layer norm", "layer norm of two axes"),
    *("instance norm", "embedding of a picture"),
}
"""Cases that others are much like."""

DISTINCT = [name for name in CASES if name not in VARIANTS]


def reference(case: Case) -> dict[str, np.ndarray]:
    if case.outputs == "ones":  # its forward function is a sum already
        object.__setattr__(case.layer, "ones", np.ones(EXAMPLES))
    return case.gradients()


def flat(gradients: dict[str, np.ndarray]) -> np.ndarray:
    return np.concatenate([g.reshape(len(g), -1) for g in gradients.values()], axis=1)


@pytest.mark.parametrize("name", sweep(CASES, lambda name: name in DISTINCT[::2]))
def test_squared_norms(name):
    expected = np.sum(flat(reference(CASES[name])) ** 2, axis=1)
    np.testing.assert_allclose(gradnorms.squared_norms(CASES[name].layer), expected, rtol=1e-10)


@pytest.mark.parametrize("name", sweep(CASES, lambda name: name in DISTINCT[1::4]))
def test_clipped_sums(name):
    gradients = reference(CASES[name])
    norms = np.linalg.norm(flat(gradients), axis=1)
    limit, weights = float(np.median(norms)), np.array([1.0, 0.5, 2.0])
    for given in (None, weights):
        factors = np.minimum(1, limit / norms) * (1 if given is None else given)
        sums = gradnorms.clipped_sums(CASES[name].layer, limit, given)
        assert sums.keys() == gradients.keys()
        for parameter, gradient in gradients.items():
            expected = np.einsum("n,n...->...", factors, gradient)
            np.testing.assert_allclose(sums[parameter], expected, rtol=1e-10, atol=1e-12)


@pytest.mark.parametrize("name", sweep(CASES, lambda name: name in DISTINCT[3::4]))
def test_dot_products(name):
    gradients = flat(reference(CASES[name]))
    products = gradnorms.dot_products(CASES[name].layer)
    np.testing.assert_allclose(products, gradients @ gradients.T, rtol=1e-10, atol=1e-10)


def some_layers() -> dict[str, Case]:
    return {name: CASES[name] for name in ("linear, sequence", "embedding", "layer norm")}


def test_several_layers():
    cases = some_layers()
    layers = {name: case.layer for name, case in cases.items()}
    gradients = {name: reference(case) for name, case in cases.items()}
    squares = {name: np.sum(flat(each) ** 2, axis=1) for name, each in gradients.items()}
    norms = np.sqrt(sum(squares.values()))

    by_layer = gradnorms.squared_norms_by_layer(layers)
    assert by_layer.keys() == squares.keys()
    for name, square in squares.items():
        np.testing.assert_allclose(by_layer[name], square)
    np.testing.assert_allclose(gradnorms.norms(layers), norms)
    limit = float(norms.mean())
    coefficients = gradnorms.clip_coefficients(layers, limit)
    np.testing.assert_allclose(coefficients, np.minimum(1, limit / norms))
    sums = gradnorms.clipped_sums(layers, limit)
    for name, each in gradients.items():
        for parameter, gradient in each.items():
            expected = np.einsum("n,n...->...", coefficients, gradient)
            np.testing.assert_allclose(sums[name][parameter], expected, atol=1e-12)


def test_dot_products_with_another_batch():
    case = CASES["linear, sequence"]
    other = gradnorms.Linear(normal(2, 7, 2), normal(2, 7, 4))
    theirs = np.einsum("nto,nti->noi", other.outputs, other.inputs)
    mine = reference(case)["weight"]
    bias = reference(case)["bias"] @ other.outputs.sum(1).T
    expected = np.einsum("noi,moi->nm", mine, theirs) + bias
    np.testing.assert_allclose(gradnorms.dot_products(case.layer, other), expected)


def test_norms_of_heads():
    layer = CASES["projection"].layer
    gradient = reference(CASES["projection"])["weight"]
    expected = np.einsum("nhdi,nhdi->nh", gradient, gradient)
    np.testing.assert_allclose(layer.squared_norms_per_head(), expected)
    np.testing.assert_allclose(gradnorms.squared_norms_per_head(layer), expected)


@pytest.mark.parametrize("dtype", ["f4", "f8"])
def test_the_dtype_is_that_of_the_arrays(dtype):
    layer = gradnorms.Linear(normal(3, 2).astype(dtype), normal(3, 4).astype(dtype))
    assert gradnorms.norms(layer).dtype == dtype
    assert gradnorms.clip_coefficients(layer, 1.0).dtype == dtype
    assert gradnorms.clipped_sums(layer, 1.0)["weight"].dtype == dtype


def test_a_gradient_of_zero_is_not_clipped():
    layer = gradnorms.Linear(np.zeros((2, 3)), np.ones((2, 4)))
    np.testing.assert_array_equal(gradnorms.clip_coefficients(layer, 1.0), [1, 1])


@pytest.mark.parametrize(
    ("layer", "message"),
    [
        (
            gradnorms.Linear(np.ones((2, 5, 3)), np.ones((2, 4))),
            r"Linear 'layer': outputs is \[n, ..., o\] and inputs is \[n, ..., i\], "
            r"but their shapes are \(2, 5, 3\) and \(2, 4\)",
        ),
        (
            gradnorms.LSTM(np.ones((2, 5, 8)), np.ones((2, 5)), np.ones((2, 5, 2))),
            r"LSTM 'layer': inputs is \[n, t, i\], but its shape is \(2, 5\)",
        ),
        (gradnorms.LoRA(*map(np.ones, [(2, 3), (2, 4), (5, 4), (3, 6)])), "down is .*and up is"),
    ],
)
def test_arrays_that_do_not_fit_are_one_clear_error(layer, message):
    with pytest.raises(ValueError, match=message):
        gradnorms.norms(layer)


def test_arrays_of_different_batches():
    layer = gradnorms.Linear(np.ones((2, 3)), np.ones((5, 4)))
    with pytest.raises(ValueError, match=r"Linear 'fc' counts examples, but outputs has 2"):
        gradnorms.norms({"fc": layer})


EMPTY = {
    "linear": lambda n: gradnorms.Linear(np.ones((n, 2, 3, 4)), np.ones((n, 2, 3, 5))),
    "group norm": lambda n: gradnorms.GroupNorm(np.ones((n, 4, 3)), np.ones((n, 4, 3)), 2),
    "layer norm": lambda n: gradnorms.LayerNorm(np.ones((n, 2, 3, 4)), np.ones((n, 2, 3, 4))),
    "embedding": lambda n: gradnorms.Embedding(np.ones((n, 2, 3), int), np.ones((n, 2, 3, 4)), 5),
    "convolution": lambda n: gradnorms.Convolution(np.ones((n, 2, 3)), np.ones((n, 2, 5)), 3),
}


@pytest.mark.parametrize("kind", every(3, EMPTY))
def test_a_batch_of_no_examples(kind):
    """Batches that are drawn example by example are empty now and then."""
    layer, one = EMPTY[kind](0), EMPTY[kind](1)
    assert gradnorms.norms(layer).shape == (0,)
    assert gradnorms.dot_products(layer).shape == (0, 0)
    expected = gradnorms.clipped_sums(one, 1.0)
    for name, found in gradnorms.clipped_sums(layer, 1.0).items():
        assert found.shape == expected[name].shape
        assert not found.any()


def test_no_layers():
    with pytest.raises(ValueError, match="there are no layers"):
        gradnorms.norms({})


def test_an_embedding_of_unknown_length():
    layer = gradnorms.Embedding(np.zeros((2, 3), int), np.ones((2, 3, 4)))
    gradnorms.norms(layer)
    with pytest.raises(ValueError, match="needs rows="):
        gradnorms.clipped_sums(layer, 1.0)
