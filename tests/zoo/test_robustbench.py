import inspect
import re

import numpy as np
import pytest

from robust_zoo import architectures
from robust_zoo.porting import PortError, find_published, published


def test_published_models_can_be_ported():
    known = published()
    assert len(known) >= 40
    assert {part.dataset for part in known} == {"cifar10", "cifar100", "imagenet"}
    assert len({part.handle for part in known}) == len(known)
    for part in known:
        allowed = inspect.signature(getattr(architectures, part.architecture)).parameters
        assert set(part.options) <= set(allowed), part.name
        assert 0 < part.autoattack < part.clean < 100 or part.name == "Standard"
        assert part.license in ("MIT", "Apache-2.0", "BSD-3-Clause"), part.name
        assert part.sources
        assert all(
            re.fullmatch(r"hf://[\w.-]+/[\w.-]+:[\w./-]+|https://\S+", place)
            for place in part.sources
        )
        assert part.central_crop == (0.875 if part.dataset == "imagenet" else 1)
        assert find_published(part.handle) == part


def test_handles():
    for handle, norm in (
        ("robustbench:Rice2020Overfitting", "linf"),
        ("robustbench:cifar10/l2/Rice2020Overfitting", "l2"),
        ("robustbench:CIFAR10/L2/rice2020overfitting", "l2"),
        ("robustbench:wang2023better_wrn_28_10", "linf"),
    ):
        assert find_published(handle).norm == norm
    for handle, message in (
        (
            "robustbench:Gowal2020Uncovering",
            "robustbench:cifar10/l2/Gow.* or robustbench:cifar100/",
        ),
        ("robustbench:Rice2020", "such as Rice2020Overfitting"),
        ("Rice2020Overfitting", "handle must be robustbench:NAME"),
        (
            "robustbench:Ding2020MMA",
            "Ding2020MMA is left out: the license .* forbids commercial use",
        ),
    ):
        with pytest.raises(PortError, match=message):
            find_published(handle)


@pytest.mark.long
def test_their_networks_have_as_many_parameters():
    small = {}
    for part in published():
        if part.parameters < 30e6:
            small[part.architecture, part.parameters] = part
    assert len(small) >= 8
    for part in small.values():
        model = getattr(architectures, part.architecture)(**part.options)
        count = sum(int(np.prod(variable.shape)) for variable in model.trainable_variables)
        assert count == part.parameters, part.name
