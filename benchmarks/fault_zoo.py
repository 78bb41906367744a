"""How many faults the checks find, and how often they raise a false alarm.

    python benchmarks/fault_zoo.py
    python benchmarks/fault_zoo.py --part tuning --seeds 0 1 --jobs 2 --json zoo.json
    python benchmarks/fault_zoo.py --only weights-of-zero plain-digits
    python benchmarks/fault_zoo.py --list
    python benchmarks/fault_zoo.py --verify --only weights-of-zero plain-digits
    python benchmarks/fault_zoo.py --gate benchmarks/zoo/verdicts.json --jobs 2

`checks.preflight` looks at small programs of which it is known what is wrong with them, or that nothing is. A
fault counts as diagnosed if its true cause is among the first two errors, and as detected if there is any
error. A healthy program with an error is a false alarm. Programs that train and deserve a warning
(advisories) are counted apart: their true cause is to be among the first two errors or warnings.

A third of the programs (by a checksum of the name), and every run with a seed of 100 or more, are held out:
whoever chooses a threshold looks at `--part tuning` alone. Those in `zoo/blind_*.py` were written without
sight of the checks, and are a part of their own. `--verify` trains programs in place of checking
them, to show that a fault does harm: each faulty program beside its repaired twin. `--gate` checks a quick
part of them, and ends with exit code 1 where a verdict is worse than on record; `--record` writes such
a file.
"""

from __future__ import annotations

import argparse
import json
import math
import multiprocessing
import os
import statistics
import sys
import time
import traceback
import warnings
from collections.abc import Callable, Iterable, Iterator
from dataclasses import asdict, dataclass
from multiprocessing.connection import Connection, wait
from pathlib import Path
from typing import Any

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")

from rich.console import Console
from rich.markup import escape
from rich.progress import Progress
from zoo import (  # noqa: F401  The programs list themselves.
    advisories,
    blind_again,
    blind_data,
    blind_healthy,
    blind_models,
    faults_in_data,
    faults_in_model,
    faults_in_output,
    faults_in_training,
    healthy_plain,
    healthy_recipes,
)
from zoo.gate import changed, quick_part, records_of, worse
from zoo.program import ENTRIES, GROUPS, Entry, guessing, score

from keras_practice import checks

PROGRAMS_PER_PROCESS = 25  # TensorFlow keeps some memory of every model.
LIMIT_S = 600.0  # A program that takes longer is stopped, and counts as a failure of the checks.


@dataclass(frozen=True)
class Result:
    """What came of one program with one seed."""

    name: str
    kind: str
    group: str
    part: str
    seed: int
    expected: tuple[str, ...]
    findings: tuple[tuple[str, str], ...]  # Severity and check, in the report's order.
    seconds: float
    failure: str = ""  # The exception, where the checks or the builder raised one.
    scores: tuple[float, ...] = ()  # With --verify.

    def checks(self, *severities: str) -> list[str]:
        """Names of the checks with findings of these severities, in order."""
        return [check for severity, check in self.findings if severity in severities]

    @property
    def detected(self) -> bool:
        """Whether there is an error; for an advisory, its true cause as a warning or an error."""
        if self.kind == "advisory":
            return any(check in self.expected for check in self.checks("error", "warning"))
        return bool(self.checks("error")) or (self.kind == "healthy" and bool(self.failure))

    @property
    def diagnosed(self) -> bool:
        """Whether the true cause is among the first two errors (advisories: errors and warnings)."""
        severities = ("error", "warning") if self.kind == "advisory" else ("error",)
        return any(check in self.expected for check in self.checks(*severities)[:2])

    @property
    def verdict(self) -> str:
        """One word or two."""
        if self.kind == "healthy":
            return "false alarm" if self.detected else "ok"
        if self.detected and not self.diagnosed:
            return "not first" if self.kind == "advisory" else "wrong cause"
        return "ok" if self.diagnosed else "missed"


def examined(entry: Entry, seed: int, budget_s: float) -> Result:
    """Builds a program and has it checked."""
    start = time.perf_counter()
    try:
        program = entry.build(seed)
        start = time.perf_counter()  # Building is the program's own time.
        report = checks.preflight(
            program.model,
            program.samples.x,
            program.samples.y,
            **program.preflight_arguments(),
            budget_s=budget_s,
            run=True,
            seed=seed,
        )
        findings = tuple((finding.severity, finding.check) for finding in report.findings)
        return _result(entry, seed, start, findings)
    except Exception:
        return _result(entry, seed, start, (), traceback.format_exc())


