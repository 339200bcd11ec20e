"""Compare simulated scenes with real ones, in numbers: python benchmarks/simulator_report.py --data DIR [--write].

Real: EuroSAT tiles of the training part (Sentinel-2 L1C, 10 m, 64 x 64 px) with a class per tile, and the clear parts
of Sentinel-2 L2A scenes without labels. Simulated: tiles of the same size, level and pixel, cut out of cloudless
scenes where one class covers most of the tile. Nothing of `validation/` is read.
"""

from __future__ import annotations

import argparse
import warnings
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt
import rasterio
from rasterio.errors import NotGeoreferencedWarning
from sklearn.ensemble import RandomForestClassifier
from sklearn.metrics import roc_auc_score
from sklearn.model_selection import StratifiedGroupKFold
from tile_statistics import (
    LAGS_PX,
    FloatArray,
    autocorrelation,
    band_correlation,
    boundary_density,
    edge_density,
    normalised_difference,
    pixel_features,
    spectrum_slope,
    summary_features,
)

from geoseg_cli.training.chips import LAND_VALUES, Chip, band_names, values_from_targets
from geoseg_cli.training.real_chips import eurosat_chips, eurosat_tile_classes, ontario_chips
from geoseg_cli.training.simulate import Level, SimulatorOptions, simulate_scene
from geoseg_cli.training.spectra import SpectralLibrary

PAGE = Path(__file__).parents[1] / "docs" / "simulator.md"
KINDS = {10: "forest", 30: "grass", 40: "crop", 50: "built-up", 80: "water"}
BANDS = ("blue", "green", "red", "nir", "swir16", "swir22")
BLUE, GREEN, RED, NIR, SWIR16, SWIR22 = range(6)
TILE_PX = 64
SCENE_PX = 2 * TILE_PX
# EuroSAT shows Europe without snow: landscapes with their own snow, sand or nothing but water are left out.
LANDSCAPES = ("farmland", "farmland", "mosaic", "mosaic", "forest", "grassland", "town", "town", "coast", "forest")
ANY = 0
FIRST_SEED = 700_000_000
# EuroSAT's tiles of forest and lakes show nothing else; fields and towns have hedges, roads and gardens.
DOMINANT_SHARE = {10: 0.97, 30: 0.8, 40: 0.8, 50: 0.7, 80: 0.97}
TILES_PER_SCENE = 1


@dataclass(frozen=True, slots=True)
class Tiles:
    """Labelled tiles.

    Attributes:
        reflectance: (N, 6, 64, 64) float32, BANDS, in steps of 1e-4 as products store it.
        kind: (N,) WorldCover value of the tile, ANY for one that was cut out without regard to its classes.
        labels: (N, 64, 64) uint8 WorldCover value of the pixels, 255 unknown.
        group: (N,) tiles of one group come from one scene.
    """

    reflectance: FloatArray
    kind: npt.NDArray[np.int64]
    labels: npt.NDArray[np.uint8]
    group: npt.NDArray[np.int64]

    def of(self, kind: int) -> FloatArray:
        """The tiles of a kind, (n, 6, 64, 64)."""
        return np.asarray(self.reflectance[self.kind == kind])


@dataclass(frozen=True, slots=True)
class Table:
    """A table of the report: title, one sentence, head, rows."""

    title: str
    text: str
    head: Sequence[str]
    rows: Sequence[Sequence[str]]

    def markdown(self) -> str:
        """The table as Markdown."""
        lines = [f"### {self.title}", "", self.text, "", f"| {' | '.join(self.head)} |"]
        lines += ["|" + "---|" * len(self.head), *(f"| {' | '.join(row)} |" for row in self.rows)]
        return "\n".join(lines)


def real_tiles(training: Path, part: str) -> Tiles:
    """EuroSAT tiles of a part, without roads and rivers, which have no class."""
    kinds = np.array(eurosat_tile_classes(training, part))
    chips = eurosat_chips(training, part, "land-cover")
    kept = [index for index, kind in enumerate(kinds) if kind in KINDS]
    return Tiles(
        np.stack([_reflectance(chips[index]) for index in kept]),
        kinds[kept],
        np.stack([values_from_targets(chips[index].target, LAND_VALUES) for index in kept]),
        np.arange(len(kept)),
    )


