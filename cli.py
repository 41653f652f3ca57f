"""The command line: parses, calls one function of a stage, prints.  No logic here."""

import sys

import typer

from cqr.errors import UserError

app = typer.Typer(
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode="rich",
    context_settings={"help_option_names": ["-h", "--help"]},
    help="Find an image with an image and a sentence.",
)


@app.callback()
def _app() -> None:
    pass


def main() -> None:
    """Run the command line; what a user caused ends as one sentence, not a traceback."""
    try:
        app()
    except UserError as error:
        print(f"Error: {error}", file=sys.stderr)
        sys.exit(1)
    except KeyboardInterrupt:
        print("Interrupted: what was finished is kept.", file=sys.stderr)
        sys.exit(130)


if __name__ == "__main__":
    main()
