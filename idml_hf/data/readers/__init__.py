"""Readers of data sets in the layout of their authors, one a file: a folder in, split -> `ImageSet` out."""
