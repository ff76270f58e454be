"""The output's columns, in the vocabulary of the HTTP API."""

from collections.abc import Sequence
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from service.errors import InputError
from service.scoring.scored_input import Result

KEY, FLAGGED, P_VALUE, LABEL, PROBABILITY, ERROR, ERROR_DETAIL = (
    "key",
    "flagged",
    "p_value",
    "label",
    "probability",
    "error",
    "error_detail",
)


def flagged_column(score: str) -> str:
    """Where `score`'s own flags are."""
    return f"{score}_flagged"


def part_file(keys: Sequence[object], results: Sequence[Result], scores: Sequence[str], key: pa.DataType) -> bytes:
    """A parquet file with a row for each input, in order; where one could not be scored, only key and error are set."""
    rows = [_row(each, result) for each, result in zip(keys, results, strict=True)]
    sink = pa.BufferOutputStream()
    pq.write_table(pa.Table.from_pylist(rows, schema=schema(scores, key)), sink)
    return bytes(sink.getvalue())


def schema(scores: Sequence[str], key: pa.DataType) -> pa.Schema:
    """`flagged` and `p_value` are those of the first score, as in the API's answers; then each score's own columns."""
    fields: dict[str, pa.DataType] = {
        KEY: key,
        FLAGGED: pa.bool_(),
        P_VALUE: pa.float64(),
        LABEL: pa.string(),
        PROBABILITY: pa.float64(),
    }
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
    for name, score in result.scores.items():
        row[name] = score.value
        row[f"{name}_anomaly"] = score.anomaly
        row[f"{name}_p_value"] = score.p_value
        row[flagged_column(name)] = score.flagged
    return row
