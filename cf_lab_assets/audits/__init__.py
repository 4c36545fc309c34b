"""Audits: what audited models answer to the dataset, and what that says about bias."""
