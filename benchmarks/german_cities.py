"""How well the pixels of the German cities can be told apart at all, without texture and neighbours.

    python benchmarks/german_cities.py --data DIR

A random forest learns from the polygons of two cities, with all ten bands, and names the pixels of the third: same
sensor, same labels, same people who drew them. A bundle that has never seen these cities can hardly be expected to do
better. The forest serves this page alone; nothing that is shipped learns from it.
"""

from __future__ import annotations

import argparse
import os
import sys
from pathlib import Path

import numpy as np
from sklearn.ensemble import RandomForestClassifier

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "scripts"))
from validation_cases import GERMAN_CLASSES

OPEN_SOIL, CROPLAND = 60, 40


def main() -> int:
    """Learn from two cities, measure on the third, print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    beside = Path(__file__).resolve().parents[2] / "shared" / "data"
    data = Path(os.environ.get("GEOSEG_REAL_DATA") or beside)
    parser.add_argument("--data", type=Path, default=data, help="folder that holds validation/ (GEOSEG_REAL_DATA)")
    parser.add_argument("--threads", type=int, default=2)
    arguments = parser.parse_args()
    with np.load(arguments.data / "validation" / "germany_s2_pixels.npz") as file:
        reflectance, city = file["dn"] / 1e4, file["region"]
        names = [str(name) for name in file["label_names"]]
        truth = np.array([GERMAN_CLASSES[names[label]] for label in file["label"]])
    rights, weights = [], []
    for held_out in np.unique(city):
        learned = city != held_out
        forest = RandomForestClassifier(200, min_samples_leaf=5, n_jobs=arguments.threads, random_state=0)
        called = forest.fit(reflectance[learned], truth[learned]).predict(reflectance[~learned])
        wanted = truth[~learned]
        is_right = (called == wanted) | ((wanted == OPEN_SOIL) & (called == CROPLAND))
        print(f"{held_out:10} overall accuracy {is_right.mean():.3f}  {class_f1(called, wanted)}")
        rights.append(is_right.sum())
        weights.append(len(is_right))
    print(f"{'together':10} overall accuracy {sum(rights) / sum(weights):.3f}")
    return 0


def class_f1(called: np.ndarray, wanted: np.ndarray) -> str:
    """F1 of each class, as text."""
    parts = []
    for value in np.unique(wanted):
        common = ((called == value) & (wanted == value)).sum()
        parts.append(f"{value}: {2 * common / ((called == value).sum() + (wanted == value).sum()):.2f}")
    return "F1 " + "  ".join(parts)


if __name__ == "__main__":
    sys.exit(main())
