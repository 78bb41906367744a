"""Whether `checks.preflight` is quiet for every recipe on every bundled data set that suits it.

    python benchmarks/quiet_recipes.py
    python benchmarks/quiet_recipes.py --data mnist.npz

Each recipe is built with its defaults, compiled by `compile_for` and looked at with its data set. Prints a
line a pair, and in the end how many raised an error or a warning, with the longest time. With `--data`, MNIST
is looked at too, which is large enough for `lenet5`, `alexnet` and `googlenet`.
"""

import argparse
import time

import keras

from keras_practice import checks, data, recipes

BUNDLED = ("digits", "iris", "wine", "breast_cancer", "diabetes", "hastie", "xor", "spirals", "waves")


def main() -> None:
    """Prints what was found."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--data", metavar="FILE", help="a local mnist.npz")
    parser.add_argument("--only", nargs="+", default=[], metavar="NAME", help="recipes or data sets")
    options = parser.parse_args()
    sets = {name: data.load(name) for name in BUNDLED}
    if options.data:
        sets["mnist"] = data.load("mnist", path=options.data)
    pairs, loud, longest = 0, [], 0.0
    for set_name, dataset in sets.items():
        for name in recipes.names():
            if options.only and not {set_name, name} & set(options.only):
                continue
            found = looked_at(name, dataset)
            if found is None:
                continue
            report, seconds = found
            pairs, longest = pairs + 1, max(longest, seconds)
            said = [f"{f.severity} {f.check}" for f in report.findings if f.severity != "info"]
            loud += [f"{name} on {set_name}: {words}" for words in said]
            print(f"{set_name:14} {name:14} {seconds:5.1f} s  {', '.join(said) or 'quiet'}", flush=True)
            keras.utils.clear_session()
    errors = [words for words in loud if ": error" in words]
    print(f"{pairs} pairs, {len(errors)} errors, {len(loud) - len(errors)} warnings, at most {longest:.1f} s")


def looked_at(name: str, dataset: data.Dataset) -> tuple[checks.Report, float] | None:
    """The report and its seconds; `None` for a recipe that does not take such inputs."""
    keras.utils.set_random_seed(0)
    if name == "autoencoder":
        dataset = dataset.rebuilding_input()
    try:
        model = recipes.get(name)(dataset.input_shape, dataset.task)
    except ValueError:  # Too small an input, or one without steps or pixels.
        return None
    recipes.compile_for(model, dataset.task)
    start = time.perf_counter()
    report = checks.preflight(
        model, dataset.train.x, dataset.train.y, validation_data=(dataset.val.x, dataset.val.y)
    )
    return report, time.perf_counter() - start


if __name__ == "__main__":
    main()
