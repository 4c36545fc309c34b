"""Source batches in: validated row by row, stored by content, what is rejected in quarantine.

`deliveries` reads a folder of files on disk or in the bucket, `imagefolder` its metadata,
`captions` judges what a row says, `ingest` puts it all together, and `batches` is what the rest of
the lab reads from the store. `arrivals` decides which deliveries are complete.
"""
