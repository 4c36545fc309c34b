"""Backups of catalog and bucket in a second place, and the way back.

Layout of the second place, in which nothing is ever changed:

- `objects/data/<ab>/<sha256>`: bytes by their hash, whatever key they have in the bucket
- `catalog/<time>-<sha12>.dump` and `.json`: a dump of the catalog's database and its record
- `manifests/<time>-<sha12>.json`: one backup, written last: without it there is no backup

The Redis cache is not backed up: it is filled again from the catalog. Dagster's own database is
not either: it holds the history of runs and nothing that a release needs.
"""
