"""Pure functions on arrays: ranking (AUROC, AUPRC), bootstrap by patient, calibration, paired tests.

Each module imports numpy only. Values that the data cannot give (a class without rows) are None, never 0.
"""
