"""What a check found, in words and figures."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass, field
from types import MappingProxyType
from typing import Any, Literal, get_args

from rich.box import SIMPLE_HEAD
from rich.console import Console
from rich.table import Table
from rich.text import Text

from keras_practice.checks.catalog import rank_of
from keras_practice.rendering.pages import render
from keras_practice.rendering.tables import plain
from keras_practice.rendering.words import sentence_case

Severity = Literal["error", "warning", "info"]
SEVERITIES: tuple[str, ...] = get_args(Severity)

_WIDTH = 110  # characters


class CheckFailedError(Exception):
    """Raised by `Report.raise_if_failed`; its message is the report."""


@dataclass(frozen=True)
class Finding:
    """One fault, and what to do about it.

    Attributes:
        check: Name of the check that found it, one of `checks.catalog`, such as `"initial-loss"`.
        severity: `"error"` (will not learn what it should), `"warning"` or `"info"`.
        where: Layer, column or argument.
        evidence: The figure seen and the figure expected.
        cause: What most likely causes it.
        fix: One thing to do.
        source: Advice number and paper.

    Raises:
        ValueError: If there is no check of this name.
    """

    check: str
    severity: Severity
    where: str
    evidence: str
    cause: str
    fix: str
    source: str

    def __post_init__(self) -> None:
        rank_of(self.check)

    def __str__(self) -> str:
        return (
            f"{self.severity.upper()} {self.check} ({self.where}): {self.evidence} "
            f"Likely cause: {self.cause} Try: {self.fix} [{self.source}]"
        )


@dataclass(frozen=True)
class Report:
    """The findings of one or more checks, most likely root cause first.

    Attributes:
        findings: What is wrong; empty if nothing is.
        figures: What was measured, by name.
        unlooked: Parts that could not be looked at, each with the reason in one sentence; empty
            where everything was.
    """

    findings: tuple[Finding, ...] = ()
    figures: Mapping[str, float] = field(default_factory=lambda: MappingProxyType({}))
    unlooked: tuple[str, ...] = ()

    @property
    def passed(self) -> bool | None:
        """Whether no finding is an error; `None` where none is, but not everything was looked at."""
        if any(finding.severity == "error" for finding in self.findings):
            return False
        return None if self.unlooked else True

    def raise_if_failed(self) -> None:
        """Raises `CheckFailedError` with the report as its message, unless it passed.

        What could not be looked at has not passed.
        """
        if not self.passed:
            raise CheckFailedError(str(self))

    def to_dict(self) -> dict[str, Any]:
        """The report as plain lists, dictionaries, strings and numbers, as JSON takes them."""
        return {
            "passed": self.passed,
            "unlooked": list(self.unlooked),
            "findings": [asdict(finding) for finding in self.findings],
            "figures": {name: float(value) for name, value in self.figures.items()},
        }

    def html(self, title: str = "Checks") -> str:
        """The report as one page that loads nothing from anywhere.

        Args:
            title: Its heading. Defaults to `"Checks"`.
        """
        return render(
            "checks_report.html",
            title=title,
            passed=self.passed,
            counts=self._counts(),
            unlooked=self.unlooked,
            findings=self.findings,
            figures={name: f"{value:.4g}" for name, value in self.figures.items()},
        )

    def __str__(self) -> str:
        figures = ", ".join(f"{name} {value:.4g}" for name, value in self.figures.items())
        if not self.findings and not self.unlooked:
            return f"passed: {figures}" if figures else "passed"

        def show(console: Console) -> None:
            for part in self.unlooked:
                console.print(Text(f"Not looked at: {part}"))
            if self.findings:
                console.print(f"{sentence_case(self._counts())}, most likely root cause first:")
                console.print(self._table())
            else:
                console.print("Nothing was found in the rest.")
            if figures:
                console.print(Text(f"measured: {figures}"))

        return plain(show, _WIDTH)

    def _counts(self) -> str:
        counts = [(sum(f.severity == s for f in self.findings), s) for s in SEVERITIES]
        words = {"error": "error", "warning": "warning", "info": "remark"}
        return ", ".join(f"{n} {words[s]}{'s' if n > 1 else ''}" for n, s in counts if n) or "nothing found"

    def _table(self) -> Table:
        table = Table(box=SIMPLE_HEAD, pad_edge=False, padding=(0, 2, 0, 0))
        table.add_column("check", no_wrap=True)
        table.add_column("where", max_width=20, overflow="fold")
        table.add_column("what was seen, why, and what to try")
        for number, finding in enumerate(self.findings, 1):
            words = (
                finding.evidence,
                f"Likely cause: {finding.cause}",
                f"Try: {finding.fix} [{finding.source}]",
            )
            said = "\n".join(map(sentence_case, words)) + ("\n" if number < len(self.findings) else "")
            check = f"{number} {finding.severity.upper()}\n  {finding.check}"
            table.add_row(Text(check), Text(finding.where), Text(said))
        return table


def gravest_first(findings: Iterable[Finding]) -> list[Finding]:
    """Errors, then warnings, then remarks; each kind in the order given."""
    return sorted(findings, key=lambda finding: SEVERITIES.index(finding.severity))
