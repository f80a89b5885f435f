"""LANG1 and ReMedE: from a hospital's warehouse to a benchmark report. Importing this imports nothing heavy."""

__version__ = "0.1.0"
