"""`python -m keras_practice.tuning`: random search from the shell."""

from __future__ import annotations

import argparse
import signal
import sys
from collections.abc import Sequence
from types import FrameType
from typing import NoReturn

from keras_practice.data.command import Parser, quiet_start, refuse
from keras_practice.tuning.settings import Settings

_DEFAULTS = Settings()


def _range(text: str) -> tuple[float, float]:
    low, _, high = text.partition(":")
    try:
        return float(low), float(high)
    except ValueError:
        raise argparse.ArgumentTypeError(f"must be LOW:HIGH, such as 1e-5:1e-1. Got {text!r}.") from None


def _parser() -> argparse.ArgumentParser:
    parser = Parser(
        prog="python -m keras_practice.tuning",
        description="Random search over the learning rate of a recipe, evenly in its logarithm, and over "
        "the recipe's own space.",
        epilog="OUT holds trials.csv, best.keras, best.json, search.png and TensorBoard logs. The same "
        "command with the same OUT resumes where it was stopped. Exit code: 0 done, 1 every trial "
        "failed, 2 wrong input, 130 interrupted, 143 terminated.",
    )
    parser.add_argument(
        "--data",
        default=_DEFAULTS.data,
        help="data set: digits, iris, wine, breast_cancer, diabetes, hastie, xor, spirals, waves, mnist, "
        "fashion_mnist, cifar10, or an .npz file with arrays x and y (default: %(default)s)",
    )
    parser.add_argument(
        "--data-path",
        metavar="NPZ",
        help="local file for mnist, fashion_mnist or cifar10 (default: downloaded)",
    )
    parser.add_argument("--recipe", default=_DEFAULTS.recipe, help="model builder (default: %(default)s)")
    parser.add_argument(
        "--trials", type=int, default=_DEFAULTS.trials, help="number of trials (default: %(default)s)"
    )
    parser.add_argument(
        "--epochs",
        type=int,
        default=_DEFAULTS.epochs,
        help="most epochs a trial; it stops after five without improvement (default: %(default)s)",
    )
    parser.add_argument(
        "--batch-size", type=int, default=_DEFAULTS.batch_size, help="samples a batch (default: %(default)s)"
    )
    parser.add_argument(
        "--learning-rate",
        type=_range,
        default=_DEFAULTS.learning_rate,
        metavar="LOW:HIGH",
        help="range of the learning rate (default: 1e-5:1e-1)",
    )
    parser.add_argument(
        "--objective",
        metavar="SCORE",
        help="score that chooses the best trial, such as val_auc (default: val_f1; val_loss for regression)",
    )
    parser.add_argument(
        "--seed",
        type=int,
        default=_DEFAULTS.seed,
        help="fixes split, trials and training (default: %(default)s)",
    )
    parser.add_argument("--out", default="runs/tune", help="folder for the results (default: %(default)s)")
    parser.add_argument("--overwrite", action="store_true", help="start anew where OUT holds an earlier run")
    return parser


def main(arguments: Sequence[str] | None = None) -> int:
    """Runs the command; returns its exit code."""
    options = vars(_parser().parse_args(arguments))
    out, overwrite = options.pop("out"), options.pop("overwrite")
    try:
        settings = Settings(**options)
    except ValueError as error:
        refuse(error)

    def terminate(number: int, frame: FrameType | None) -> NoReturn:
        raise SystemExit(128 + number)

    before = signal.signal(signal.SIGTERM, terminate)
    try:
        with quiet_start():
            from keras_practice.tuning.study import InputError, tune

        return 0 if tune(settings, out, overwrite=overwrite) else 1
    except KeyboardInterrupt:
        code = 128 + signal.SIGINT
    except SystemExit as stop:
        code = int(stop.code or 0)
    except Exception as error:
        # Only what is wrong with the input is told in a sentence; a bug keeps its traceback.
        if not isinstance(error, InputError):
            raise
        refuse(error)
    finally:
        signal.signal(signal.SIGTERM, before)
    print(  # noqa: T201
        f"\nStopped. Finished trials are kept in {out}; the same command goes on from there.", file=sys.stderr
    )
    return code


if __name__ == "__main__":
    sys.exit(main())
