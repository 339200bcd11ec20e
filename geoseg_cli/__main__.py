"""``python -m geoseg_cli`` and the console script ``geoseg`` are the same tool."""

from geoseg_cli.cli import main

if __name__ == "__main__":
    main()
