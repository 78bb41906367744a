"""A chief that hands trials out, and workers that run them."""
