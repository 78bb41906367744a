"""What is judged without a training, one kind of cause a file."""
