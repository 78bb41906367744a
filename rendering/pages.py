"""How the package's pages look: one file each, with nothing loaded from anywhere."""

from __future__ import annotations

from html import escape


def page(title: str, body: str, reload: int | None = None) -> str:
    """A page of HTML, for light and dark screens, wide and narrow ones.

    Args:
        title: Its title, as plain text.
        body: What is in it, as HTML; strings of the user's are escaped already.
        reload: Seconds after which it loads itself anew. Defaults to `None`, never.
    """
    refresh = f'<meta http-equiv="refresh" content="{reload}">' if reload else ""
    return f"""<!DOCTYPE html>
<html lang="en"><head><meta charset="utf-8">{refresh}
<meta name="viewport" content="width=device-width, initial-scale=1">
<title>{escape(title)}</title><style>{_STYLE}</style></head>
<body><main>
{body}
</main></body></html>
"""


_STYLE = """
:root { color-scheme: light dark; --page: #f4f6f8; --card: #ffffff; --ink: #1f2430; --soft: #5b6472;
  --grid: #dfe3e8; --running: #1f6fbf; --finished: #1a7f4b; --failed: #c0362c;
  --notice: #b7791f; --hint: #fff3d6; }
@media (prefers-color-scheme: dark) { :root { --page: #11141a; --card: #1a1e26; --ink: #eceff4;
  --soft: #a9b2c0; --grid: #333a45; --running: #2a6db8; --finished: #24794c; --failed: #b8392f;
  --notice: #a8741f; --hint: #3a301a; } }
* { box-sizing: border-box; }
body { margin: 0; background: var(--page); color: var(--ink); font: 1rem/1.5 system-ui, sans-serif;
  font-variant-numeric: tabular-nums; overflow-wrap: anywhere; }
main { max-width: 84rem; margin: 0 auto; padding: clamp(0.75rem, 3vw, 2rem); }
h1 { font-size: 1.6rem; line-height: 1.25; margin: 0 0 0.5rem; }
h2 { font-size: 1.15rem; margin: 2rem 0 0.75rem; }
h3 { font-size: 1rem; margin: 0 0 0.5rem; }
p { margin: 0.35rem 0; }
.soft { color: var(--soft); font-size: 0.875rem; }
.pill { color: #fff; border-radius: 1rem; padding: 0.15rem 0.7rem; font-size: 0.875rem; font-weight: 600; }
.running { background: var(--running); }
.finished { background: var(--finished); }
.failed { background: var(--failed); }
.hint { background: var(--hint); border-radius: 0.5rem; padding: 0.6rem 0.9rem; margin-bottom: 0.75rem; }
progress { width: min(100%, 28rem); height: 0.6rem; accent-color: var(--running); }
.grid { display: grid; gap: 1rem; grid-template-columns: repeat(auto-fit, minmax(min(100%, 22rem), 1fr)); }
.card { background: var(--card); border: 1px solid var(--grid); border-radius: 0.75rem;
  padding: 0.75rem 1rem; margin: 0; min-width: 0; }
.grid > .card > svg { display: block; height: auto; max-width: 34rem; margin: 0 auto; }
.stack { display: grid; gap: 0.75rem; max-width: 52rem; }
.finding { border-left: 0.3rem solid var(--grid); }
.finding.error { border-left-color: var(--failed); }
.finding.warning { border-left-color: var(--notice); }
.finding h3 .soft { font-weight: 400; margin-left: 0.4rem; }
ul.card { padding-left: 2.2rem; }
table { border-collapse: collapse; width: 100%; font-size: 0.9rem; }
details.card { margin-top: 1rem; }
th, td { padding: 0.3rem 0.4rem; text-align: left; vertical-align: top; }
th { font-weight: 500; }
tbody tr, .facts tr + tr { border-top: 1px solid var(--grid); }
th:first-child { padding-left: 0; }
.facts th { color: var(--soft); width: 45%; }
.numbers td, .numbers thead th { text-align: right; white-space: nowrap; }
thead th { color: var(--soft); font-size: 0.8rem; }
.training::before, .validation::before { content: ""; display: inline-block; width: 0.6rem; height: 0.6rem;
  border-radius: 50%; margin-right: 0.3rem; }
.training::before { background: #2878c8; }
.validation::before { background: #e0650f; }
summary { cursor: pointer; font-weight: 600; }
@media (max-width: 30rem) { .card { padding: 0.6rem; } th, td { padding: 0.3rem 0.2rem; } }
"""
