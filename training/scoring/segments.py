"""Scores of segments of texts, for the report of a language model by the unit of the paper's tables."""

from collections.abc import Callable, Mapping

from training.data import Examples, text_segments
from training.evaluation import StageScores
from training.models.likelihood_heads import ScoredLanguageModel
from training.scoring.batch_scoring import Outputs, score_inputs
from training.scoring.calibration import anomalies, calibrations_from

SEGMENT_SYMBOLS = {"word": 70, "character": 150}
"""The symbols of a segment in the authors' code (`eval_ood.py`, `bptt`), by the unit of the model."""

_MIN_IN_DISTRIBUTION = 5
"""The paper's mixture has one outlier per five in-distribution inputs."""


def segment_scores(
    model: ScoredLanguageModel,
    symbols: int,
    *,
    stage: str,
    calibration: Examples,
    test: Examples,
    sets: Mapping[str, Examples],
    progress: Callable[[str, int, int], None],
) -> StageScores | None:
    """The scores of one stage on segments of each set; None if the data have too few segments.

    Each segment is scored from the initial state. Sets without a complete segment are left out.

    Args:
        model: The stage's model of texts.
        symbols: The symbols of a segment.
        stage: The name of the stage, for the progress.
        calibration: The calibration split, whose segments calibrate the flags.
        test: The in-distribution test set.
        sets: The out-of-distribution sets.
        progress: Called with the names of the stage and of a set, the number of scored segments and their total.
    """
    of_segments = model.of_segments()

    def score(examples: Examples) -> Outputs | None:
        segments = text_segments(examples.x, symbols, of_segments.model.end)
        if len(segments.array) == 0:
            return None
        name = f"{stage}: segments of {examples.name}"
        return score_inputs(of_segments, segments, progress=lambda done, total: progress(name, done, total))

    scored = {name: outputs for name, examples in sets.items() if (outputs := score(examples)) is not None}
    calibration_outputs, test_outputs = score(calibration), score(test)
    if not scored or calibration_outputs is None or test_outputs is None:
        return None
    names = model.scores
    in_dist = anomalies(test_outputs, names)
    if len(in_dist[names[0]]) < _MIN_IN_DISTRIBUTION:
        return None
    return StageScores(
        in_dist=in_dist,
        ood={name: anomalies(outputs, names) for name, outputs in scored.items()},
        calibrations=calibrations_from(calibration_outputs, names),
    )
