"""What runs the trials: this process, a chief and its workers, or Ray."""
