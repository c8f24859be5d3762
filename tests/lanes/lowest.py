"""Prints what a CPU needs by setup.cfg, each at the lowest version it allows, as constraints for
pip: `python tests/lanes/lowest.py`."""

import configparser
import re
from pathlib import Path

SETUP = Path(__file__).resolve().parents[2] / "setup.cfg"


def lowest(requirements: str) -> list[str]:
    """`name==version` for each line that has a lower bound or one version.

    Args:
        requirements: as in setup.cfg, one a line, comments among them.

    Returns:
        The pins, in the same order; what has no bound is left to pip.
    """
    found = (
        re.match(r"([\w.-]+)(?:\[[\w-]+\])?(?:>=|==)([\w.]+)", line.strip())
        for line in requirements.splitlines()
    )
    return [f"{match[1]}=={match[2]}" for match in found if match]


if __name__ == "__main__":
    parser = configparser.ConfigParser()
    parser.read(SETUP)
    print("\n".join(lowest(parser["options.extras_require"]["cpu"])))
    # As in the extra `tpu`: TensorFlow 2.19 wants a protobuf that later ones, which TFDS takes,
    # refuse.
    print("tensorflow-metadata<1.18")
    print("\n".join(lowest(parser["options"]["install_requires"])))
