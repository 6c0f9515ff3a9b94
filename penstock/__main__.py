"""The `penstock` command: all verbs of all rooms, by name."""

from penstock.command import run
from penstock.verbs import VERBS


def main() -> None:
    """Run the command line of this process."""
    run("penstock", VERBS)


if __name__ == "__main__":
    main()
