"""How a search is shown: in the terminal, as figures, and as a page."""
