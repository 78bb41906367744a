"""`python -m keras_practice.recipes --devices`: the old name of `keras-practice doctor`."""

import importlib
import sys

# By its name alone, since the command stands floors above; goes with the next release.
main = importlib.import_module("keras_practice.training.doctor_report").main

print("python -m keras_practice.recipes --devices is now keras-practice doctor.", file=sys.stderr)  # noqa: T201
sys.exit(main([argument for argument in sys.argv[1:] if argument != "--devices"]))
