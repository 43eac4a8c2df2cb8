"""Figures and tagged photos: the data of a figure gathered, then drawn."""
