"""The files that a snapshot knows, as rows."""

import pyarrow as pa

from schemas.schema import Column, TableSchema

# fmt: off
SNAPSHOT_FILES = TableSchema(
    "snapshot_files", 1, "run",
    "The files that the snapshot knows: one row for each chunk of a table in a version.", "file",
    None, None,
    (
        Column("table", pa.string(),
            "whose rows they are; shards, samples; *_light: the columns of a whole bucket that "
            "are no images", text=False),
        Column("version", pa.string(), "of the stage that wrote it", text=False),
        Column("bucket", pa.int64(), "-1 for what is not divided by it"),
        Column("chunk", pa.int64(), "-1 for what is not divided by it"),
        Column("file", pa.string(), "path below the root; empty where there are no rows",
            text=False),
        Column("rows", pa.int64(), "of the chunk"),
        Column("bytes", pa.int64(), "of the chunk as a file of its own"),
        Column("digest", pa.string(), "of those bytes: the first 32 hex digits of their SHA-256",
            text=False),
        Column("basis", pa.string(),
            "hash of what the rows follow from; empty while some are missing", text=False),
        Column("live", pa.bool_(),
            "holds the rows that are wanted; others are kept for a switch back"),
        Column("current", pa.bool_(), "of the version that the dataset shows"),
        Column("ok", pa.int64(), "rows of status ok"),
        Column("offset", pa.int64(), "first row in the file"),
        Column("file_rows", pa.int64(),
            "of the whole file, where several chunks lie in one; else 0"),
        Column("file_bytes", pa.int64(),
            "of the whole file, where several chunks lie in one; else 0"),
    ),
)
# fmt: on
