r"""Language models and their predictions: the likelihood of a text, symbol by symbol (paper, section 4.4).

    p(text) = prod_{i=1}^{n+1} p(s_i | s_1, ..., s_{i-1}),    s_1..s_n the text's tokens, s_{n+1} = END

END is an additional symbol after the vocabulary, so that any tokenizer can be used. It is also the first symbol that
the network reads. The probabilities of all texts of all lengths sum to 1.
"""

import math
from typing import NamedTuple

import torch
from torch import Tensor
from torch.nn import functional as F

from training.architectures import LANGUAGE_ARCHITECTURES, LanguageNetwork
from training.data.token_ids import TEXT_INPUTS, text_batch, text_shapes
from training.models.model import BATCH, Model
from training.recipe import Component, build_component

SCAN_DOMAIN, SCAN = "ood", "ScoreWindows"
"""Domain and name of the placeholder node for the loop over windows in an exported graph."""


class TokenPrediction(NamedTuple):
    """Logits `[N, L+1, V]`, target symbols int64 `[N, L+1]`, and bool `[N, L+1]` that is True within each text.

    V includes END. Each text's END is a target and is counted.
    """

    logits: Tensor
    targets: Tensor
    counted: Tensor

    def float(self) -> "TokenPrediction":
        """The prediction in float32."""
        return self._replace(logits=self.logits.float())


class SymbolNats(NamedTuple):
    """Nats of symbols, `[N, L+1]` each.

    `of_targets` is -ln p of the symbol itself. `of_uniform` is the cross entropy H(U; p) of the uniform distribution
    over the vocabulary with the prediction.
    """

    of_targets: Tensor
    of_uniform: Tensor

    def where(self, mask: Tensor) -> "SymbolNats":
        """The nats where `mask` `[N, L+1]` is True, 0 elsewhere."""
        return SymbolNats(self.of_targets.where(mask, 0.0), self.of_uniform.where(mask, 0.0))


class SymbolScores(NamedTuple):
    """The figures of a batch of texts from which their scores are computed.

    `bits` `[N, L+1]` are those of each symbol and `uniform_nats` `[N, L+1]` its cross entropy H(U; p), both 0 where a
    symbol is not counted. `num_symbols` `[N]` is the number of counted symbols.
    """

    bits: Tensor
    uniform_nats: Tensor
    num_symbols: Tensor


class LanguageModel(Model):
    """Predicts a text of n tokens as n + 1 symbols with `network`, whose vocabulary has `vocabulary_size` + 1 symbols.

    Args:
        network: The network that predicts each symbol from the earlier ones.
        vocabulary_size: The number of token ids, without END.
        window: Symbols scored at a time, so that memory for logits does not grow with a text's length.
        count_end: Whether bits per symbol include END.
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
        """Predict token ids int64 `[N, L]` in one pass, for training; text i is the first `lengths[i]` ids of row i."""
        inputs, targets = self._symbols(tokens, lengths)
        logits, _ = self.network(inputs, self.network.initial_state(len(inputs)))
        return TokenPrediction(logits.float(), targets, _positions(targets) <= lengths[:, None])

    def prepare(self, rows: Tensor) -> tuple[Tensor, ...]:
        """Token ids `[N, L]` and lengths `[N]` of stored rows int32 `[N, max_tokens]`, with L the largest length."""
        return text_batch(rows)

    def symbol_nats(self, tokens: Tensor, lengths: Tensor) -> SymbolNats:
        """The nats of every symbol, float32 `[N, L+1]`, 0 after the text's end; computed window by window."""
        inputs, targets = self._symbols(tokens, lengths)
        n, symbols = inputs.shape
        windows = (symbols + self.window - 1) // self.window
        padding = windows * self.window - symbols
        # [N, windows, window]
        split = tuple(torch.unflatten(F.pad(part, (0, padding)), 1, (-1, self.window)) for part in (inputs, targets))
        score = self._exported_windows if torch.onnx.is_in_onnx_export() else self._score_windows
        nats = score(self.network.initial_state(n), *split)
        of_symbols = SymbolNats(*(part.flatten(1)[:, :symbols] for part in nats))
        return of_symbols.where(_positions(targets) <= lengths[:, None])

    def score_symbols(self, tokens: Tensor, lengths: Tensor) -> SymbolScores:
        """Compute the bits and cross entropies of each symbol; END is counted if `count_end`."""
        nats = self.symbol_nats(tokens, lengths)
        num_symbols = lengths + 1
        if not self.count_end:
            nats, num_symbols = nats.where(_positions(nats.of_targets) < lengths[:, None]), lengths
        return SymbolScores(nats.of_targets / math.log(2), nats.of_uniform, num_symbols)

    def _symbols(self, tokens: Tensor, lengths: Tensor) -> tuple[Tensor, Tensor]:
        """The network's inputs and its targets, both int64 `[N, L+1]`."""
        end = tokens.new_full((tokens.shape[0], 1), self.end)
        targets = torch.cat((tokens, end), dim=1)
        targets = targets.where(_positions(targets) != lengths[:, None], self.end)
        return torch.cat((end, tokens), dim=1), targets

    def score_window(self, state: Tensor, inputs: Tensor, targets: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """One step of `symbol_nats`.

        Returns:
            The next state `[N, S]`, and of the symbols `targets` `[N, W]` after `inputs` `[N, W]` the nats of the
            targets and those of the uniform distribution, both `[N, W]`.
        """
        logits, state = self.network(inputs, state)
        # A likelihood is a sum of hundreds of terms and is computed in float32 in any precision of the network.
        log_p = logits.float().log_softmax(dim=2)
        # Both nats are read off one tensor of the vocabulary's size; ONNX Runtime's LogSumExp is slower by far.
        return state, -log_p.gather(2, targets[..., None]).squeeze(2), -log_p.mean(dim=2)

    def _score_windows(self, state: Tensor, inputs: Tensor, targets: Tensor) -> SymbolNats:
        """The nats of all symbols of `[N, windows, window]`, one window after another."""
        of_targets: list[Tensor] = []
        of_uniform: list[Tensor] = []
        for window in zip(inputs.unbind(dim=1), targets.unbind(dim=1), strict=True):
            state, *nats = self.score_window(state, *window)
            of_targets.append(nats[0])
            of_uniform.append(nats[1])
        return SymbolNats(torch.stack(of_targets, dim=1), torch.stack(of_uniform, dim=1))

    def _exported_windows(self, state: Tensor, inputs: Tensor, targets: Tensor) -> SymbolNats:
        """A placeholder node for `_score_windows`, which `training.export.window_scan` replaces with ONNX's Scan.

        The exporter would unroll the loop to a fixed length, and torch's own `scan` fixes the batch size.
        """
        return SymbolNats(
            *torch.onnx.ops.symbolic_multi_out(
                f"{SCAN_DOMAIN}::{SCAN}",
                (state, inputs, targets),
                dtypes=(torch.float32, torch.float32),
                shapes=(inputs.shape, inputs.shape),
            )
        )


def build_language_model(
    architecture: Component, vocabulary_size: int, *, window: int = 32, count_end: bool = True
) -> LanguageModel:
    """A language model over `vocabulary_size` token ids, freshly initialised from torch's generator."""
    network = build_component("architecture", architecture, LANGUAGE_ARCHITECTURES, vocabulary_size=vocabulary_size + 1)
    return LanguageModel(network, vocabulary_size, window=window, count_end=count_end)


def _positions(symbols: Tensor) -> Tensor:
    """The column indices `[1, L]` of `symbols` `[N, L]`."""
    return torch.arange(symbols.shape[1], device=symbols.device)[None]
