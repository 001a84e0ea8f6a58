"""All tables that a query sees: those of a dataset, what lies beside shards, files of the snapshot,
and runs.
"""

from schemas.runs import RUNS
from schemas.samples import SAMPLES, WITHHELD
from schemas.schema import TableSchema
from schemas.snapshot_files import SNAPSHOT_FILES
from schemas.tables import TABLES

VIEWS: dict[str, TableSchema] = {
    **TABLES,
    **{schema.name: schema for schema in (SAMPLES, WITHHELD, SNAPSHOT_FILES, RUNS)},
}
"""By name."""
