"""The synthetic data set `shapes`: what is in every image, how it is drawn, and its files."""
