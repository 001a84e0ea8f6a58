"""Arrow schemas of every table, and the ids of their rows. Imports nothing else of the project."""

from schemas.ids import face_id, identity_id, image_id, no_face_id
from schemas.schema import SchemaError, TableSchema
from schemas.tables import TABLES

__all__ = [
    "TABLES",
    "SchemaError",
    "TableSchema",
    "face_id",
    "identity_id",
    "image_id",
    "no_face_id",
]
