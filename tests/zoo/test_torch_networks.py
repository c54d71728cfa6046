"""Residual networks beside definitions of their own in PyTorch, with the same random weights."""

import keras
import numpy as np
import pytest
from keras import ops

from robust_zoo import architectures

torch = pytest.importorskip("torch")
nn = torch.nn
MEAN, DEVIATION = (0.4914, 0.4822, 0.4465), (0.2471, 0.2435, 0.2616)


def conv(a, b, size, strides=1):
    return nn.Conv2d(a, b, size, strides, size // 2, bias=False)


class WideBlock(nn.Module):
    def __init__(self, a, b, strides, activation, at_end):
        super().__init__()
        self.norm0, self.norm1 = nn.BatchNorm2d(a), nn.BatchNorm2d(b)
        self.conv0, self.conv1 = conv(a, b, 3, strides), conv(b, b, 3)
        self.shortcut = conv(a, b, 1, strides) if a != b else None
        self.activation, self.at_end = activation, at_end and strides > 1
        if self.at_end:
            self.conv0.padding = (0, 0)

    def residual(self, x):
        x = self.activation(self.norm0(x))
        x = nn.functional.pad(x, (0, 1, 0, 1)) if self.at_end else x
        return self.conv1(self.activation(self.norm1(self.conv0(x))))

    def forward(self, x):
        before = self.activation(self.norm0(x))
        return self.residual(x) + (x if self.shortcut is None else self.shortcut(before))


class Wide(nn.Module):
    def __init__(self, depth, width, activation, at_end):
        super().__init__()
        self.stem, self.activation, a = conv(3, 16, 3), activation, 16
        self.stages = nn.ModuleList()
        for stage in range(3):
            b, blocks = 16 * width * 2**stage, nn.ModuleList()
            for block in range((depth - 4) // 6):
                strides = 2 if stage and not block else 1
                blocks.append(WideBlock(a, b, strides, activation, at_end))
                a = b
            self.stages.append(blocks)
        self.norm, self.logits = nn.BatchNorm2d(a), nn.Linear(a, 10)

    def forward(self, x):
        x = self.stem(x)
        for blocks in self.stages:
            for block in blocks:
                x = block(x)
        return self.logits(self.activation(self.norm(x)).mean((2, 3)))


class Pre(nn.Module):
    """PreActResNet-18, with what its namesakes differ in."""

    def __init__(self, width, activation, shortcut, final_norm, at_end):
        super().__init__()
        self.stem, self.activation, self.shortcut = conv(3, width, 3), activation, shortcut
        self.stages, a = nn.ModuleList(), width
        for stage in range(4):
            b, blocks = width * 2**stage, nn.ModuleList()
            for block in range(2):
                strides = 2 if stage and not block else 1
                made = WideBlock(a, b, strides, activation, at_end)
                if made.shortcut is not None and shortcut == "raw 3x3":
                    made.shortcut = nn.Conv2d(a, b, 3, strides, bias=False)
                blocks.append(made)
                a = b
            self.stages.append(blocks)
        self.norm = nn.BatchNorm2d(a) if final_norm else None
        self.logits = nn.Linear(a, 10)

    def forward(self, x):
        x = self.stem(x)
        for block in (block for blocks in self.stages for block in blocks):
            beside = x
            if block.shortcut is not None:
                beside = self.activation(block.norm0(x)) if self.shortcut == "activated" else x
                if self.shortcut == "raw 3x3":
                    beside = nn.functional.pad(beside, (0, 1, 0, 1))
                beside = block.shortcut(beside)
            x = block.residual(x) + beside
        x = x if self.norm is None else self.activation(self.norm(x))
        return self.logits(x.mean((2, 3)))


class Residual(nn.Module):
    def __init__(self, a, inside, b, strides, bottleneck):
        super().__init__()
        shapes = [(a, inside, 3, strides), (inside, b, 3, 1)]
        if bottleneck:
            shapes = [(a, inside, 1, 1), (inside, inside, 3, strides), (inside, b, 1, 1)]
        self.convs = nn.ModuleList(conv(*shape) for shape in shapes)
        self.norms = nn.ModuleList(nn.BatchNorm2d(shape[1]) for shape in shapes)
        self.shortcut = None
        if strides > 1 or a != b:
            self.shortcut = nn.Sequential(conv(a, b, 1, strides), nn.BatchNorm2d(b))

    def forward(self, x):
        before = x
        for number, (convolution, norm) in enumerate(zip(self.convs, self.norms, strict=True)):
            x = norm(convolution(x))
            x = x.relu() if number < len(self.convs) - 1 else x
        return (x + (before if self.shortcut is None else self.shortcut(before))).relu()


class ResNet(nn.Module):
    def __init__(self, blocks, width, bottleneck, large):
        super().__init__()
        self.stem = nn.Conv2d(3, width, 7, 2, 3, bias=False) if large else conv(3, width, 3)
        self.norm, self.large, a = nn.BatchNorm2d(width), large, width
        self.stages = nn.ModuleList()
        for stage, count in enumerate(blocks):
            inside = width * 2**stage
            b, made = inside * (4 if bottleneck else 1), nn.ModuleList()
            for block in range(count):
                strides = 2 if stage and not block else 1
                made.append(Residual(a, inside, b, strides, bottleneck))
                a = b
            self.stages.append(made)
        self.logits = nn.Linear(a, 10)

    def forward(self, x):
        x = self.norm(self.stem(x)).relu()
        x = nn.functional.max_pool2d(x, 3, 2, 1) if self.large else x
        for made in self.stages:
            for block in made:
                x = block(x)
        return self.logits(x.mean((2, 3)))


def of_wide(name):
    """The module of a layer of `wide_resnet`, as a path."""
    if not name.startswith("stage"):
        return name
    stage, block, part = name.split("_")
    return f"stages.{stage[5:]}.{block[5:]}.{part}"


def of_resnet(name):
    if name in ("stem", "logits"):
        return name
    if name == "stem_norm":
        return "norm"
    stage, block, part, *norm = name.split("_")
    place = f"stages.{stage[5:]}.{block[5:]}"
    if part == "shortcut":
        return f"{place}.shortcut.{len(norm)}"
    return f"{place}.{'norms' if norm else 'convs'}.{part[4:]}"


def randomise(module):
    """Weights and statistics that tell every tensor from every other."""
    generator = torch.Generator().manual_seed(0)
    for name, value in module.state_dict().items():
        if value.is_floating_point():
            drawn = torch.rand(value.shape, generator=generator)
            if value.ndim > 1:
                drawn = (drawn - 0.5) * (12 / value[0].numel()) ** 0.5
            elif name.endswith(("weight", "var")):
                drawn = 0.5 + drawn
            value.copy_(drawn)


def copied(module, model, place):
    """The module's weights in the layers of the model."""
    left = {name for name in module.state_dict() if not name.endswith("tracked")}
    state = module.state_dict()
    for layer in model.layers:
        if not layer.weights:
            continue
        kinds = ("weight", "bias", "running_mean", "running_var")
        names = [f"{place(layer.name)}.{kind}" for kind in kinds[: max(len(layer.weights), 1)]]
        values = [state[name].cpu().numpy() for name in names]
        if values[0].ndim == 4:
            values[0] = values[0].transpose(2, 3, 1, 0)
        elif values[0].ndim == 2:
            values[0] = values[0].T
        layer.set_weights(values)
        left -= set(names)
    assert not left


CASES = {
    "TRADES's wide ResNet": (
        lambda: Wide(16, 2, torch.relu, at_end=False),
        lambda **options: architectures.wide_resnet(depth=16, width=2, **options),
        of_wide,
        32,
    ),
    "DeepMind's wide ResNet": (
        lambda: Wide(10, 1, nn.functional.silu, at_end=True),
        lambda **options: architectures.wide_resnet(
            depth=10, width=1, activation="silu", border="end", **options
        ),
        of_wide,
        32,
    ),
    "Rice's PreActResNet-18": (
        lambda: Pre(4, torch.relu, "activated", final_norm=True, at_end=False),
        lambda **options: architectures.preact_resnet(width=4, **options),
        of_wide,
        32,
    ),
    "Wong's PreActResNet-18": (
        lambda: Pre(4, torch.relu, "raw", final_norm=False, at_end=False),
        lambda **options: architectures.preact_resnet(
            width=4, shortcut="raw", final_norm=False, **options
        ),
        of_wide,
        32,
    ),
    "DeepMind's PreActResNet-18": (
        lambda: Pre(4, nn.functional.silu, "raw 3x3", final_norm=True, at_end=True),
        lambda **options: architectures.preact_resnet(
            width=4, activation="silu", shortcut="raw 3x3", border="end", **options
        ),
        of_wide,
        32,
    ),
    "ResNet-18": (
        lambda: ResNet((2, 2, 2, 2), 4, bottleneck=False, large=False),
        lambda **options: architectures.resnet(width=4, **options),
        of_resnet,
        32,
    ),
    "torchvision's ResNet-50": (
        lambda: ResNet((3, 4, 6, 3), 4, bottleneck=True, large=True),
        lambda **options: architectures.resnet(depth=50, width=4, stem="large", **options),
        of_resnet,
        64,
    ),
}


@pytest.mark.long
@pytest.mark.parametrize("name", CASES)
def test_logits_are_those_of_pytorch(name):
    make, build, place, side = CASES[name]
    module = make().eval()
    images = np.random.default_rng(0).random((3, side, side, 3), dtype="float32")
    model = build(input_shape=(side, side, 3), mean=MEAN, deviation=DEVIATION)
    with torch.no_grad():
        randomise(module)
        copied(module, model, place)
        tensor = torch.from_numpy((images - np.float32(MEAN)) / np.float32(DEVIATION))
        expected = module.to("cpu")(tensor.permute(0, 3, 1, 2)).numpy()
        found = ops.convert_to_numpy(model(images))
    scale = np.abs(expected).max()
    assert np.abs(found - expected).max() < 1e-4 * scale
    assert expected.std() > 1e-3 * scale
    again = keras.models.model_from_json(model.to_json())
    assert again.count_params() == model.count_params()
