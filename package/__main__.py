"""`python -m keras_practice`: the same as the command `keras-practice`."""

import sys

from keras_practice.cli import main

sys.exit(main())
