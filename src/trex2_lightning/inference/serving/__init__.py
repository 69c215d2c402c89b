"""A trained detector behind a page to draw on and an HTTP endpoint."""
