"""The memory of engines: what the warm-up needs is returned, and the lengths of texts do not add up."""

import subprocess
import sys
from functools import partial
from pathlib import Path

import onnx
from onnx import TensorProto, helper

from tests.service.support.edited_graph import edit_graph
from tests.support.tiny_bundle import make_tiny_bundle

ROOT = Path(__file__).parents[3]
MIB = 2**20

# In processes of their own: another test may have left memory that would be used again.
_ENGINES = """
import random, sys
from pathlib import Path
from bundle import load_bundle
from service.inference.engine import Engine
from service.inference.providers import CPU, Provider

def resident():
    return int(Path("/proc/self/statm").read_text().split()[1]) * 4096

engines = [Engine(load_bundle(Path(path)), Provider(CPU, required=False), cores=1) for path in sys.argv[1:]]
"""
WARM_UP = """
opened = resident()
for engine in engines:
    engine.warm_up(64)
warm = resident()
for engine in engines:
    engine.release_memory(2)
print(opened, warm, resident())
"""
TEXTS = """
rng = random.Random(0)
longest = engines[0].modality.probe_pair()[1]

def score_texts(count):
    for _ in range(count):
        engines[0].run([longest[:rng.randint(1, 100)] for _ in range(rng.randint(1, 8))])

# Each length has then occurred, in batches of most sizes.
score_texts(150)
before = resident()
score_texts(150)
print(before, resident())
"""


def resident_memory(program: str, *bundles: Path) -> list[int]:
    """The bytes that `program` prints for the engines of `bundles`."""
    command = [sys.executable, "-c", _ENGINES + program, *map(str, bundles)]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True, timeout=120)
    return [int(number) for number in done.stdout.split()]


def widen(model: onnx.ModelProto, mebibytes: int) -> None:
    """Make the graph need `mebibytes` of working memory per picture: it averages many copies of the logits."""
    for node in model.graph.node:
        node.output[:] = ["narrow_logits" if name == "logits" else name for name in node.output]
    copies = mebibytes * MIB // (3 * 4)
    model.graph.initializer.extend(
        [
            helper.make_tensor("wide", TensorProto.INT64, [3], [1, copies, 1]),
            helper.make_tensor("copies_axis", TensorProto.INT64, [1], [1]),
        ]
    )
    position = next(index for index, node in enumerate(model.graph.node) if "narrow_logits" in node.output) + 1
    nodes = [
        helper.make_node("Unsqueeze", ["narrow_logits", "copies_axis"], ["column"]),
        helper.make_node("Expand", ["column", "wide"], ["copies"]),
        helper.make_node("ReduceMean", ["copies", "copies_axis"], ["logits"], keepdims=0),
    ]
    for offset, node in enumerate(nodes):
        model.graph.node.insert(position + offset, node)


def test_memory_that_only_the_warm_up_needs_is_returned(tmp_path: Path) -> None:
    bundle = make_tiny_bundle(tmp_path)
    edit_graph(bundle, partial(widen, mebibytes=4))
    opened, warm, released = resident_memory(WARM_UP, bundle)
    assert warm - opened > 64 * 4 * MIB
    # Batches of two are left.
    assert released - opened < 64 * MIB


def test_engines_share_their_working_memory(tmp_path: Path) -> None:
    bundles = [make_tiny_bundle(tmp_path, name=f"m{index}") for index in range(4)]
    for bundle in bundles:
        edit_graph(bundle, partial(widen, mebibytes=2))
    (opened, warm, _), (four_opened, four_warm, _) = (resident_memory(WARM_UP, *bundles[:count]) for count in (1, 4))
    assert four_warm - four_opened < warm - opened + 64 * MIB


def test_texts_of_every_length_in_random_order_need_no_more_memory_with_time() -> None:
    before, after = resident_memory(TEXTS, ROOT / "models" / "trec-gru" / "1")
    assert after - before < 16 * MIB
