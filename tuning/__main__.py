"""`keras-practice tune`: hyperparameter search from the shell."""

from __future__ import annotations

import argparse
import math
import signal
import sys
from collections.abc import Callable, Sequence
from types import FrameType
from typing import Any, NoReturn

from keras_practice.core.command import Parser, device_option, quiet_start, refuse
from keras_practice.tuning.engine_choice import ENGINES
from keras_practice.tuning.settings import SEARCHES, SPACES, Settings

_DEFAULTS = Settings()
_WAIT = 600.0
_OF_WORKERS = ("join", "wait", "worker")
_LEFT = "Left. A trial that was running is run again by another worker."


def _range(text: str) -> tuple[float, float]:
    low, _, high = text.partition(":")
    try:
        return float(low), float(high)
    except ValueError:
        raise argparse.ArgumentTypeError(f"must be LOW:HIGH, such as 1e-5:1e-1. Got {text!r}.") from None


def _parser() -> argparse.ArgumentParser:
    parser = Parser(
        prog="keras-practice tune",
        description="Search over the learning rate of a recipe, evenly in its logarithm, and over its "
        "other hyperparameters.",
        epilog="OUT holds report.html, trials.csv, best.keras, best.json, search.png and TensorBoard logs. "
        "The same command with the same OUT resumes where it was stopped. With --folds or --repeats the "
        "mean over all trainings decides; best.keras is then one more training of the best hyperparameters "
        "on the training split. Exit code: 0 done, 1 every trial failed, 2 wrong input, 130 interrupted, "
        "143 terminated.",
    )
    whole = {
        "trials": ("N", "most trials; a grid or a small space may have fewer"),
        "epochs": ("N", "most epochs a trial; it stops after five without improvement"),
        "batch-size": ("N", "samples a batch, where that is not searched"),
        "folds": ("K", "cross-validation over the training and validation samples; 1: the validation split"),
        "repeats": ("N", "trainings of each trial, or of each of its folds, from different seeds"),
        "keep": ("N", "trials whose models are kept in OUT/search, the best ones"),
        "seed": ("N", "fixes split, trials and training"),
    }
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
        "--search",
        choices=SEARCHES,
        default=_DEFAULTS.search,
        help="how trials are chosen: at random; all points of a grid of at most --trials; hyperband (many "
        "with few epochs, the best again with more); bayesian (default: %(default)s)",
    )
    parser.add_argument(
        "--space",
        choices=SPACES,
        default=_DEFAULTS.space,
        help="what is searched beside the learning rate: narrow, the one or two hyperparameters that matter "
        "most in the recipe, which suits 16 trials; wide, also widths, depth, penalties, optimizer and "
        "batch size, which wants 50 and more; none, but what --set names (default: %(default)s)",
    )
    parser.add_argument(
        "--set",
        action="append",
        default=[],
        metavar="NAME=WHAT",
        help="searches or sets one hyperparameter, in the place of the space's own; may be repeated. WHAT is "
        "LOW:HIGH (even), log:LOW:HIGH (even in the logarithm), choice:A,B,... or a fixed value; widths of "
        "a stack are joined by '-'. Such as dropout=0:0.5, l2=log:1e-6:1e-2, units=choice:64-32,128-64, "
        "optimizer=sgd, batch_size=choice:32,64",
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
        help="score that chooses the best trial, such as val_auc, val_accuracy or val_r2 (default: val_f1; "
        "val_loss for regression)",
    )
    for name, (metavar, text) in whole.items():
        parser.add_argument(
            f"--{name}",
            type=int,
            default=getattr(_DEFAULTS, name.replace("-", "_")),
            metavar=metavar,
            help=f"{text} (default: %(default)s)",
        )
    parser.add_argument(
        "--prune",
        action="store_true",
        help="end a trial at an epoch at which it is worse than the median of at least four trials before it",
    )
    parser.add_argument(
        "--workers",
        type=int,
        metavar="N",
        help="processes on this machine that run trials side by side (default: 1; with Ray, wherever it has "
        "them, one for each core)",
    )
    parser.add_argument(
        "--chief",
        metavar="[HOST:]PORT",
        help="only hand trials out, to workers that join at PORT of this machine, or of HOST, which is then "
        "open to whoever reaches it",
    )
    parser.add_argument(
        "--join",
        metavar="HOST:PORT",
        help="run trials for the chief there, which knows the settings; --data or --data-path names the data "
        "file where it has another place here",
    )
    parser.add_argument(
        "--wait",
        type=float,
        default=_WAIT,
        metavar="SECONDS",
        help="how long to wait for the chief to join, at first and when it is gone (default: %(default)g)",
    )
    parser.add_argument("--worker", type=int, help=argparse.SUPPRESS)  # Which of a chief's own it is.
    parser.add_argument(
        "--engine",
        choices=tuple(ENGINES),
        default="local",
        help="what runs the trials: this program, or Ray, which keras-practice[ray] brings "
        "(default: %(default)s)",
    )
    parser.add_argument(
        "--ray-address",
        metavar="ADDRESS",
        help="Ray cluster that runs the trials and that this machine is part of: auto or HOST:PORT "
        "(default: a Ray of this machine alone)",
    )
    device_option(parser)
    parser.add_argument("--out", default="runs/tune", help="folder for the results (default: %(default)s)")
    parser.add_argument("--overwrite", action="store_true", help="start anew where OUT holds an earlier run")
    return parser