def _reflectance(chip: Chip) -> FloatArray:
    """The six bands of a chip, (6, H, W) float32."""
    return np.asarray(chip.dn[[chip.bands.index(band) for band in BANDS]] / np.float32(1e4), np.float32)


def simulated_tiles(library: SpectralLibrary, scenes: int, level: Level = "L1C", gsd_m: float = 10.0) -> Tiles:
    """From each scene one tile anywhere, and one per kind that prevails somewhere in it."""
    rng = np.random.default_rng(0)
    bands = [band_names("sentinel-2").index(band) for band in BANDS]
    found: list[tuple[FloatArray, int, npt.NDArray[np.uint8], int]] = []
    for number in range(scenes):
        landscape = LANDSCAPES[number % len(LANDSCAPES)]
        options = SimulatorOptions(SCENE_PX, SCENE_PX, gsd_m, level, "clear", landscape)
        scene = simulate_scene(library, options, FIRST_SEED + number)
        stored = np.round(np.clip(scene.reflectance[bands], 0, None) * 1e4)
        image = np.asarray(stored / 1e4, np.float32)
        for kind in (ANY, *KINDS):
            places = _places(scene.land_cover, kind)
            for row, column in rng.permutation(places)[:TILES_PER_SCENE]:
                tile = np.s_[row : row + TILE_PX, column : column + TILE_PX]
                found.append((image[:, *tile], kind, scene.land_cover[tile], number))
    images, kinds, labels, groups = zip(*found, strict=True)
    return Tiles(np.stack(images), np.array(kinds), np.stack(labels), np.array(groups))


def _places(land_cover: npt.NDArray[np.uint8], kind: int) -> npt.NDArray[np.int64]:
    """Corners (row, column) of the tiles of a kind, those it covers as it covers EuroSAT's, (n, 2)."""
    side = land_cover.shape[0] // TILE_PX
    if kind == ANY:
        return np.argwhere(np.ones((side, side), bool)) * TILE_PX
    blocks = (land_cover == kind).reshape(side, TILE_PX, side, TILE_PX).mean(axis=(1, 3))
    return np.argwhere(blocks >= DOMINANT_SHARE[kind]) * TILE_PX


def spectra_table(real: Tiles, simulated: Tiles) -> Table:
    """Mean, deviation between tiles and deviation within tiles per class and band."""
    rows = []
    for kind, name in KINDS.items():
        for figure, measure in (("mean", _means), ("between tiles", _between), ("within tiles", _within)):
            pairs = zip(measure(real.of(kind)), measure(simulated.of(kind)), strict=True)
            rows.append([name, figure, *(f"{first:.3f} / {second:.3f}" for first, second in pairs)])
    return Table(
        "Spectra", "Reflectance, real / simulated: mean of the tiles, its deviation from tile to tile, and the median"
        " over the tiles of the deviation within a tile.", ["class", "figure", *BANDS], rows,
    )  # fmt: skip


def _means(tiles: FloatArray) -> FloatArray:
    return np.asarray(tiles.mean(axis=(0, 2, 3)))


def _between(tiles: FloatArray) -> FloatArray:
    return np.asarray(tiles.mean(axis=(2, 3)).std(axis=0))


def _within(tiles: FloatArray) -> FloatArray:
    return np.asarray(np.median(tiles.std(axis=(2, 3)), axis=0))


def index_table(real: Tiles, simulated: Tiles) -> Table:
    """Quantiles of NDVI, NDWI and brightness per class."""
    rows = []
    for kind, name in KINDS.items():
        cells = []
        for tiles in (real.of(kind), simulated.of(kind)):
            images = (
                normalised_difference(tiles, NIR, RED),
                normalised_difference(tiles, GREEN, NIR),
                tiles[:, : NIR + 1].mean(axis=1),
            )
            cells.append([" ".join(f"{x:.2f}" for x in np.quantile(image, (0.1, 0.5, 0.9))) for image in images])
        rows.append([name, *(f"{first} / {second}" for first, second in zip(*cells, strict=True))])
    head = ["class", "NDVI", "NDWI", "brightness"]
    return Table("Indices", "Quantiles 10, 50 and 90 % of the pixels, real / simulated.", head, rows)


