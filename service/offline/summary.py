"""What a finished run came to."""

from collections import Counter

import pyarrow.compute as pc
import pyarrow.parquet as pq

from service.offline.output import Output, Summary
from service.offline.table import ERROR, flagged_column


def summarise(output: Output) -> Summary:
    """Counts over all parts, one at a time, those of earlier runs into the same folder too."""
    inputs = 0
    flagged = dict.fromkeys(output.run.terms.scores, 0)
    errors: Counter[str] = Counter()
    for file in output.files():
        table = pq.read_table(file, columns=[ERROR, *(flagged_column(score) for score in flagged)])
        inputs += table.num_rows
        for score in flagged:
            flagged[score] += pc.sum(table[flagged_column(score)]).as_py() or 0
        errors.update(kind for kind in table[ERROR].to_pylist() if kind is not None)
    return Summary(inputs=inputs, flagged=flagged, errors=dict(errors.most_common()))


def in_words(output: Output) -> str:
    """The summary of a complete run, for a person."""
    run = output.run
    summary = run.complete
    assert summary is not None, "only a complete run has a summary"
    lines = [f"{summary.inputs:,} inputs in {output.folder}, {summary.scored:,} of them scored"]
    for score, count in summary.flagged.items():
        share = f"{count / summary.scored:.2%}" if summary.scored else "none"
        threshold = run.thresholds[score]
        limit = "nothing can be flagged" if threshold is None else f"anomaly above {threshold:.5g}"
        lines.append(f"  flagged by {score}: {count:,} ({share}) at alpha {run.terms.alpha:g} ({limit})")
    lines += [f"  error {kind}: {count:,}" for kind, count in summary.errors.items()]
    return "\n".join(lines)
