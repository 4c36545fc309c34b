"""The packaged dataset: what others load, with its papers and with provenance in each picture.

`build` makes a package and `manifest` finds it; `shards` writes `rows` with their pictures, and
`provenance` says what is claimed of one; `card`, `croissant` and `responsible` write the papers
from `facts`; `verification` reads all of it back and `loading` tries it with the libraries it is
for; `export` takes it out of the bucket, and `inspection` verifies it there. `assets` and `checks`
show them to Dagster.
"""
