"""Classes, bands and constants as TOML; no code."""
