"""``geoseg classify``: a land-cover map of each scene."""

from __future__ import annotations

from geoseg_cli.cli import batch_options as b
from geoseg_cli.cli import map_options as m
from geoseg_cli.cli import options as o
from geoseg_cli.cli.logs import LogFile, LogFormat
from geoseg_cli.cli.request import Request
from geoseg_cli.cli.runs import run_request

DEFAULT_MODEL = "landcover-lale"
SUFFIX = "landcover"


def command(
    scenes: o.Scenes,
    output: o.Output = None,
    out_dir: o.OutDir = None,
    name_template: b.NameTemplate = None,
    pattern: b.Pattern = None,
    skip_existing: b.SkipExisting = False,
    fail_fast: b.FailFast = False,
    retries: b.Retries = 2,
    wait: b.Wait = 600,
    workers: b.Workers = 1,
    shard: b.ShardText = None,
    scheduler: b.Scheduler = None,
    resources: b.Resources = None,
    tls_ca: b.TlsCa = None,
    tls_cert: b.TlsCert = None,
    tls_key: b.TlsKey = None,
    model: o.Model = None,
    mask_clouds: o.MaskClouds = False,
    clouds_as: o.CloudsAs = "nodata",
    cloud_model: o.CloudModelName = None,
    trust: o.Trust = None,
    engine: o.EngineName = "auto",
    device: o.Device = "auto",
    precision: o.Precision = "auto",
    threads: b.Threads = 0,
    tile: o.TilePx = None,
    overlap: o.OverlapPx = None,
    blend: o.BlendName = "hann",
    tta: o.Tta = "none",
    batch: o.BatchSize = "auto",
    max_memory: o.MaxMemory = "auto",
    legend: m.TargetLegend = None,
    majority: m.Majority = None,
    sieve: m.Sieve = None,
    bands: o.Bands = None,
    radiometry: o.RadiometryName = "auto",
    nodata: o.Nodata = "auto",
    sensor: o.SensorName = None,
    fill: o.Fill = None,
    valid: o.Valid = "all",
    saturated: o.Saturated = "keep",
    gsd: o.GsdName = "auto",
    bounds: o.Bounds = None,
    bounds_crs: o.BoundsCrs = None,
    area: o.AreaFile = None,
    crop: o.Crop = False,
    allow_network: o.AllowNetwork = False,
    allow_driver: o.AllowDriver = None,
    require_crs: o.RequireCrs = False,
    max_pixels: o.MaxPixels = None,
    sidecars: o.UseSidecars = False,
    probabilities: o.Probabilities = None,
    confidence: o.Confidence = None,
    entropy: o.Entropy = None,
    seams: o.SeamsRaster = None,
    polygons: m.Polygons = None,
    simplify: m.Simplify = None,
    min_area: m.MinArea = None,
    accuracy: m.Accuracy = None,
    no_sidecar: o.NoSidecar = False,
    format: m.FormatName = "cog",
    co: o.CreationOptions = None,
    overwrite: o.Overwrite = False,
    no_resume: o.NoResume = False,
    dry_run: o.DryRun = False,
    sandbox: o.Sandbox = False,
    json: o.Json = False,
    log_file: LogFile = None,
    log_format: LogFormat = "json",
    quiet: o.Quiet = False,
    verbose: o.Verbose = 0,
    version: o.Version = False,
) -> None:
    """Write a land-cover map of each SCENE as a Cloud Optimized GeoTIFF.

    A folder that is no product itself stands for the scenes in it and in its
    folders; so do a pattern in quotes, a list on standard input (-), and a
    STAC collection or Parquet table. What they become is kept in a journal: the
    same command again does only what is missing, changed or failed.
    The map is <stem>_landcover.tif beside the scene, or beside its product
    folder, unless -o or --out-dir says otherwise. Standard output carries the
    paths of the maps and nothing else. What geoseg makes of a scene is told by
    `geoseg scene info SCENE`.
    """
    run_request(Request.of(locals(), task="land-cover", default_model=DEFAULT_MODEL, suffix=SUFFIX))
