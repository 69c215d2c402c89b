"""Which images a batch is made of, and what they are asked for."""
