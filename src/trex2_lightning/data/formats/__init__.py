"""One format of annotations a file: how it reads, and what its data sets say of an image."""
