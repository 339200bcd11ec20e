"""``rio geoseg``: the tool as a command of rasterio's ``rio``.

``rio`` imports this module whenever it starts, so nothing but click, which it has loaded itself, is imported before
the command runs.
"""

from __future__ import annotations

import click

_NOT_HANDED_ON = {
    "aws_profile": ("--aws-profile", "set AWS_PROFILE"),
    "aws_no_sign_requests": ("--aws-no-sign-requests", "set AWS_NO_SIGN_REQUEST=YES"),
    "aws_requester_pays": ("--aws-requester-pays", "set AWS_REQUEST_PAYER=requester"),
}
"""Options of ``rio`` that it keeps in a GDAL environment of its own, and GDAL's variables that say the same."""


@click.command(
    "geoseg",
    add_help_option=False,
    context_settings={"ignore_unknown_options": True, "allow_interspersed_args": False},
    short_help="Map land cover and clouds of satellite scenes.",
)
@click.argument("arguments", nargs=-1, type=click.UNPROCESSED)
@click.pass_context
def command(context: click.Context, arguments: tuple[str, ...]) -> None:
    """Run geoseg with these arguments: the same outputs, streams and exit codes."""
    given = context.parent.params if context.parent else {}
    for name, (option, instead) in _NOT_HANDED_ON.items():
        if given.get(name):
            raise click.UsageError(f"rio's {option} does not reach geoseg; {instead} in the environment instead.")
    from geoseg_cli.cli import main

    main(arguments, "rio geoseg")
