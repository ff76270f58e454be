"""The columns of the output files, named as in the HTTP API."""

from collections.abc import Sequence
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from service.errors import InputError
from service.scoring.scored_input import Result

KEY, FLAGGED, P_VALUE, LABEL, PROBABILITY, TRUNCATED, TOKENS_READ, TOKENS_TOTAL, ERROR, ERROR_DETAIL = (
    "key",
    "flagged",
    "p_value",
    "label",
    "probability",
    "truncated",
    "tokens_read",
    "tokens_total",
    "error",
    "error_detail",
)


def flagged_column(score: str) -> str:
    """The name of the column with the flags of `score`."""
    return f"{score}_flagged"


def part_file(
    keys: Sequence[object], results: Sequence[Result], scores: Sequence[str], key: pa.DataType, *, texts: bool
) -> bytes:
    """Encode a parquet file with one row per input; a row of an input that was not scored has only key and error.

    Args:
        keys: The keys of the inputs.
        results: The results of the inputs, in the same order.
        scores: The names of the scores.
        key: The type of the keys.
        texts: Whether the inputs are texts.
    """
    rows = [_row(input_key, result) for input_key, result in zip(keys, results, strict=True)]
    sink = pa.BufferOutputStream()
    pq.write_table(pa.Table.from_pylist(rows, schema=schema(scores, key, texts=texts)), sink)
    return bytes(sink.getvalue())


def schema(scores: Sequence[str], key: pa.DataType, *, texts: bool) -> pa.Schema:
    """The schema of a part: `flagged` and `p_value` of the first score, as in the API; then each score's columns.

    Parts of `texts` also have the columns about their tokens.
    """
    fields: dict[str, pa.DataType] = {
        KEY: key,
        FLAGGED: pa.bool_(),
        P_VALUE: pa.float64(),
        LABEL: pa.string(),
        PROBABILITY: pa.float64(),
    }
    if texts:
        fields |= {TRUNCATED: pa.bool_(), TOKENS_READ: pa.int64(), TOKENS_TOTAL: pa.int64()}
    for score in scores:
        fields |= {
            score: pa.float64(),
            f"{score}_anomaly": pa.float64(),
            f"{score}_p_value": pa.float64(),
            flagged_column(score): pa.bool_(),
        }
    return pa.schema(list((fields | {ERROR: pa.string(), ERROR_DETAIL: pa.string()}).items()))


def _row(key: object, result: Result) -> dict[str, Any]:
    if isinstance(result, InputError):
        return {KEY: key, ERROR: result.type, ERROR_DETAIL: result.detail}
    prediction = result.prediction
    row = {
        KEY: key,
        FLAGGED: result.flagged,
        P_VALUE: result.p_value,
        LABEL: None if prediction is None else prediction.label,
        PROBABILITY: None if prediction is None else prediction.probability,
    }
    if result.tokens is not None:
        row |= {
            TRUNCATED: result.truncated,
            TOKENS_READ: result.tokens.read,
            TOKENS_TOTAL: result.tokens.total,
        }
    for name, score in result.scores.items():
        row[name] = score.value
        row[f"{name}_anomaly"] = score.anomaly
        row[f"{name}_p_value"] = score.p_value
        row[flagged_column(name)] = score.flagged
    return row
