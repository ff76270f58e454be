r"""The language model: a network of symbols with what a text's likelihood needs of it (paper, section 4.4).

    p(text) = prod_{i=1}^{n+1} p(s_i | s_1, ..., s_{i-1}),    s_1..s_n the text's tokens, s_{n+1} = END

END is one symbol more than the vocabulary has, so that any tokenizer will do. It is what the network reads first, too:
a text begins where another has ended. The probabilities of all texts of all lengths sum to 1.
"""

import math
from typing import NamedTuple

import torch
from torch import Tensor
from torch.nn import functional as F

from training.architectures import LANGUAGE_ARCHITECTURES, LanguageNetwork
from training.data.token_ids import TEXT_INPUTS, text_batch, text_shapes
from training.models.model import BATCH, Model
from training.models.prediction import TokenPrediction
from training.recipe import Component, build_component

SCAN_DOMAIN, SCAN = "ood", "ScoreWindows"
"""The name of the node in an exported graph that stands for the loop over windows."""


class TextBits(NamedTuple):
    """Bits of each symbol `[N, L+1]`, 0 after the text, and the number of symbols `[N]` of each text that count."""

    of_symbols: Tensor
    num_symbols: Tensor


class LanguageModel(Model):
    """Predicts a text of n tokens as n + 1 symbols with `network`, which takes `vocabulary_size` + 1 of them.

    Texts are scored `window` symbols at a time: memory for logits does not grow with a text's length. Without
    `count_end` the bits per symbol are those of the tokens alone.
    """

    network: LanguageNetwork
    input_names = TEXT_INPUTS
    dynamic_shapes = text_shapes(BATCH)

    def __init__(
        self, network: LanguageNetwork, vocabulary_size: int, *, window: int = 32, count_end: bool = True
    ) -> None:
        super().__init__(network)
        if window < 1:
            raise ValueError(f"window must be 1 or more, got {window}")
        self.end = vocabulary_size
        self.window = window
        self.count_end = count_end

    def forward(self, tokens: Tensor, lengths: Tensor) -> TokenPrediction:
        """Training's view of token ids int64 `[N, L]`, of which each row's first `lengths` `[N]` count, in one pass."""
        inputs, targets = self._symbols(tokens, lengths)
        logits, _ = self.network(inputs, self.network.initial_state(len(inputs)))
        return TokenPrediction(logits.float(), targets, _positions(targets) <= lengths[:, None])

    def prepare(self, rows: Tensor) -> tuple[Tensor, ...]:
        """Token ids `[N, L]`, L the batch's longest text, and lengths `[N]`, of stored rows int32 `[N, max_tokens]`."""
        return text_batch(rows)

    def nats(self, tokens: Tensor, lengths: Tensor) -> Tensor:
        """-ln p of every symbol, float32 `[N, L+1]`, 0 behind the text; computed window by window."""
        inputs, targets = self._symbols(tokens, lengths)
        n, symbols = inputs.shape
        count = (symbols + self.window - 1) // self.window
        missing = count * self.window - symbols
        # [N, windows, window]
        pieces = tuple(torch.unflatten(F.pad(part, (0, missing)), 1, (-1, self.window)) for part in (inputs, targets))
        run = self._exported_windows if torch.onnx.is_in_onnx_export() else self._score_windows
        nats = run(self.network.initial_state(n), *pieces).flatten(1)[:, :symbols]
        return nats.where(_positions(targets) <= lengths[:, None], 0.0)

    def bits(self, tokens: Tensor, lengths: Tensor) -> TextBits:
        """The bits of every symbol and the number of symbols; END is not among them without `count_end`."""
        bits = self.nats(tokens, lengths) / math.log(2)
        if self.count_end:
            return TextBits(bits, lengths + 1)
        return TextBits(bits.where(_positions(bits) < lengths[:, None], 0.0), lengths)

    def _symbols(self, tokens: Tensor, lengths: Tensor) -> tuple[Tensor, Tensor]:
        """What the network reads and what it is to predict, both int64 `[N, L+1]`."""
        end = tokens.new_full((tokens.shape[0], 1), self.end)
        targets = torch.cat((tokens, end), dim=1)
        targets = targets.where(_positions(targets) != lengths[:, None], self.end)
        return torch.cat((end, tokens), dim=1), targets

    def score_window(self, state: Tensor, inputs: Tensor, targets: Tensor) -> tuple[Tensor, Tensor]:
        """One step of `nats`: the next state `[N, S]`, and -ln p of each of `targets` behind `inputs`, all `[N, W]`."""
        logits, state = self.network(inputs, state)
        # A likelihood is a sum of hundreds of terms: in float32, whatever precision the network ran in.
        of_targets = logits.float().log_softmax(dim=2).gather(2, targets[..., None]).squeeze(2)
        return state, -of_targets

    def _score_windows(self, state: Tensor, inputs: Tensor, targets: Tensor) -> Tensor:
        """-ln p of windows `[N, windows, window]`, one after the other."""
        found: list[Tensor] = []
        for piece in zip(inputs.unbind(dim=1), targets.unbind(dim=1), strict=True):
            state, nats = self.score_window(state, *piece)
            found.append(nats)
        return torch.stack(found, dim=1)

    def _exported_windows(self, state: Tensor, inputs: Tensor, targets: Tensor) -> Tensor:
        """A node that stands for `_score_windows`, for `training.export.window_scan` to put ONNX's Scan in its place.

        The exporter would unroll the loop to one fixed length, and torch's own `scan` fixes the batch size.
        """
        arguments = (state, inputs, targets)
        return torch.onnx.ops.symbolic(f"{SCAN_DOMAIN}::{SCAN}", arguments, dtype=torch.float32, shape=inputs.shape)


def build_language_model(
    architecture: Component, vocabulary_size: int, *, window: int = 32, count_end: bool = True
) -> LanguageModel:
    """A model of texts over `vocabulary_size` token ids, freshly initialised from torch's generator."""
    network = build_component("architecture", architecture, LANGUAGE_ARCHITECTURES, vocabulary_size=vocabulary_size + 1)
    return LanguageModel(network, vocabulary_size, window=window, count_end=count_end)


def _positions(symbols: Tensor) -> Tensor:
    """0, 1, ... for the columns of `symbols` `[N, L]`, as `[1, L]`."""
    return torch.arange(symbols.shape[1], device=symbols.device)[None]
