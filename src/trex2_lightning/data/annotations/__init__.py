"""What the readers of all formats share: the record of an image, the account of what was left out, JSON in pieces."""
