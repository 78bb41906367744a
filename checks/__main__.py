"""`keras-practice check model.keras data.npz`: a preflight from the shell."""

from __future__ import annotations

import json
import sys
import warnings
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from keras_practice.core.command import Parser, device_option, quiet_start, refuse


def _parser() -> Parser:
    parser = Parser(
        prog="keras-practice check",
        description="Looks for what would keep a compiled model from learning, before it is trained.",
        epilog="Exit code: 0 no error was found, 1 at least one error, 2 wrong input, 3 no error, but not "
        "everything could be looked at.",
    )
    parser.add_argument("model", type=Path, help="a compiled model, saved as .keras")
    parser.add_argument(
        "data",
        type=Path,
        help="an .npz file with arrays x and y (or x_train and y_train), and x_val and y_val if any; "
        "several inputs or outputs by name, as x/left and y/price; sample_weight; no y for a model with "
        "a loss of its own",
    )
    parser.add_argument(
        "--batch-size", type=int, default=32, help="samples a batch in fit (default: %(default)s)"
    )
    parser.add_argument(
        "--validation-split",
        type=float,
        default=0.0,
        help="share of the last rows that fit holds out (default: %(default)s)",
    )
    parser.add_argument("--no-shuffle", action="store_true", help="fit is called with shuffle=False")
    parser.add_argument("--no-run", action="store_true", help="structure and data alone, no training")
    parser.add_argument(
        "--budget", type=float, default=20.0, help="seconds for the short trainings (default: %(default)s)"
    )
    parser.add_argument("--seed", type=int, default=0, help="fixes the samples chosen (default: %(default)s)")
    device_option(parser)
    parser.add_argument("--html", type=Path, metavar="FILE", help="write the report as a page too")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write the report as JSON too")
    return parser


def by_part(arrays: Mapping[str, Any]) -> dict[str, Any]:
    """Arrays such as `x` and `y`; those with a name after a slash, as `x/left`, as a dictionary `x`."""
    parts: dict[str, Any] = {}
    for key, array in arrays.items():
        part, slash, name = key.partition("/")
        if not slash:
            parts[part] = array
        elif isinstance(parts.setdefault(part, {}), dict):
            parts[part][name] = array
        else:
            refuse(f"An array must have a name or be the only one of its kind. Got {part} and {key}.")
    return parts


def main(arguments: Sequence[str] | None = None) -> int:
    """Runs the command; returns its exit code."""
    options = _parser().parse_args(arguments)
    with quiet_start():
        import keras
        import tensorflow as tf

        from keras_practice.checks.inspection.own_loss import compares_labels
        from keras_practice.checks.preflight import preflight
        from keras_practice.core.files import read_npz, replacing
        from keras_practice.training.devices import select_device

    select_device(options.device)
    with quiet_start():
        tf.config.list_logical_devices()  # Where it says more.
    try:
        arrays = read_npz(options.data)
        parts = by_part(arrays)
        suffix = "" if "x" in parts else "_train"
        got = f"Got {', '.join(arrays) or 'none'}."
        if f"x{suffix}" not in parts:
            refuse(f"{options.data} must hold arrays x and y. {got}")
        if not options.model.is_file():
            refuse(f"The model file must exist. Got {options.model}.")
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # Of an optimiser that had not taken a step.
            model = keras.models.load_model(options.model)
        alone = not compares_labels(model)
        if f"y{suffix}" not in parts and not alone:
            refuse(f"{options.data} must hold arrays x and y. {got}")
        if ("x_val" in parts) != ("y_val" in parts) and not (alone and "y_val" not in parts):
            refuse(f"{options.data} must hold both x_val and y_val, or neither. {got}")
        report = preflight(
            model,
            parts[f"x{suffix}"],
            parts.get(f"y{suffix}"),
            sample_weight=parts.get("sample_weight"),
            validation_data=(parts["x_val"], parts.get("y_val")) if "x_val" in parts else None,
            validation_split=options.validation_split,
            batch_size=options.batch_size,
            shuffle=not options.no_shuffle,
            budget_s=options.budget,
            run=not options.no_run,
            seed=options.seed,
        )
        for path, text in (
            (options.html, report.html(f"Preflight of {model.name}")),
            (options.json, json.dumps(report.to_dict(), indent=2) + "\n"),
        ):
            if path is not None:
                with replacing(path) as beside:
                    beside.write_text(text, encoding="utf-8")
    except (OSError, ValueError, TypeError) as error:  # TypeError: of a layer that Keras does not know.
        refuse(" ".join(str(error).split()))
    print(report)  # noqa: T201
    return {True: 0, False: 1, None: 3}[report.passed]


if __name__ == "__main__":
    sys.exit(main())
