"""What a short training shows, and what follows from it."""
