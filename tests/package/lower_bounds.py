"""Prints the oldest versions that setup.cfg promises, as requirements for pip.

python tests/package/lower_bounds.py > oldest.txt
"""

import configparser
import re
import sys
from pathlib import Path

SETUP = Path(__file__).parents[2] / "setup.cfg"


def pinned(requirement):
    """`numpy==1.26.*` for `numpy>=1.26`; a bound with three numbers is a release of its own.

    Within a series pip takes the newest: what the first release of a series broke is mended there.
    """
    match = re.fullmatch(r"([\w.-]+(?:\[\w+\])?)>=(\d+)(?:\.(\d+))?(\.\d+)?", requirement)
    if not match:
        raise SystemExit(f"Each requirement must have a lower bound, such as numpy>=1.26. Got {requirement}.")
    name, major, minor, rest = match.groups()
    return f"{name}=={major}.{minor or 0}{rest or '.*'}"


def requirements(text):
    config = configparser.ConfigParser()
    config.read_string(text)
    return [pinned(line) for line in config["options"]["install_requires"].split()]


if __name__ == "__main__":
    sys.stdout.write("\n".join(requirements(SETUP.read_text())) + "\n")
