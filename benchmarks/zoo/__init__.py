"""Small training programs, faulty and healthy, of which it is known what is wrong with them."""
