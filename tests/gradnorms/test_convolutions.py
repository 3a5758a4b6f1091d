"""Gradient norms of convolutions, against gradients by their definition and by autograd."""

from dataclasses import dataclass
from itertools import product

import numpy as np
import pytest
from einsumc import gradnorms
from sweeps import every

EXAMPLES = 2


@dataclass(frozen=True)
class Setting:
    """A convolution: its kind, and what is the same along all axes."""

    transposed: bool
    axes: int
    stride: int
    padding: int
    dilation: int
    groups: int
    depthwise: bool = False

    def __str__(self):
        kind = f"{'transposed ' * self.transposed}{self.axes}-D"
        groups = "depthwise" if self.depthwise else f"groups {self.groups}"
        numbers = f"stride {self.stride}, padding {self.padding}, dilation {self.dilation}"
        return f"{kind}, {numbers}, {groups}"

    @property
    def kernel(self):
        return (3, 2, 3)[: self.axes]

    @property
    def pixels(self):
        return (7, 8, 6)[: self.axes]

    @property
    def channels(self):
        if self.depthwise:
            return 3, 6
        return 2 * self.groups, 3 * self.groups

    def arrays(self, seed=0):
        """Gradients at the outputs, and inputs."""
        rng = np.random.default_rng(seed)
        ours, theirs = self.channels
        shape = []
        for have, taps in zip(self.pixels, self.kernel, strict=True):
            reach = self.dilation * (taps - 1) + 1
            if self.transposed:
                shape.append((have - 1) * self.stride + reach - 2 * self.padding)
            else:
                shape.append((have + 2 * self.padding - reach) // self.stride + 1)
        outputs = rng.normal(size=(EXAMPLES, theirs, *shape))
        return outputs, rng.normal(size=(EXAMPLES, ours, *self.pixels))

    def layer(self, seed=0, **options):
        kind = gradnorms.TransposedConvolution if self.transposed else gradnorms.Convolution
        return kind(
            *self.arrays(seed),
            kernel=self.kernel,
            stride=self.stride,
            padding=self.padding,
            dilation=self.dilation,
            groups=self.groups,
            **options,
        )


def settings():
    for transposed, axes, stride, padding, dilation in product(
        (0, 1), (1, 2, 3), (1, 2), (0, 1), (1, 2)
    ):
        for groups, depthwise in ((1, False), (2, False), (3, True)):
            yield Setting(bool(transposed), axes, stride, padding, dilation, groups, depthwise)


def gradients(setting, outputs, inputs):
    """By the definition: tap by tap, with zeros around the image."""
    image, windows = (outputs, inputs) if setting.transposed else (inputs, outputs)
    pad = [(0, 0)] * 2 + [(setting.padding, setting.padding + 8)] * setting.axes
    image = np.pad(image, pad)
    ours, theirs = windows.shape[1] // setting.groups, image.shape[1] // setting.groups
    weight = np.zeros((EXAMPLES, windows.shape[1], theirs, *setting.kernel))
    for taps in np.ndindex(*setting.kernel):
        under = image[
            (slice(None),) * 2
            + tuple(
                slice(
                    setting.dilation * tap,
                    setting.dilation * tap + setting.stride * count,
                    setting.stride,
                )
                for tap, count in zip(taps, windows.shape[2:], strict=True)
            )
        ]
        for group in range(setting.groups):
            mine = slice(group * ours, (group + 1) * ours)
            other = slice(group * theirs, (group + 1) * theirs)
            products = np.einsum("na...,nb...->nab...", windows[:, mine], under[:, other])
            total = products.sum(axis=tuple(range(3, products.ndim)))
            weight[(slice(None), mine, slice(None), *taps)] = total
    return {"weight": weight, "bias": outputs.sum(axis=tuple(range(2, outputs.ndim)))}


def by_autograd(setting, outputs, inputs):
    """The same by PyTorch, one example after the other."""
    import torch

    name = f"conv{'_transpose' * setting.transposed}{setting.axes}d"
    function = getattr(torch.nn.functional, name)
    ours, theirs = setting.channels
    shape = (ours, theirs) if setting.transposed else (theirs, ours)
    weight = torch.zeros(
        (shape[0], shape[1] // setting.groups, *setting.kernel),
        dtype=torch.float64,
        requires_grad=True,
    )
    bias = torch.zeros(theirs, dtype=torch.float64, requires_grad=True)
    found = {"weight": [], "bias": []}
    for g, x in zip(outputs, inputs, strict=True):
        y = function(
            torch.from_numpy(x[None]),
            weight,
            bias,
            stride=setting.stride,
            padding=setting.padding,
            dilation=setting.dilation,
            groups=setting.groups,
        )
        gradient = torch.autograd.grad(y, (weight, bias), torch.from_numpy(g[None]))
        for name, each in zip(found, gradient, strict=True):
            found[name].append(each.numpy())
    return {name: np.stack(each) for name, each in found.items()}


def flat(gradients):
    return np.concatenate([g.reshape(len(g), -1) for g in gradients.values()], axis=1)


ALL = list(settings())
SOME = [each for n, each in enumerate(ALL) if n % 7 == 3]


@pytest.mark.slow
@pytest.mark.parametrize("setting", ALL, ids=str)
def test_definition_and_autograd(setting):
    pytest.importorskip("torch")
    expected = by_autograd(setting, *setting.arrays())
    for name, gradient in gradients(setting, *setting.arrays()).items():
        np.testing.assert_allclose(gradient, expected[name], rtol=1e-10, atol=1e-12)


def check_squared_norms(setting):
    expected = np.sum(flat(gradients(setting, *setting.arrays())) ** 2, axis=1)
    np.testing.assert_allclose(gradnorms.squared_norms(setting.layer()), expected, rtol=1e-10)


@pytest.mark.parametrize("setting", every(2, SOME), ids=str)
def test_squared_norms(setting):
    check_squared_norms(setting)


@pytest.mark.slow
@pytest.mark.parametrize("setting", ALL, ids=str)
def test_squared_norms_of_every_kind(setting):
    check_squared_norms(setting)


@pytest.mark.parametrize("setting", every(2, SOME[::3]), ids=str)
def test_clipped_sums(setting):
    expected = gradients(setting, *setting.arrays())
    norms = np.linalg.norm(flat(expected), axis=1)
    limit, weights = float(norms.mean()), np.array([1.0, 0.5])
    factors = np.minimum(1, limit / norms) * weights
    sums = gradnorms.clipped_sums(setting.layer(), limit, weights)
    for name, gradient in expected.items():
        total = np.einsum("n,n...->...", factors, gradient)
        np.testing.assert_allclose(sums[name], total, rtol=1e-10, atol=1e-12)


@pytest.mark.parametrize("setting", every(2, SOME[1::3]), ids=str)
def test_dot_products(setting):
    mine = flat(gradients(setting, *setting.arrays()))
    theirs = flat(gradients(setting, *setting.arrays(seed=1)))
    layer, other = setting.layer(), setting.layer(seed=1)
    np.testing.assert_allclose(gradnorms.dot_products(layer, other), mine @ theirs.T, atol=1e-9)


@pytest.mark.parametrize("setting", SOME[2::3], ids=str)
def test_gradients(setting):
    expected = gradients(setting, *setting.arrays())
    found = setting.layer().gradients()
    assert found.keys() == expected.keys()
    for name, gradient in expected.items():
        np.testing.assert_allclose(found[name], gradient, rtol=1e-10, atol=1e-12)
    assert setting.layer(bias=False).gradients().keys() == {"weight"}


def test_layers_of_a_network():
    rng = np.random.default_rng(0)
    conv = Setting(False, 2, 2, 1, 1, 1)
    layers = {
        "conv": conv.layer(),
        "fc": gradnorms.Linear(rng.normal(size=(2, 5)), rng.normal(size=(2, 7))),
    }
    weight = np.einsum("no,ni->noi", layers["fc"].outputs, layers["fc"].inputs)
    squares = {
        "conv": np.sum(flat(gradients(conv, *conv.arrays())) ** 2, axis=1),
        "fc": np.sum(weight**2, axis=(1, 2)) + np.sum(layers["fc"].outputs ** 2, axis=1),
    }
    found = gradnorms.squared_norms_by_layer(layers)
    for name, expected in squares.items():
        np.testing.assert_allclose(found[name], expected)
    np.testing.assert_allclose(gradnorms.norms(layers) ** 2, sum(squares.values()))


def test_numbers_for_each_axis():
    rng = np.random.default_rng(0)
    x, g = rng.normal(size=(2, 3, 9, 8)), rng.normal(size=(2, 4, 5, 8))
    layer = gradnorms.Convolution(
        g, x, kernel=(3, 5), stride=(2, 1), padding=(1, 4), dilation=(1, 2)
    )
    padded = np.pad(x, ((0, 0), (0, 0), (1, 1), (4, 4)))
    expected = np.zeros((2, 4, 3, 3, 5))
    for k, l in np.ndindex(3, 5):
        under = padded[:, :, k : k + 9 : 2, 2 * l : 2 * l + 8]
        expected[..., k, l] = np.einsum("noyx,ncyx->noc", g, under)
    np.testing.assert_allclose(layer.gradients()["weight"], expected)


def test_same_and_valid():
    rng = np.random.default_rng(0)
    x = rng.normal(size=(2, 3, 9))
    same = gradnorms.Convolution(x, x, kernel=4, padding="same", dilation=2)
    padded = np.pad(x, ((0, 0), (0, 0), (3, 3)))
    under = np.stack([padded[..., 2 * k : 2 * k + 9] for k in range(4)], axis=-1)
    expected = np.einsum("nox,ncxk->nock", x, under)
    np.testing.assert_allclose(same.gradients()["weight"], expected)
    g = rng.normal(size=(2, 5, 6))
    valid = gradnorms.Convolution(g, x, kernel=4, padding="valid")
    assert np.isfinite(gradnorms.norms(valid)).all()


@pytest.mark.parametrize(
    ("shapes", "options", "message"),
    [
        (((2, 4, 5), (2, 3, 9)), {"kernel": 3}, r"'fc': axis 2 has 5 windows, but 7 of 3 fit in 9"),
        (((2, 4, 8), (2, 3, 9)), {"kernel": 3}, r"axis 2 has 8 windows, but 7 of 3 fit in 9"),
        (((2, 4, 7), (2, 3, 9, 9)), {"kernel": 3}, "as many axes each"),
        (((2, 4, 7), (2, 3, 9)), {"kernel": 3, "groups": 2}, "3 channels are not in 2 groups"),
        (((2, 4, 7), (2, 3, 9)), {"kernel": (3, 3)}, "kernel has 2 numbers for 1 axes"),
        (((2, 4, 7), (2, 3, 9)), {"kernel": 3, "padding": "full"}, "not 'full'"),
        (((2, 4, 9), (2, 3, 9)), {"kernel": 3, "padding": "same", "stride": 2}, "stride of 1"),
        (((3, 4, 7), (2, 3, 9)), {"kernel": 3}, "counts examples, but outputs has 3"),
    ],
)
def test_what_does_not_fit(shapes, options, message):
    layer = gradnorms.Convolution(*map(np.ones, shapes), **options)
    with pytest.raises(ValueError, match=message):
        gradnorms.norms({"fc": layer})
