"""Components: built by name or dotted path, refused by the key that is wrong."""

import pytest

from training.architectures import ARCHITECTURES, SmallConvNet
from training.errors import RecipeError
from training.recipe import Component, build_component


def component(**values: object) -> Component:
    return Component.model_validate(values)


def test_a_registered_name_gets_its_options() -> None:
    network = build_component(
        "architecture", component(name="small_conv", width=5), ARCHITECTURES, num_classes=3, channels=1
    )
    assert isinstance(network, SmallConvNet)
    assert network.classifier.in_features == 20


def test_a_dotted_path_builds_any_module() -> None:
    network = build_component(
        "architecture", component(name="torch.nn.Linear", in_features=2, out_features=3), ARCHITECTURES
    )
    assert network.weight.shape == (3, 2)


@pytest.mark.parametrize(
    ("values", "named"),
    [
        ({"name": "narrow_resnet"}, "architecture.name.*wide_resnet"),
        ({"name": "torch.nn.NoSuchLayer"}, "architecture.name"),
        ({"name": "no_such_package.Net"}, "architecture.name"),
        ({"name": "wide_resnet", "widht": 2}, "architecture.widht.*widen_factor"),
        ({"name": "wide_resnet", "depth": 41}, "6n"),
    ],
)
def test_what_cannot_be_built_is_refused_with_the_alternatives(values: dict[str, object], named: str) -> None:
    with pytest.raises(RecipeError, match=named):
        build_component("architecture", component(**values), ARCHITECTURES, num_classes=3, channels=3)
