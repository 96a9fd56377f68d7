"""The command line: stitchserve serve | profile | evaluate | train | stitches | bench | pull."""

import logging
import sys

from pydantic_settings import BaseSettings, CliApp, CliSubCommand, SettingsConfigDict

from stitching.train import TrainConfig, train


class Train(TrainConfig):
    """Train a family: on an image folder, or the built-in task 'digits'."""

    def cli_cmd(self) -> None:
        """Run it and say where the weights are."""
        print(train(self))


class Stitchserve(BaseSettings):
    """Inference server for stitchable neural networks."""

    model_config = SettingsConfigDict(
        cli_prog_name="stitchserve", cli_kebab_case=True, cli_implicit_flags=True, cli_hide_none_type=True
    )

    train: CliSubCommand[Train]

    def cli_cmd(self) -> None:
        """Run the chosen subcommand."""
        CliApp.run_subcommand(self)


def main(argv: list[str] | None = None) -> None:
    """The entry point. A fault the user can mend ends with one line and status 2."""
    logging.basicConfig(level=logging.INFO, format="%(levelname)s %(message)s")
    try:
        CliApp.run(Stitchserve, cli_args=argv)
    except ValueError as error:
        sys.exit(f"stitchserve: {error}")


if __name__ == "__main__":
    main()
