"""The packaged dataset: what others load, with its papers and with provenance in each picture.

`build` makes a package, `shards` writes pictures and rows, `provenance` says what is claimed of a
picture, `card` and `croissant` write the papers, `verification` reads all of it back, `export`
takes it out of the bucket. `assets` and `checks` show them to Dagster.
"""
