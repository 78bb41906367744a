"""What a training says once it is over."""
