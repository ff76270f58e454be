"""The joint confidence loss: its formulas, the gradients of its three networks, and a run that resumes exactly."""

import copy
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from scipy.special import expit, softmax
from scipy.stats import entropy
from torch import Tensor, nn
from torch.nn import functional as F

from tests.training.support.datasets_on_disk import checkers, stripes, tiny_recipe
from tests.training.support.interrupted_inputs import InterruptedInputs
from training.architectures.dcgan import Discriminator, Generator
from training.data import Batch, Examples, StoredArray
from training.errors import RecipeError
from training.fitting.stages import fit_stages
from training.fitting.weights import load_model
from training.models.classifier import Prediction
from training.objectives import JointConfidence
from training.objectives.joint_confidence import Player, discriminator_loss, generator_loss, kl_from_uniform
from training.recipe import parse_recipe
from training.run import Run

SHAPE = (16, 16, 3)


class Linear(nn.Module):
    """A classifier of pixels 0..255 into three classes."""

    def __init__(self) -> None:
        super().__init__()
        self.layer = nn.Linear(16 * 16 * 3, 3)

    def forward(self, images: Tensor) -> Prediction:
        return Prediction(self.layer(images.flatten(1) / 255))


def objective(**options: Any) -> JointConfidence:
    torch.manual_seed(5)
    return JointConfidence(SHAPE, **({"width": 4, "latent": 8} | options))


def batch(seed: int = 0, n: int = 6) -> Batch:
    generator = torch.Generator().manual_seed(seed)
    images = torch.randint(0, 256, (n, *SHAPE), generator=generator, dtype=torch.uint8)
    return Batch(images, torch.arange(n) % 3, None)


@given(n=st.integers(1, 9), k=st.integers(2, 12), beta=st.floats(0, 3), seed=st.integers(0, 2**16))
def test_the_three_losses_are_those_of_the_paper(n: int, k: int, beta: float, seed: int) -> None:
    rng = np.random.default_rng(seed)
    real, generated, logits = 3 * rng.normal(size=n), 3 * rng.normal(size=n), 4 * rng.normal(size=(n, k))
    divergence = np.mean([entropy(np.full(k, 1 / k), p) for p in softmax(logits, axis=1)])
    on_real, on_generated, of_classifier = (torch.from_numpy(array) for array in (real, generated, logits))
    assert float(kl_from_uniform(of_classifier)) == pytest.approx(divergence, rel=1e-9)
    expected = -np.log(expit(real)).mean() - np.log(1 - expit(generated)).mean()
    assert float(discriminator_loss(on_real, on_generated)) == pytest.approx(expected, rel=1e-9)
    expected = -np.log(expit(generated)).mean() + beta * divergence
    assert float(generator_loss(on_generated, of_classifier, beta)) == pytest.approx(expected, rel=1e-9)


def test_uniform_predictions_have_no_divergence_from_the_uniform_distribution() -> None:
    assert float(kl_from_uniform(torch.full((4, 7), 2.5))) == pytest.approx(0, abs=1e-6)


@pytest.mark.parametrize("size", [16, 28, 32])
@pytest.mark.parametrize("channels", [1, 3])
def test_the_gan_makes_and_classifies_images_of_the_given_size(size: int, channels: int) -> None:
    images = Generator(size, channels, latent=10, width=4)(5 * torch.randn(2, 10))
    assert images.shape == (2, channels, size, size)
    assert images.abs().max() <= 1
    assert Discriminator(size, channels, width=4)(images).shape == (2,)


def test_generated_images_have_the_shape_and_range_of_stored_images() -> None:
    images = objective().generate(3, torch.device("cpu"))
    assert images.shape == (3, *SHAPE)
    assert images.min() >= 0
    assert images.max() <= 255
    # An untrained generator's images are grey.
    assert float(images.mean()) == pytest.approx(127.5, abs=5)


def test_two_steps_equal_those_of_a_plain_training_loop() -> None:
    ours, classifier = objective(beta=0.7), Linear()
    g, d = copy.deepcopy(ours.generator.network), copy.deepcopy(ours.discriminator.network)
    g.requires_grad_(True)
    d.requires_grad_(True)
    adam_g, adam_d = (torch.optim.Adam(network.parameters(), lr=2e-4, betas=(0.5, 0.999)) for network in (g, d))
    torch.manual_seed(7)
    losses = [ours(classifier, batch(step)).value for step in range(2)]
    torch.manual_seed(7)
    for step, loss in enumerate(losses):
        images, targets, _ = batch(step)
        n = len(images)
        real = images.permute(0, 3, 1, 2) / 127.5 - 1
        fake = g(torch.randn(n, 8))
        loss_d = F.binary_cross_entropy(d(real).sigmoid(), torch.ones(n))
        (loss_d + F.binary_cross_entropy(d(fake.detach()).sigmoid(), torch.zeros(n))).backward()
        adam_d.step()
        loss_g = F.binary_cross_entropy(d(fake).sigmoid(), torch.ones(n))
        (loss_g + 0.7 * _divergence(classifier, fake)).backward()
        adam_g.step()
        adam_g.zero_grad()
        adam_d.zero_grad()
        expected = F.cross_entropy(classifier(images).logits, targets)
        expected = expected + 0.7 * _divergence(classifier, g(torch.randn(n, 8)))
        torch.testing.assert_close(loss, expected, rtol=1e-4, atol=1e-5)
    for player, network in ((ours.generator, g), (ours.discriminator, d)):
        for name, value in network.state_dict().items():
            torch.testing.assert_close(player.network.state_dict()[name], value, rtol=1e-3, atol=2e-5, msg=name)


