"""What images are asked with, in training and in evaluation, and what is kept of it."""
