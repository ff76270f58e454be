r"""The joint confidence loss (Lee, Lee, Lee & Shin, ICLR 2018, equation 4 and algorithm 1): outliers from a GAN.

    min_G max_D min_f  E_in[-log f_y(x)] + beta * E_G[KL(U || f(x'))] + E_in[log D(x)] + E_G[log(1 - D(x'))]

Each step trains three networks. The discriminator D learns to distinguish training images from generated ones. The
generator G learns to make images that D takes for training images and on which the classifier f predicts uniformly;
such images lie near the boundary of the data. Then f learns to predict uniformly on them.
As in the authors' code, G maximises log D(x') instead of minimising log(1 - D(x')), whose gradient vanishes early.
"""

import copy
import math
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from training.architectures.dcgan import Discriminator, Generator
from training.data.pairing import Batch
from training.objectives.objective import Forward, Loss, not_negative
from training.objectives.outlier_exposure import uniform_cross_entropy

_BETAS = (0.5, 0.999)
_IMAGE_DIMENSIONS = 3


def kl_from_uniform(logits: Tensor) -> Tensor:
    """KL(U || softmax(logits)) in nats, averaged over the batch: a scalar from `[M, K]`, 0 for uniform predictions."""
    return uniform_cross_entropy(logits) - math.log(logits.shape[1])


def discriminator_loss(real: Tensor, generated: Tensor) -> Tensor:
    """-E[log D(x)] - E[log(1 - D(x'))], a scalar from D's logits `[N]` of real and `[M]` of generated images."""
    return F.softplus(-real).mean() + F.softplus(generated).mean()


def generator_loss(generated: Tensor, logits: Tensor, beta: float) -> Tensor:
    """-E[log D(x')] + beta KL(U || f(x')): a scalar from D's logits `[M]` and f's `[M, K]` of generated images."""
    return F.softplus(-generated).mean() + beta * kl_from_uniform(logits)


class Player(nn.Module):
    """One of the GAN's networks with its Adam optimizer; the checkpoint contains both.

    The parameters require gradients only inside `learning`, so that the classifier's backward pass, its optimizer and
    its distributed wrapper ignore them.
    """

    def __init__(self, network: nn.Module, learning_rate: float) -> None:
        super().__init__()
        self.network = network.requires_grad_(False)
        self._optimizer = torch.optim.Adam(network.parameters(), lr=learning_rate, betas=_BETAS)
        self._restored: dict[str, Any] | None = None

    def forward(self, inputs: Tensor) -> Tensor:
        """The network's outputs for `inputs`, computed in float32 in any precision of the classifier."""
        with torch.autocast(inputs.device.type, enabled=False):
            outputs: Tensor = self.network(inputs)
        return outputs

    @contextmanager
    def learning(self) -> Iterator[None]:
        """Record forward passes inside the block, so that `step` can differentiate them."""
        self.network.requires_grad_(True)
        try:
            yield
        finally:
            self.network.requires_grad_(False)

    def step(self, loss: Tensor) -> None:
        """Take one step on `loss`, a scalar computed inside `learning`; no other parameter gets a gradient from it."""
        if self._restored is not None:
            # Not done in set_extra_state: the state is moved to the device of the parameters, which may still change.
            self._optimizer.load_state_dict(self._restored)
            self._restored = None
        parameters = list(self.network.parameters())
        gradients = torch.autograd.grad(loss, parameters)
        for parameter, gradient in zip(parameters, gradients, strict=True):
            parameter.grad = _averaged(gradient)
        self._optimizer.step()
        self._optimizer.zero_grad()

    def get_extra_state(self) -> dict[str, Any]:
        """The optimizer's state."""
        return self._optimizer.state_dict() if self._restored is None else self._restored

    def set_extra_state(self, state: dict[str, Any]) -> None:
        """Restore the optimizer's state at the next step."""
        self._restored = copy.deepcopy(state)


class JointConfidence(nn.Module):
    """The joint confidence loss; `forward` also trains its generator and discriminator (DCGANs).

    The classifier gets generated images as floats 0..255, without JPEG compression.

    Args:
        input_shape: The shape of the images, (H, W, C), with H = W.
        beta: The weight of both KL terms.
        latent: The length of the noise vector.
        width: The width of the DCGANs.
        learning_rate: Adam's learning rate for both DCGANs.
    """

    uses_outliers = False
    uses_confidence = False

    def __init__(
        self,
        input_shape: tuple[int, ...] = (32, 32, 3),
        beta: float = 1.0,
        latent: int = 100,
        width: int = 64,
        learning_rate: float = 2e-4,
    ) -> None:
        super().__init__()
        if len(input_shape) != _IMAGE_DIMENSIONS or input_shape[0] != input_shape[1]:
            raise ValueError(f"the GAN makes square images [H, W, C], the inputs are {list(input_shape)}")
        size, _, channels = input_shape
        self.beta = not_negative("beta", beta)
        self.latent = latent
        self.generator = Player(Generator(size, channels, latent, width), learning_rate)
        self.discriminator = Player(Discriminator(size, channels, width), learning_rate)

    def forward(self, forward: Forward, batch: Batch) -> Loss:
        """The classifier's loss of the in-distribution part of `batch`, after a step of D and a step of G."""
        images = batch.x_in.float()
        n = len(images)
        with self.generator.learning():
            generated = self.generate(n, images.device)
            self._step_discriminator(images, generated.detach())
            self._step_generator(forward, images, generated)
        in_dist, of_generated = forward(torch.cat((images, self.generate(n, images.device)))).split(n)
        loss = F.cross_entropy(in_dist.logits, batch.y_in) + self.beta * kl_from_uniform(of_generated.logits)
        return Loss(loss, in_dist.logits)

    def generate(self, n: int, device: torch.device) -> Tensor:
        """`n` new images, float 0..255 `[n, H, W, C]`; draws from torch's generator."""
        images: Tensor = self.generator(torch.randn(n, self.latent, device=device))
        return (127.5 * (images + 1)).permute(0, 2, 3, 1)

    def _discriminate(self, images: Tensor) -> Tensor:
        """D's logits `[N]` of images `[N, H, W, C]`."""
        logits: Tensor = self.discriminator((images / 127.5 - 1).permute(0, 3, 1, 2))
        return logits

    def _step_discriminator(self, images: Tensor, generated: Tensor) -> None:
        with self.discriminator.learning():
            # Two separate batches, as DCGAN's batch normalisation requires.
            self.discriminator.step(discriminator_loss(self._discriminate(images), self._discriminate(generated)))

    def _step_generator(self, forward: Forward, images: Tensor, generated: Tensor) -> None:
        # In one batch with real images: the classifier's batch normalisation would otherwise use, and store in its
        # running averages, the statistics of generated images alone.
        _, of_generated = forward(torch.cat((images, generated))).split(len(images))
        self.generator.step(generator_loss(self._discriminate(generated), of_generated.logits, self.beta))


def _averaged(gradient: Tensor) -> Tensor:
    """The mean of `gradient` over the processes of a distributed run, so that all take the same step."""
    if torch.distributed.is_available() and torch.distributed.is_initialized():
        torch.distributed.all_reduce(gradient)
        gradient /= torch.distributed.get_world_size()
    return gradient