def _divergence(classifier: Linear, images: Tensor) -> Tensor:
    log_p = F.log_softmax(classifier(127.5 * (images.permute(0, 2, 3, 1) + 1)).logits, dim=1)
    return F.kl_div(log_p, torch.full_like(log_p, 1 / 3), reduction="batchmean")


def test_the_loss_has_a_gradient_for_the_classifier_and_none_for_the_gan() -> None:
    joint, classifier = objective(), Linear()
    loss = joint(classifier, batch()).value
    assert all(p.grad is None for p in classifier.parameters())
    loss.backward()
    assert all(p.grad is not None for p in classifier.parameters())
    assert all(p.grad is None and not p.requires_grad for p in joint.parameters())


def test_a_step_changes_generator_and_discriminator_and_not_the_classifier() -> None:
    joint, classifier = objective(), Linear()
    before = copy.deepcopy((joint.state_dict(), classifier.state_dict()))
    joint(classifier, batch())
    for player in ("generator", "discriminator"):
        name = f"{player}.network.layers.0.weight"
        assert not torch.equal(joint.state_dict()[name], before[0][name])
    for name, value in classifier.state_dict().items():
        torch.testing.assert_close(value, before[1][name], rtol=0, atol=0)


@pytest.mark.parametrize("beta", [0.0, 5.0])
def test_the_generators_steps_lower_its_own_loss(beta: float) -> None:
    torch.manual_seed(1)
    generator, judge, classifier = Player(Generator(16, 3, 8, 8), 2e-3), Discriminator(16, 3, 4), Linear()
    noise, losses = torch.randn(32, 8), []
    for _ in range(25):
        with generator.learning():
            images = generator(noise)
            logits = classifier(127.5 * (images.permute(0, 2, 3, 1) + 1)).logits
            loss = generator_loss(judge(images), logits, beta)
            generator.step(loss)
        losses.append(float(loss.detach()))
    assert losses[-1] < 0.8 * losses[0]


def test_the_discriminator_learns_to_distinguish_generated_from_real_images() -> None:
    joint, classifier = objective(learning_rate=1e-3), Linear()
    x = torch.from_numpy(stripes(32, seed=1)[0])
    with torch.no_grad():
        for _ in range(30):
            with torch.enable_grad():
                joint(classifier, Batch(x, torch.zeros(32, dtype=torch.int64), None))
        real, generated = x.float(), joint.generate(32, torch.device("cpu"))
        logits = [joint.discriminator((images / 127.5 - 1).permute(0, 3, 1, 2)) for images in (real, generated)]
    assert float(logits[0].median()) > float(logits[1].median())


def test_training_moves_predictions_on_generated_images_towards_uniform() -> None:
    joint, classifier = objective(), Linear()
    nn.init.normal_(classifier.layer.weight, std=0.2)
    optimizer = torch.optim.SGD(classifier.parameters(), lr=0.02)
    divergences = []
    for step in range(30):
        with torch.no_grad():
            generated = joint.generate(64, torch.device("cpu"))
            divergences.append(float(kl_from_uniform(classifier(generated).logits)))
        optimizer.zero_grad()
        joint(classifier, batch(step)).value.backward()
        optimizer.step()
    assert divergences[-1] < 0.3 * divergences[0]


def test_a_restored_objective_takes_the_same_steps_as_the_original() -> None:
    classifier, original = Linear(), objective()
    original(classifier, batch(0))
    restored = JointConfidence(SHAPE, width=4, latent=8)
    restored.load_state_dict(copy.deepcopy(original.state_dict()))
    # Saved and restored again before any step, which must not lose the optimizer's state.
    restored_twice = JointConfidence(SHAPE, width=4, latent=8)
    restored_twice.load_state_dict(restored.state_dict())
    values = []
    for joint in (original, restored_twice):
        torch.manual_seed(3)
        values += [joint(classifier, batch(1)).value, joint(classifier, batch(2)).value]
    assert torch.equal(values[1], values[3])
    for name, value in original.generator.network.state_dict().items():
        torch.testing.assert_close(restored_twice.generator.network.state_dict()[name], value, rtol=0, atol=0, msg=name)