def texture_table(real: Tiles, simulated: Tiles) -> Table:
    """Correlations, spectrum slopes, autocorrelation and edges per class."""
    rows = []
    for kind, name in KINDS.items():
        first, second = real.of(kind), simulated.of(kind)
        matrices = [np.median(band_correlation(tiles), axis=0) for tiles in (first, second)]
        row = [name, f"{np.abs(matrices[0] - matrices[1]).mean():.2f}"]
        for band in (RED, NIR):
            row.append(" / ".join(f"{np.median(spectrum_slope(tiles[:, band])):.2f}" for tiles in (first, second)))
        lags = [np.median(autocorrelation(tiles[:, NIR]), axis=0) for tiles in (first, second)]
        row += [f"{one:.2f} / {other:.2f}" for one, other in zip(*lags, strict=True)]
        row.append(" / ".join(f"{edge_density(tiles[:, NIR]).mean():.2f}" for tiles in (first, second)))
        rows.append(row)
    head = ["class", "correlation gap", "slope red", "slope nir", *(f"nir {lag} px" for lag in LAGS_PX), "edges nir"]
    return Table(
        "Texture", "Medians over the tiles, real / simulated: mean difference of the correlation matrices of the bands,"
        " fall of the power spectrum, autocorrelation at four distances, share of pixels with a step of 0.02.",
        head, rows,
    )  # fmt: skip


def judge_table(real: Tiles, simulated: Tiles) -> Table:
    """How well a random forest tells real from simulated tiles."""
    features = [summary_features(tiles.reflectance, (RED, NIR)) for tiles in (real, simulated)]
    rows = []
    for kind, name in (*KINDS.items(), (None, "together")):
        chosen = [tiles.kind == kind if kind else tiles.kind != ANY for tiles in (real, simulated)]
        x = np.concatenate([part[where] for part, where in zip(features, chosen, strict=True)])
        y = np.repeat([0, 1], [int(where.sum()) for where in chosen])
        group = np.concatenate([real.group[chosen[0]], 10_000 + simulated.group[chosen[1]]])
        means = slice(0, len(BANDS))
        scores = [_auc(x, y, group), _auc(x[:, means], y, group), _auc(x[:, means.stop :], y, group)]
        rows.append([name, str((y == 0).sum()), str((y == 1).sum()), *(f"{score:.2f}" for score in scores)])
    head = ["class", "real tiles", "simulated tiles", "AUC all figures", "AUC band means", "AUC without band means"]
    return Table(
        "Telling simulated from real", "Random forest on the figures of whole tiles, 5-fold, no scene in both parts;"
        " area under the ROC curve: 0.5 cannot tell, 1.0 always can.", head, rows,
    )  # fmt: skip


def _auc(x: FloatArray, y: npt.NDArray[np.int64], group: npt.NDArray[np.int64]) -> float:
    """Area under the ROC curve of cross-validated scores."""
    scores = np.zeros(len(y))
    for train, test in StratifiedGroupKFold(5, shuffle=True, random_state=0).split(x, y, group):
        forest = RandomForestClassifier(150, min_samples_leaf=2, class_weight="balanced", random_state=0)
        scores[test] = forest.fit(x[train], y[train]).predict_proba(x[test])[:, 1]
    return float(roc_auc_score(y, scores))