def verified(entry: Entry, seed: int, budget_s: float) -> Result:
    """Trains a program, and its repaired twin where there is one."""
    start, scores = time.perf_counter(), []
    options: list[dict[str, Any]] = [{"fault": True}, {"fault": False}] if entry.has_twin else [{}]
    failures = []
    for option in options:
        try:
            program = entry.build(seed, **option)
            arguments = program.preflight_arguments()
            del arguments["task"]
            if program.samples.y is None:
                arguments = {}
            program.model.fit(
                program.samples.x, program.samples.y, epochs=program.epochs, verbose=0, **arguments
            )
            scores.append(score(program))
        except Exception:
            scores.append(math.nan)
            failures.append(traceback.format_exc())
    if not entry.has_twin:
        scores.append(guessing(program.samples))
    return _result(entry, seed, start, (), "".join(failures), tuple(scores))


def built(entry: Entry, seed: int, budget_s: float) -> Result:
    """Builds a program, and its twin, and runs each on a few samples."""
    start = time.perf_counter()
    try:
        for options in [{"fault": True}, {"fault": False}] if entry.has_twin else [{}]:
            program = entry.build(seed, **options)
            x = program.samples.x_test
            few = {name: part[:4] for name, part in x.items()} if isinstance(x, dict) else x[:4]
            program.model.predict(few, verbose=0)
            if program.model.optimizer is None:
                raise ValueError(f"{entry.name} must compile its model.")
        return _result(entry, seed, start, ())
    except Exception:
        return _result(entry, seed, start, (), traceback.format_exc())


def _result(
    entry: Entry,
    seed: int,
    start: float,
    findings: tuple[tuple[str, str], ...],
    failure: str = "",
    scores: tuple[float, ...] = (),
) -> Result:
    seconds = time.perf_counter() - start
    part = entry.part(seed)
    return Result(
        entry.name, entry.kind, entry.group, part, seed, entry.causes, findings, seconds, failure, scores
    )


MODES: dict[str, Callable[[Entry, int, float], Result]] = {
    "check": examined,
    "verify": verified,
    "build": built,
}
Work = tuple[str, int]


def _worker(pipe: Connection, mode: str, budget_s: float, threads: int) -> None:
    """Takes programs from the pipe one by one, until there is nothing more."""
    import tensorflow as tf

    tf.config.threading.set_intra_op_parallelism_threads(threads)
    tf.config.threading.set_inter_op_parallelism_threads(threads)
    warnings.simplefilter("ignore")  # Some programs deserve them.
    while (work := pipe.recv()) is not None:
        name, seed = work
        pipe.send(MODES[mode](ENTRIES[name], seed, budget_s))


class _Process:
    """A fresh process and what it is at."""

    def __init__(self, mode: str, budget_s: float, threads: int) -> None:
        context = multiprocessing.get_context("spawn")
        self.pipe, theirs = context.Pipe()
        self.process = context.Process(target=_worker, args=(theirs, mode, budget_s, threads), daemon=True)
        self.process.start()
        theirs.close()
        self.left = PROGRAMS_PER_PROCESS
        self.work: Work | None = None
        self.since = 0.0

    def give(self, work: Work) -> None:
        """Sends a program to it."""
        self.work, self.since, self.left = work, time.perf_counter(), self.left - 1
        self.pipe.send(work)

    def answer(self) -> Result:
        """The result; if the process died of it, that is the result."""
        assert self.work is not None
        entry, seed = ENTRIES[self.work[0]], self.work[1]
        try:
            result: Result = self.pipe.recv()
        except (EOFError, OSError):
            self.left = 0
            self.process.join()
            result = _result(entry, seed, self.since, (), f"The process ended with {self.process.exitcode}.")
        self.work = None
        return result

    def late(self) -> Result | None:
        """A failure, and an end, if it has taken too long."""
        if self.work is None or time.perf_counter() - self.since < LIMIT_S:
            return None
        entry, seed = ENTRIES[self.work[0]], self.work[1]
        self.stop()
        self.left, self.work = 0, None
        return _result(entry, seed, self.since, (), f"Stopped after {LIMIT_S:.0f} s.")

    def stop(self) -> None:
        """Ends it, at once if it is at work."""
        if self.work is None:
            try:
                self.pipe.send(None)
            except OSError:
                return  # It has ended by itself.
            self.process.join(10)
        self.process.terminate()


