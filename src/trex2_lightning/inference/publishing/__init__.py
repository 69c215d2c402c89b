"""A checkpoint for others: its model card, the licences of what it was made of, and the way to the hub."""
