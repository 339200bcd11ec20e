"""How well a bundle agrees with labels, and how far its confidence can be trusted.

``run`` goes through the images, ``scores`` counts, ``report`` groups and says it.
"""

from __future__ import annotations

from geoseg_cli.evaluate.report import UNKNOWN_SENSOR, EvaluationReport, Group, PairScores, interval_note
from geoseg_cli.evaluate.run import (
    EvaluateOptions,
    ProgressOf,
    bands_left_out,
    count_labels,
    evaluate_folder,
    fit_bundle,
    score_pair,
    training_warning,
)
from geoseg_cli.evaluate.scores import Scores, figures, place_intervals

__all__ = [
    "UNKNOWN_SENSOR",
    "EvaluateOptions",
    "EvaluationReport",
    "Group",
    "PairScores",
    "ProgressOf",
    "Scores",
    "bands_left_out",
    "count_labels",
    "evaluate_folder",
    "figures",
    "fit_bundle",
    "interval_note",
    "place_intervals",
    "score_pair",
    "training_warning",
]