def main(arguments: Sequence[str] | None = None) -> int:
    """Runs the command; returns its exit code."""
    options = vars(_parser().parse_args(arguments))
    if options["join"] is not None:
        return _quietly(_joining(options), _LEFT, options["device"])
    out, overwrite = options.pop("out"), options.pop("overwrite")
    shared = {name: options.pop(name) for name in ("workers", "chief", "engine", "ray_address")}
    device = options.pop("device")
    for name in _OF_WORKERS:
        del options[name]
    options["set"] = tuple(options["set"])
    try:
        settings = Settings(**options)
    except ValueError as error:
        refuse(error)

    def search() -> int:
        from keras_practice.tuning.study import tune

        return 0 if tune(settings, out, overwrite=overwrite, **shared) else 1

    return _quietly(
        search, f"Stopped. Finished trials are kept in {out}; the same command goes on from there.", device
    )


def _joining(options: dict[str, Any]) -> Callable[[], int]:
    """What `--join` asks for."""
    plain = vars(_parser().parse_args([]))
    allowed = ("data", "data_path", "device", *_OF_WORKERS)
    if given := [name for name in options if name not in allowed and options[name] != plain[name]]:
        refuse(
            "A worker takes --data, --data-path, --device and --wait; all else comes from the chief. "
            f"Got --{', --'.join(given).replace('_', '-')}."
        )
    if not 0 <= options["wait"] < math.inf:
        refuse(f"wait must be a number of seconds, 0 or more. Got {options['wait']:g}.")

    def run() -> int:
        from keras_practice.core.errors import InputError
        from keras_practice.tuning.engines.addresses import address_of
        from keras_practice.tuning.engines.chief_worker.worker import join

        try:
            address = address_of(options["join"])
        except ValueError as error:
            raise InputError(str(error)) from error
        return join(
            address,
            wait=options["wait"],
            data=None if options["data"] == plain["data"] else options["data"],
            data_path=options["data_path"],
            number=options["worker"],
        )

    return run


def _quietly(run: Callable[[], int], farewell: str, device: str) -> int:
    """Runs a command to its exit code, on the device of `--device`."""

    def terminate(number: int, frame: FrameType | None) -> NoReturn:
        raise SystemExit(128 + number)

    before = signal.signal(signal.SIGTERM, terminate)
    try:
        with quiet_start():
            from keras_practice.core.errors import InputError
            from keras_practice.training.devices import select_device

        select_device(device)
        return run()
    except KeyboardInterrupt:
        code = 128 + signal.SIGINT
    except SystemExit as stop:
        if stop.code == 2:  # Refused in a sentence; nothing was begun.
            raise
        code = int(stop.code or 0)
    except Exception as error:
        # Only what is wrong with the input is told in a sentence; a bug keeps its traceback.
        if not isinstance(error, InputError):
            raise
        refuse(error)
    finally:
        signal.signal(signal.SIGTERM, before)
    print(f"\n{farewell}", file=sys.stderr)  # noqa: T201
    return code


if __name__ == "__main__":
    sys.exit(main())
