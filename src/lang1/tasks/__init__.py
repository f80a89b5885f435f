"""Tasks: cohorts, labels, splits and prompts of ReMedE. Importing this room stays light."""
