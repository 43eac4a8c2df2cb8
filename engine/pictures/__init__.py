"""Figures: the data of a figure gathered, then drawn."""
