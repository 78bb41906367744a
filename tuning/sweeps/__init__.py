"""Studies of one number: the learning rate, and the batch size."""
