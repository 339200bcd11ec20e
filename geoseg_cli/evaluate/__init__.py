"""How well a bundle agrees with labels, how far its confidence can be trusted, and how right a finished map is.

A bundle: ``run`` goes through the images, ``scores`` counts, ``report`` groups and says it. A map: ``against_map`` goes
through it and a reference (``rasters``, ``shapes``, with ``classes`` for what values mean), ``map_counts`` and
``boundary`` count, ``map_report`` says it. ``intervals`` is for both.
"""

from __future__ import annotations

from geoseg_cli.evaluate.against_map import CompareOptions, compare_map
from geoseg_cli.evaluate.classes import ReferenceOptions, read_mapping
from geoseg_cli.evaluate.map_report import MapReport
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
    "CompareOptions",
    "EvaluateOptions",
    "EvaluationReport",
    "Group",
    "MapReport",
    "PairScores",
    "ProgressOf",
    "ReferenceOptions",
    "Scores",
    "bands_left_out",
    "compare_map",
    "count_labels",
    "evaluate_folder",
    "figures",
    "fit_bundle",
    "interval_note",
    "place_intervals",
    "read_mapping",
    "score_pair",
    "training_warning",
]
