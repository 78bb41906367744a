"""What a check found, in words and figures."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import Literal

Severity = Literal["error", "warning", "info"]


class CheckFailedError(Exception):
    """Raised by `Report.raise_if_failed`; its message is the report."""


@dataclass(frozen=True)
class Finding:
    """One fault, and what to do about it.

    Attributes:
        check: Name of the check that found it, such as `"initial-loss"`.
        severity: `"error"` (will not learn what it should), `"warning"` or `"info"`.
        where: Layer, column or argument.
        evidence: The figure seen and the figure expected.
        cause: What most likely causes it.
        fix: One thing to do.
        source: Advice number and paper.
    """

    check: str
    severity: Severity
    where: str
    evidence: str
    cause: str
    fix: str
    source: str

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
    """

    findings: tuple[Finding, ...] = ()
    figures: Mapping[str, float] = field(default_factory=lambda: MappingProxyType({}))

    @property
    def passed(self) -> bool:
        """Whether there is no error among the findings."""
        return all(finding.severity != "error" for finding in self.findings)

    def raise_if_failed(self) -> None:
        """Raises `CheckFailedError` with the report as its message, unless it passed."""
        if not self.passed:
            raise CheckFailedError(str(self))

    def __str__(self) -> str:
        figures = ", ".join(f"{name} {value:.4g}" for name, value in self.figures.items())
        if not self.findings:
            return f"passed: {figures}" if figures else "passed"
        lines = [str(finding) for finding in self.findings]
        return "\n".join([*lines, f"measured: {figures}"] if figures else lines)
