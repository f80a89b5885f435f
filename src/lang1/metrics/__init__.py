"""Pure functions on arrays: ranking, bootstrap by patient, DeLong, calibration, operating points, recalibration.

Modules import numpy only; what scipy or scikit-learn do better is imported inside the function that needs it. Values
that the data cannot give (a class without rows) are None, or NaN inside arrays, never 0.
"""
