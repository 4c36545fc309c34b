"""The runbook's scheduled maintenance: what a person should look at each week, month and quarter.

`dependencies`, `configuration` and `capacity` find out, `documents` keeps what they found in the
bucket, and `plots` draws it. Nothing here changes anything: who reads a review acts on it.
"""
