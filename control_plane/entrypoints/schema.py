"""Whether the database's schema is the one that this code was written for."""

from alembic.script import ScriptDirectory
from sqlalchemy import text
from sqlalchemy.exc import ProgrammingError
from sqlalchemy.ext.asyncio import AsyncEngine

from control_plane.entrypoints.migrations import alembic_config

_UNDEFINED_TABLE = "42P01"


class SchemaWatch:
    """Reads the migration scripts once."""

    def __init__(self, database_url: str) -> None:
        scripts = ScriptDirectory.from_config(alembic_config(database_url))
        self._newest = scripts.get_current_head()
        self._older = {script.revision for script in scripts.walk_revisions()} - {self._newest}

    async def problem(self, engine: AsyncEngine) -> str | None:
        """Return what is wrong in words, or None; raises when the database cannot be asked.

        A schema that is newer than this code is right: during an upgrade the old code runs on the new schema.
        """
        try:
            async with engine.connect() as connection:
                found = await connection.scalar(text("SELECT version_num FROM alembic_version"))
        except ProgrammingError as error:
            if getattr(error.orig, "sqlstate", None) != _UNDEFINED_TABLE:
                raise
            found = None
        if found is None or found in self._older:
            return f"the schema is at {found or 'nothing'}, this code needs {self._newest}: run `km db upgrade`"
        return None
