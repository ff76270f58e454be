"""The language network: what a language model needs of an architecture that predicts a text symbol by symbol."""

from abc import abstractmethod

from torch import Tensor, nn


class LanguageNetwork(nn.Module):
    """Base of causal networks of symbols 0..V-1 that read a text in pieces."""

    @abstractmethod
    def forward(self, inputs: Tensor, state: Tensor) -> tuple[Tensor, Tensor]:
        """Logits `[N, W, V]` of the symbol behind each of `inputs` int64 `[N, W]`, and the state behind the last.

        `state` float `[N, S]` is `initial_state`'s at a text's start, and what the piece before gave after that.
        """

    @abstractmethod
    def initial_state(self, n: int) -> Tensor:
        """The state `[n, S]` of `n` texts that have not begun, on the network's device."""