def test_adams_averages_follow_parameters_that_move_after_the_checkpoint_was_read() -> None:
    original = objective()
    original(Linear(), batch(0))
    restored = objective()
    restored.load_state_dict(original.state_dict())
    # A trainer loads the checkpoint on the CPU and then moves the model; here another type replaces the device.
    restored.double()
    with restored.discriminator.learning():
        images = torch.rand(4, 3, 16, 16, dtype=torch.float64)
        restored.discriminator.step(restored.discriminator(images).mean())
    (group,) = restored.discriminator.get_extra_state()["param_groups"]
    assert group["lr"] == 2e-4
    states = restored.discriminator.get_extra_state()["state"].values()
    assert {state["exp_avg"].dtype for state in states} == {torch.float64}
    assert {int(state["step"]) for state in states} == {2}


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")
def test_a_restored_objective_trains_on_the_gpu_that_it_is_moved_to() -> None:
    original = objective()
    original(Linear(), batch(0))
    restored = objective()
    restored.load_state_dict(original.state_dict())
    restored.cuda()
    x, y, _ = batch(1)
    assert restored(Linear().cuda(), Batch(x.cuda(), y.cuda(), None)).value.is_cuda


@pytest.mark.parametrize("shape", [(256,), (16, 32, 3), (31, 31, 3), (4, 4, 3)])
def test_input_shapes_that_a_dcgan_cannot_generate_are_refused(shape: tuple[int, ...]) -> None:
    with pytest.raises(ValueError, match=str(shape[0])):
        JointConfidence(shape)


def examples(n: int, seed: int) -> Examples:
    x, y = stripes(n, seed)
    return Examples(StoredArray(x), y, ("dark", "bright"), "stripes", "memory", "0")


def outliers(n: int) -> Examples:
    return Examples(StoredArray(checkers(n, 3)), None, (), "checkers", "memory", "1")


def start(path: Path, **joint: Any) -> Run:
    schedule = {"batch_size": 16, "learning_rate": 0.05}
    stages = {
        "joint_confidence": {"objective": {"name": "joint_confidence", "width": 4} | joint, "epochs": 3, **schedule},
        "oe": {
            "objective": {"name": "outlier_exposure"},
            "start_from": "joint_confidence",
            "epochs": 1,
            **schedule,
        },
    }
    recipe = tiny_recipe(stages=stages, evaluation={"ood": {"gaussian": {"synthetic": "gaussian"}}})
    return Run.create(path, parse_recipe(recipe, "test"), overwrite=False)


def test_a_recipe_trains_with_the_joint_loss_and_then_with_outlier_exposure(tmp_path: Path) -> None:
    run, in_dist = start(tmp_path / "run"), examples(160, 1)
    fit_stages(run, in_dist, outliers(80), resume=False, announce=lambda _: None)
    rows = np.arange(len(in_dist))
    with torch.inference_mode():
        logits = load_model(run, "oe", 2)(torch.from_numpy(in_dist.x[rows])).logits
    assert float((logits.argmax(dim=1).numpy() == in_dist.targets()).mean()) > 0.9


def test_an_interrupted_joint_stage_resumes_to_the_same_weights_bit_for_bit(tmp_path: Path) -> None:
    uninterrupted, interrupted, in_dist = start(tmp_path / "one"), start(tmp_path / "other"), examples(160, 1)
    fit_stages(uninterrupted, in_dist, outliers(80), resume=False, announce=lambda _: None)
    # An epoch takes ten reads.
    failing = replace(in_dist, x=InterruptedInputs(in_dist.x, reads_left=14))
    with pytest.raises(SystemExit):
        fit_stages(interrupted, failing, outliers(80), resume=False, announce=lambda _: None)
    fit_stages(interrupted, in_dist, outliers(80), resume=True, announce=lambda _: None)
    expected, resumed = (
        torch.load(run.checkpoint_path("joint_confidence"), weights_only=False)["state_dict"]
        for run in (uninterrupted, interrupted)
    )
    assert any(name.startswith("objective.generator") for name in expected)
    for name, value in expected.items():
        if isinstance(value, Tensor):
            torch.testing.assert_close(resumed[name], value, rtol=0, atol=0, msg=name)
    for player in ("generator", "discriminator"):
        key = f"objective.{player}._extra_state"
        torch.testing.assert_close(resumed[key]["state"], expected[key]["state"], rtol=0, atol=0)


def test_texts_are_refused_with_the_recipe_key_of_the_objective(tmp_path: Path) -> None:
    run = start(tmp_path / "run")
    texts = Examples(StoredArray(np.zeros((40, 7), dtype=np.int32)), np.arange(40) % 2, ("a", "b"), "texts", "m", "0")
    with pytest.raises(RecipeError, match=r"stages\.joint_confidence\.objective.*square images"):
        fit_stages(run, texts, outliers(20), resume=False, announce=lambda _: None)
