"""The version string, apart from everything else so that no import is tied to the package root."""

__version__ = "0.1.0"
