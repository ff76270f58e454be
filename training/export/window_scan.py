"""The loop over a text's windows in an ONNX graph: a Scan operator whose body is the exported step of one window."""

from typing import Any

import onnx
import torch
from onnx import helper
from torch import Tensor, nn
from torch.export import Dim

from training.models.language_model import SCAN, SCAN_DOMAIN, LanguageModel

_PREFIX = "window."


def splice_window_scan(graph: onnx.ModelProto, model: LanguageModel) -> None:
    """Replace the placeholder node of `model`'s loop over windows in `graph` with a Scan operator."""
    (index,) = (i for i, node in enumerate(graph.graph.node) if (node.domain, node.op_type) == (SCAN_DOMAIN, SCAN))
    placeholder = graph.graph.node[index]
    step = onnx.compose.add_prefix(_exported_step(model, graph.opset_import[0].version), _PREFIX).graph
    # Weights outside the loop's body are prepared once by ONNX Runtime.
    graph.graph.initializer.extend(step.initializer)
    del step.initializer[:]
    del step.value_info[:]
    loop = helper.make_node(
        "Scan",
        list(placeholder.input),
        [f"{_PREFIX}last_state", *placeholder.output],
        name=SCAN,
        body=step,
        num_scan_inputs=2,
        scan_input_axes=[1, 1],
        scan_output_axes=[1, 1],
    )
    graph.graph.node[index].CopyFrom(loop)
    domains = [opset for opset in graph.opset_import if opset.domain != SCAN_DOMAIN]
    del graph.opset_import[:]
    graph.opset_import.extend(domains)


class _Step(nn.Module):
    """`score_window` as a module, because the exporter accepts modules only."""

    def __init__(self, model: LanguageModel) -> None:
        super().__init__()
        self.model = model

    def forward(self, state: Tensor, inputs: Tensor, targets: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        return self.model.score_window(state, inputs, targets)


def _exported_step(model: LanguageModel, opset: int) -> onnx.ModelProto:
    """The graph of one window, for any batch size."""
    symbols = torch.zeros((2, model.window), dtype=torch.long)
    batch: dict[int, Any] = {0: Dim("N")}
    program = torch.onnx.export(
        _Step(model).eval(),
        (model.network.initial_state(2), symbols, symbols.clone()),
        input_names=["state", "inputs", "targets"],
        output_names=["next_state", "nats_of_targets", "nats_of_uniform"],
        dynamic_shapes=(batch, batch, batch),
        opset_version=opset,
        dynamo=True,
        verbose=False,
    )
    assert program is not None
    return program.model_proto