def transfer_table(real: Tiles, held_out: Tiles, simulated: Tiles) -> Table:
    """How well land cover that is learned on one kind of tiles is found on another."""
    simulated = _part(simulated, simulated.kind == ANY)
    first, second = (_part(simulated, simulated.group // 10 % 2 == half) for half in (0, 1))
    odd = real.group % 2 == 0
    cases = [
        ("simulated", "real", simulated, real),
        ("simulated", "real, held out", simulated, held_out),
        ("simulated", "simulated", first, second),
        ("real", "real", _part(real, odd), _part(real, ~odd)),
        ("real", "simulated", real, simulated),
    ]
    rows = []
    for source, target, learn, test in cases:
        confusion = _confusion(learn, test)
        recall = np.diag(confusion) / np.maximum(confusion.sum(axis=1), 1)
        called = ", ".join(_mistakes(confusion))
        rows.append([source, target, f"{recall.mean():.3f}", *(f"{one:.2f}" for one in recall), called])
    head = ["learned on", "tested on", "mean recall", *KINDS.values(), "most frequent mistakes"]
    return Table(
        "Learning on one, testing on the other", "Random forest per pixel (six bands, their means and deviations in"
        " 5 x 5 px), recall per class. Held out are the EuroSAT tiles of the develop part.", head, rows,
    )  # fmt: skip


def _part(tiles: Tiles, where: npt.NDArray[np.bool_]) -> Tiles:
    return Tiles(tiles.reflectance[where], tiles.kind[where], tiles.labels[where], tiles.group[where])


def _confusion(learn: Tiles, test: Tiles) -> npt.NDArray[np.int64]:
    """Pixels by true (rows) and found class, (5, 5); every class weighs the same when learning."""
    x, y = _pixels(learn)
    forest = RandomForestClassifier(60, min_samples_leaf=8, max_features=6, class_weight="balanced", random_state=0)
    forest.fit(x, y)
    x, y = _pixels(test)
    found = forest.predict(x)
    return np.array([[((y == a) & (found == b)).sum() for b in KINDS] for a in KINDS])


def _pixels(tiles: Tiles, stride_px: int = 8) -> tuple[FloatArray, npt.NDArray[np.uint8]]:
    """Features (n, 18) and labels (n,) of every `stride_px`-th pixel with a known label."""
    x = pixel_features(tiles.reflectance, stride_px)
    y = tiles.labels[:, ::stride_px, ::stride_px]
    known = np.isin(y, list(KINDS))
    return x[known], y[known]


def _mistakes(confusion: npt.NDArray[np.int64]) -> list[str]:
    """The three most frequent mistakes, as shares of their true class."""
    share = confusion / np.maximum(confusion.sum(axis=1, keepdims=True), 1)
    np.fill_diagonal(share, 0)
    names = list(KINDS.values())
    order = np.argsort(share, axis=None)[::-1][:3]
    return [f"{names[k // 5]} as {names[k % 5]} {share.flat[k]:.0%}" for k in order]


def boundary_table(training: Path, library: SpectralLibrary) -> Table:
    """Borders of labels per pixel at 30 m: the forest inventory of Ontario and simulated forests."""
    inventory = np.stack([chip.target for chip in ontario_chips(training)])
    rows = [["Ontario, forest inventory", f"{boundary_density(inventory):.3f}"]]
    for landscape in ("forest", "mosaic", "farmland"):
        options = SimulatorOptions(256, 256, 30.0, "L2A", "clear", landscape)
        labels = [simulate_scene(library, options, FIRST_SEED + seed).land_cover for seed in range(6)]
        rows.append([f"simulated, {landscape}", f"{boundary_density(np.stack(labels)):.3f}"])
    return Table("Borders", "Pairs of neighbours with different labels per pixel of 30 m.", ["labels", "borders"], rows)


def scenes_table(scenes: Path, simulated: Tiles) -> Table:
    """Where the figures of real L2A scenes lie among those of simulated tiles of the same level."""
    reference = np.concatenate([_scene_figures(simulated.of(kind)) for kind in (10, 30, 40, 50)])
    rows = []
    for name, tiles in _real_scenes(scenes):
        figures = np.median(_scene_figures(tiles), axis=0)
        places = (reference < figures).mean(axis=0)
        cells = [f"{figure:.3f} ({place:.0%})" for figure, place in zip(figures, places, strict=True)]
        rows.append([name, str(len(tiles)), *cells])
    head = ["scene", "tiles", "green", "red", "nir", "within red", "within nir", "slope red", "nir 1 px", "red-nir"]
    return Table(
        "Scenes", "Medians of the clear land tiles of real L2A scenes, and in brackets the share of simulated land"
        " tiles below: places near 0 or 100 % are outside of what is simulated.", head, rows,
    )  # fmt: skip


def _scene_figures(tiles: FloatArray) -> FloatArray:
    """Eight figures per tile from the first four bands, (N, 8)."""
    columns = [
        *tiles[:, (GREEN, RED, NIR)].mean(axis=(2, 3)).T,
        *tiles[:, (RED, NIR)].std(axis=(2, 3)).T,
        spectrum_slope(tiles[:, RED]),
        autocorrelation(tiles[:, NIR])[:, 0],
        band_correlation(tiles)[:, RED, NIR],
    ]
    return np.stack(columns, axis=1)


def _real_scenes(scenes: Path) -> Iterable[tuple[str, FloatArray]]:
    """Name and clear land tiles (n, 4, 64, 64) of the L2A scenes with blue, green, red and nir at about 10 m."""
    alberta = scenes / "s2_l2a_alberta_20190522"
    clear = np.isin(_read(alberta / "S2_L2A_20190522_alberta_SCL.tif", (1,))[0], (4, 5))
    yield "Alberta, May", _land(_read(alberta / "S2_L2A_20190522_alberta.tif", (1, 2, 3, 4)), clear)
    for name, file, bands in (
        ("Catalonia, September", "s2_l2a_boadella/Boadella_2020-09-14.tif", (2, 3, 4, 8)),
        ("Brazil, July", "s2_terramesh/S2_L2A_20210723_282D_485L_3_3.tif", (2, 3, 4, 8)),
        ("Tanzania, June", "s2_terramesh/S2_L2A_20230610_38D_378R_2_3.tif", (2, 3, 4, 8)),
    ):
        image = _read(scenes / file, bands)
        yield name, _land(image, image[3] > 800)


def _read(path: Path, bands: tuple[int, ...]) -> npt.NDArray[np.int64]:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", NotGeoreferencedWarning)
        with rasterio.open(path) as file:
            return np.asarray(file.read(bands), np.int64)


def _land(image: npt.NDArray[np.int64], clear: npt.NDArray[np.bool_]) -> FloatArray:
    """Cut (4, H, W) into tiles of which 98 % are clear land."""
    tiles = []
    for row in range(0, image.shape[1] - TILE_PX + 1, TILE_PX):
        for column in range(0, image.shape[2] - TILE_PX + 1, TILE_PX):
            where = np.s_[row : row + TILE_PX, column : column + TILE_PX]
            if clear[where].mean() > 0.98:
                tiles.append(image[:, *where] / np.float32(1e4))
    return np.stack(tiles)


def report(data: Path, scenes: int) -> list[Table]:
    """All tables, each from the same tiles."""
    training = data / "training"
    library = SpectralLibrary.load(training / "spectra")
    real, held_out = real_tiles(training, "train"), real_tiles(training, "develop")
    simulated = simulated_tiles(library, scenes)
    return [
        transfer_table(real, held_out, simulated),
        judge_table(real, simulated),
        spectra_table(real, simulated),
        index_table(real, simulated),
        texture_table(real, simulated),
        boundary_table(training, library),
        scenes_table(data / "scenes", simulated_tiles(library, scenes // 3, "L2A")),
    ]


def main() -> None:
    """Print the tables, or put them between the marks of docs/simulator.md."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--data", type=Path, required=True, help="folder of the real data")
    parser.add_argument("--scenes", type=int, default=400, help="simulated scenes")
    parser.add_argument("--write", action="store_true", help=f"renew the tables of docs/{PAGE.name}")
    given = parser.parse_args()
    text = "\n\n".join(table.markdown() for table in report(given.data, given.scenes))
    print(text)
    if given.write:
        head, _, rest = PAGE.read_text(encoding="utf-8").partition("<!-- tables -->")
        _, _, tail = rest.partition("<!-- end of tables -->")
        PAGE.write_text(f"{head}<!-- tables -->\n\n{text}\n\n<!-- end of tables -->{tail}", encoding="utf-8")


if __name__ == "__main__":
    main()
