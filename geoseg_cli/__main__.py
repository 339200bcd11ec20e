"""``python -m geoseg_cli`` and the console script ``geoseg`` are the same tool."""

import signal


def main() -> None:
    """Run the command line of this process."""
    # Until the tool listens itself, Ctrl-C ends it as it ends any program: without a traceback of what was imported.
    if signal.getsignal(signal.SIGINT) is signal.default_int_handler:
        signal.signal(signal.SIGINT, signal.SIG_DFL)
    from geoseg_cli.cli import main as run

    run()


if __name__ == "__main__":
    main()