def results_of(works: Iterable[Work], mode: str, jobs: int, budget_s: float) -> Iterator[Result]:
    """Runs all programs in `jobs` processes, and gives each result as it comes."""
    waiting = list(works)[::-1]
    threads = max(1, (os.cpu_count() or 1) // jobs)
    processes: list[_Process] = []
    try:
        while waiting or processes:
            while waiting and len(processes) < jobs:
                processes.append(_Process(mode, budget_s, threads))
                processes[-1].give(waiting.pop())
            ready = wait([process.pipe for process in processes], timeout=1.0)
            for process in list(processes):
                result = process.answer() if process.pipe in ready else process.late()
                if result is None:
                    continue
                if waiting and process.left:
                    process.give(waiting.pop())
                else:
                    processes.remove(process)
                    process.stop()
                yield result
    finally:
        for process in processes:
            process.stop()


COLOURS = {
    "ok": "green",
    "false alarm": "red",
    "missed": "red",
    "wrong cause": "yellow",
    "not first": "yellow",
    "fails": "red",
}


def line_of(result: Result, mode: str) -> str:
    """One line for the screen."""
    start = f"{result.kind:8} {result.part:8} seed {result.seed:<3} {result.name:44}"
    if mode == "verify":
        return f"{start} {_training(result)}  {result.seconds:.1f} s"
    if mode == "build":
        return f"{start} {_coloured('fails' if result.failure else 'ok')}  {result.seconds:.1f} s"
    expected = " or ".join(result.expected) or "nothing"
    found = ", ".join(f"{severity} {check}" for severity, check in result.findings[:2]) or "nothing"
    failure = escape(f" [{result.failure.strip().splitlines()[-1]}]") if result.failure else ""
    return (
        f"{start} expected {expected}; found {found}{failure}  "
        f"{_coloured(result.verdict)}  {result.seconds:.1f} s"
    )


def _coloured(word: str) -> str:
    return f"[{COLOURS[word]}]{word}[/]"


def _training(result: Result) -> str:
    first, second = (f"{value:6.3f}" if math.isfinite(value) else "does not run" for value in result.scores)
    if result.kind == "healthy":
        return f"learns {first}, guessing gives {second}"
    return f"with the fault {first}, repaired {second}"


def share(results: list[Result], what: str) -> str:
    """How many of some results have a property."""
    count = sum(getattr(result, what) for result in results)
    return f"{count} of {len(results)} ({100 * count / len(results):.1f} %)" if results else "none of 0"


def summary(results: list[Result]) -> Iterator[str]:
    """The figures, for each part on its own."""
    for part in PARTS:
        here = [result for result in results if result.part == part]
        if not here:
            continue
        kinds = {kind: [result for result in here if result.kind == kind] for kind in KINDS}
        yield ""
        yield f"{part} part"
        yield f"  faulty      diagnosed {share(kinds['faulty'], 'diagnosed')}"
        yield f"              detected {share(kinds['faulty'], 'detected')}"
        for group in GROUPS:
            if of_group := [result for result in kinds["faulty"] if result.group == group]:
                diagnosed, detected = share(of_group, "diagnosed"), share(of_group, "detected")
                yield f"    {group:10}diagnosed {diagnosed}, detected {detected}"
        yield f"  advisories  diagnosed {share(kinds['advisory'], 'diagnosed')}"
        yield f"              found at all {share(kinds['advisory'], 'detected')}"
        yield f"  healthy     false alarms {share(kinds['healthy'], 'detected')}"
        for group in dict.fromkeys(result.group for result in kinds["healthy"]):
            of_group = [result for result in kinds["healthy"] if result.group == group]
            yield f"    {group:12}false alarms {share(of_group, 'detected')}"
        warned = [result for result in kinds["healthy"] if result.checks("warning")]
        yield f"              {len(warned)} with a warning"
        seconds = [result.seconds for result in here]
        yield f"  seconds     median {statistics.median(seconds):.1f}, largest {max(seconds):.1f}"
        yield f"  failures    {sum(bool(result.failure) for result in here)}"


KINDS = ("faulty", "advisory", "healthy")
PARTS = ("tuning", "held-out", "blind")


def chosen(options: argparse.Namespace) -> list[Work]:
    """Names and seeds."""
    return [
        (entry.name, seed)
        for seed in options.seeds
        for entry in ENTRIES.values()
        if (not options.only or entry.name in options.only)
        and entry.kind in options.kinds
        and options.part in ("all", entry.part(seed))
    ]


def judged(records: dict[str, Any], results: list[Result], console: Console) -> int:
    """Prints what is worse than on record, or only other; returns the exit code."""
    if other := changed(records, results):
        console.print(f"\nother first errors, and the same verdict: {', '.join(other)}", markup=False)
    wrong = worse(records, results)
    for sentence in wrong:
        console.print(f"WORSE {sentence}", markup=False)
    console.print(f"\n{len(results)} programs, {len(wrong)} worse than on record", markup=False)
    return 1 if wrong else 0


def arguments() -> argparse.Namespace:
    """The command line."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--part", choices=(*PARTS, "all"), default="all")
    parser.add_argument("--kinds", choices=KINDS, nargs="+", default=KINDS)
    parser.add_argument("--seeds", type=int, nargs="+", default=[0])
    parser.add_argument("--only", nargs="+", default=[], metavar="NAME")
    parser.add_argument("--jobs", type=int, default=1, help="processes at a time")
    parser.add_argument("--budget-s", type=float, default=20.0, help="budget_s of the checks")
    parser.add_argument("--json", type=Path, metavar="FILE")
    parser.add_argument("--record", type=Path, metavar="FILE", help="write the verdicts, for --gate")
    mode = parser.add_mutually_exclusive_group()
    mode.add_argument("--list", action="store_true", help="list the programs and build nothing")
    mode.add_argument("--build", dest="mode", action="store_const", const="build", help="build them only")
    mode.add_argument("--verify", dest="mode", action="store_const", const="verify", help="train them")
    mode.add_argument("--gate", type=Path, metavar="FILE", help="check a quick part against FILE")
    parser.set_defaults(mode="check")
    options = parser.parse_args()
    if unknown := [name for name in options.only if name not in ENTRIES]:
        parser.error(f"--only takes names of programs (see --list). Got {', '.join(unknown)}.")
    if options.jobs < 1:
        parser.error(f"--jobs must be positive. Got {options.jobs}.")
    return options


def list_programs(works: list[Work]) -> None:
    """Prints what there is."""
    for name, seed in works:
        entry = ENTRIES[name]
        causes = " or ".join(entry.causes) or "healthy"
        print(f"{entry.kind:8} {entry.part(seed):8} {entry.group:11} {name:44} {causes:42} {entry.about}")
    for kind in KINDS:
        parts = [ENTRIES[name].part(seed) for name, seed in works if ENTRIES[name].kind == kind]
        shares = ", ".join(f"{parts.count(part)} {part}" for part in PARTS)
        print(f"{len(parts)} {kind}: {shares}")


def main() -> int:
    """Runs what was asked for; returns the exit code."""
    options = arguments()
    works = chosen(options)
    records = json.loads(options.gate.read_text()) if options.gate else {}
    if records:
        works = [(name, 0) for name in quick_part(records)]
        if gone := [name for name, _ in works if name not in ENTRIES]:
            sys.exit(f"error: Programs on record must be on the list. Got {', '.join(gone)}.")
    if options.list:
        list_programs(works)
        return 0
    console = Console(highlight=False, soft_wrap=True)
    results = []
    with Progress(console=console, transient=True, disable=not sys.stdout.isatty()) as progress:
        bar = progress.add_task("programs", total=len(works))
        for result in results_of(works, options.mode, options.jobs, options.budget_s):
            results.append(result)
            progress.advance(bar)
            console.print(line_of(result, options.mode))
            if result.failure and options.mode != "verify":
                console.print(result.failure, markup=False)
    if options.mode == "check" and not options.gate:
        for line in summary(results):
            console.print(line, markup=False)
    if options.json:
        options.json.write_text(json.dumps([asdict(result) for result in results], indent=1) + "\n")
    if options.record:
        options.record.write_text(records_of(results))
    return judged(records, results, console) if options.gate else 0


if __name__ == "__main__":
    sys.exit(main())
