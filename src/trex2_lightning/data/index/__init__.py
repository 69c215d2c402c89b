"""A data set of any size as columns on disk: written once, read at any place."""
