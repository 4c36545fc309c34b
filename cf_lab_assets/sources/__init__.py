"""Source batches in: validated row by row, stored by content, what is rejected in quarantine.

`deliveries` reads files on disk or in the bucket, and `kinds` tells what they are: `imagefolder`,
`shards` of WebDataset, `tables` (Parquet and Hugging Face datasets) or `captionsets`, which all
give `rows`. `captions` judges what a row says, `intake` makes one pass over all with a `ledger` of
what it has seen, `ingest` puts it all together, and `batches` is what the rest of the lab reads
from the store. `arrivals` decides which deliveries are complete.
"""
