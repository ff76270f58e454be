"""The base class of networks that predict a text symbol by symbol."""

from abc import abstractmethod

from torch import Tensor, nn


class LanguageNetwork(nn.Module):
    """Base of causal networks of symbols 0..V-1 that read a text piece by piece."""

    @abstractmethod
    def forward(self, inputs: Tensor, state: Tensor) -> tuple[Tensor, Tensor]:
        """Logits `[N, W, V]` of the symbol after each of `inputs` int64 `[N, W]`, and the next state `[N, S]`.

        `state` float `[N, S]` is `initial_state` at a text's start and later the state returned for the previous piece.
        """

    @abstractmethod
    def initial_state(self, n: int) -> Tensor:
        """The state `[n, S]` before the first symbol of `n` texts, on the network's device."""
