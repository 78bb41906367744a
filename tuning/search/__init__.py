"""How trials are chosen and trained."""
