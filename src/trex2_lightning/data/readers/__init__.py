"""Readers of data sets' own formats: generators of one image at a time, which count what they cannot use."""
