"""Where the bundles lie that came with geoseg; apart from ``bundle``, so that a shell can ask without waiting."""

from __future__ import annotations

from pathlib import Path

CARD_FILE = "item.json"


def bundle_folders() -> list[Path]:
    """Folders of the bundles that came with geoseg, sorted by name."""
    package = Path(__file__).resolve().parent
    # A wheel carries the bundles inside the package; in a checkout they lie beside it.
    root = package / "models" if (package / "models").is_dir() else package.parent / "models"
    return sorted(path.parent for path in root.glob(f"*/{CARD_FILE}"))
