"""Small SO-100 datasets for tests: clean, with one planted defect, and in older formats."""
