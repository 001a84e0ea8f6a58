"""Sets of shards: planned, written, indexed, checked."""
