"""Models at work: editors that draw, scorers that judge, adapters for audited models."""
