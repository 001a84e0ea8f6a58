"""A DAG made ready: stages built, weights found, versions known, and which of the work is
chosen.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import duckdb

from idcluster.catalogue.connection import connect, damage, explain
from idcluster.root.snapshot import Snapshot
from idcluster.root.storage import Store
from pipeline.dag import Dag, DagError
from pipeline.execution.reconcile import unit_column
from pipeline.execution.worker_spec import versions_of
from pipeline.weights.stored import StoredWeights, weight_files
from stages.stage import Stage
from stages.weights import NOTHING, LocalRegistry


@dataclass(frozen=True)
class Selection:
    """What of the DAG to do. `only`: stages; `limit`: images a phase; `where`: SQL over
    candidates and identities; `retry`: SQL over rows that are not ok.
    """

    only: tuple[str, ...] = ()
    limit: int | None = None
    where: str | None = None
    retry: str | None = None


@dataclass
class PreparedDag:
    """A DAG made ready: stages built, versions known, weights found."""

    dag: Dag
    stages: list[Stage]
    versions: dict[str, str]
    descriptions: dict[str, dict[str, Any]]
    models: str | None
    local: LocalRegistry = NOTHING
    """What the models directory's own registry says."""
    licences: list[dict[str, Any]] = field(default_factory=list)
    """Weights that may not be used for everything: name, licence, and what was accepted when and by
    whom.
    """

    def chosen(self, selection: Selection) -> set[str]:
        """The names of the stages to do. Raises DagError for a name that the DAG does not have."""
        unknown = [name for name in selection.only if name not in self.dag.stages]
        if unknown:
            raise DagError(
                [
                    f"--only {name}: the DAG has no such stage; it has {', '.join(self.dag.stages)}"
                    for name in unknown
                ]
            )
        if not selection.only:
            return set(self.dag.stages)
        # People are the summary of clean; whoever asks for one wants the other.
        following = (
            [name for name in ("people", "match") if name in self.dag.stages]
            if "clean" in selection.only
            else []
        )
        return {*selection.only, *following}


def prepare(dag: Dag, models: str | None, check_weights: bool = True) -> PreparedDag:
    """Build the stages of a DAG and look for their weights. Raises MissingWeights.

    What the team registered is read anew, for a DAG may be older than its models directory.
    """
    files = weight_files(models or dag.models)
    dag = dag.model_copy(update={"local": files.local})
    stages = dag.build()
    if check_weights:
        for stage in stages:
            for name in stage.weights:
                # What is in an object store is brought to the machines that need it, later.
                files.look(name) if isinstance(files, StoredWeights) else files.path(name)
    versions, descriptions = versions_of(stages, files)
    return PreparedDag(dag, stages, versions, descriptions, files.models_dir, files.local)


def forced_units(
    store: Store, snapshot: Snapshot, stages: Sequence[Stage], predicate: str
) -> dict[str, frozenset[str]]:
    """Units by table of the rows that are not ok and match an SQL predicate. Raises DagError for
    bad SQL.
    """
    forced = {}
    connection = connect(store, snapshot)
    try:
        for stage in stages:
            table, column = stage.writes.name, unit_column(stage)
            try:
                sql = (
                    f"SELECT DISTINCT {column} FROM {table} WHERE status <> 'ok' AND "  # noqa: S608
                    f"({predicate})"
                )
                found = connection.execute(sql).fetchall()
            except duckdb.Error as error:
                met = damage(error)
                if met is not None:
                    raise met from error
                said = (
                    f"{explain(connection, error)} (columns that every table has: status, "
                    "reason, detail)"
                )
                raise DagError([f"--retry {predicate!r}: {said}"]) from error
            if found:
                forced[table] = frozenset(row[0] for row in found)
    finally:
        connection.close()
    return forced


def allowed_images(store: Store, snapshot: Snapshot, predicate: str) -> frozenset[str]:
    """Image ids that match an SQL predicate over candidates and identities (`name`, `address`,
    ...).
    """
    connection = connect(store, snapshot)
    known = (
        "SELECT c.*, i.name, i.aliases, i.bucket FROM candidates c JOIN identities i USING "
        "(identity_id)"
    )
    sql = f"SELECT image_id FROM ({known}) WHERE {predicate}"  # noqa: S608
    try:
        return frozenset(row[0] for row in connection.execute(sql).fetchall())
    except duckdb.Error as error:
        raise damage(error) or DagError(
            [f"--where {predicate!r}: {explain(connection, error)}"]
        ) from error
    finally:
        connection.close()
