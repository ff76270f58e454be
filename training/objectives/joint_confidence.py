r"""The joint confidence loss (Lee, Lee, Lee & Shin, ICLR 2018, equation 4 and algorithm 1): outliers from a GAN.

    min_G max_D min_f  E_in[-log f_y(x)] + beta * E_G[KL(U || f(x'))] + E_in[log D(x)] + E_G[log(1 - D(x'))]

Each step trains the discriminator D to tell training images from generated ones, then the generator G to fool D while
the classifier f is unsure of its images, which draws them to the boundary of the data, then f to be unsure of them.
Like the authors' code G maximises log D(x') instead of minimising log(1 - D(x')), whose gradient vanishes early.
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
    """One of the GAN's networks with the Adam optimizer that trains it, both a part of the checkpoint.

    Its parameters require a gradient only inside `step`: no other backward pass, no other optimizer and no
    distributed wrapper of the classifier's task ever sees them.
    """

    def __init__(self, network: nn.Module, learning_rate: float) -> None:
        super().__init__()
        self.network = network.requires_grad_(False)
        self._optimizer = torch.optim.Adam(network.parameters(), lr=learning_rate, betas=_BETAS)
        self._restored: dict[str, Any] | None = None

    def forward(self, inputs: Tensor) -> Tensor:
        """What the network makes of `inputs`, in float32 whatever precision the classifier is trained in."""
        with torch.autocast(inputs.device.type, enabled=False):
            outputs: Tensor = self.network(inputs)
        return outputs

    @contextmanager
    def learning(self) -> Iterator[None]:
        """Within, a forward pass is recorded for `step`."""
        self.network.requires_grad_(True)
        try:
            yield
        finally:
            self.network.requires_grad_(False)

    def step(self, loss: Tensor) -> None:
        """Lower `loss`, a scalar made under `learning`, by one step; no other parameter gets a gradient of it."""
        if self._restored is not None:
            # Not when the checkpoint is read: Adam's averages follow the parameters only to where they are then.
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
        """Take up the optimizer's state with the next step."""
        self._restored = copy.deepcopy(state)


class JointConfidence(nn.Module):
    """The joint confidence loss, its generator and discriminator (DCGANs) trained along inside `forward`.

    `input_shape` is that of the images, (H, W, C). `latent` is the length of the noise, `width` that of the DCGANs,
    `learning_rate` Adam's for both. Generated images go to the classifier as floats 0..255, not through JPEG.
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
        inside, outside = forward(torch.cat((images, self.generate(n, images.device)))).split(n)
        loss = F.cross_entropy(inside.logits, batch.y_in) + self.beta * kl_from_uniform(outside.logits)
        return Loss(loss, inside.logits)

    def generate(self, n: int, device: torch.device) -> Tensor:
        """`n` new images, float 0..255 `[n, H, W, C]`; draws from torch's generator."""
        images: Tensor = self.generator(torch.randn(n, self.latent, device=device))
        return (127.5 * (images + 1)).permute(0, 2, 3, 1)

    def _judge(self, images: Tensor) -> Tensor:
        """D's logits `[N]` of images `[N, H, W, C]`."""
        logits: Tensor = self.discriminator((images / 127.5 - 1).permute(0, 3, 1, 2))
        return logits

    def _step_discriminator(self, images: Tensor, generated: Tensor) -> None:
        with self.discriminator.learning():
            # A batch each, as DCGAN's batch normalisation needs it.
            self.discriminator.step(discriminator_loss(self._judge(images), self._judge(generated)))

    def _step_generator(self, forward: Forward, images: Tensor, generated: Tensor) -> None:
        # Beside real images: by itself, a batch of generated ones would be normalised by its own statistics and leave
        # them in the classifier's running averages.
        _, outside = forward(torch.cat((images, generated))).split(len(images))
        self.generator.step(generator_loss(self._judge(generated), outside.logits, self.beta))


def _averaged(gradient: Tensor) -> Tensor:
    """The gradient's mean over the processes of a distributed run: every one of them takes the same step."""
    if torch.distributed.is_available() and torch.distributed.is_initialized():
        torch.distributed.all_reduce(gradient)
        gradient /= torch.distributed.get_world_size()
    return gradient
