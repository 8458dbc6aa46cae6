"""Connections to the database."""

from sqlalchemy import text

from control_plane.foundation.db import create_engine


class TestEngine:
    async def test_a_statement_that_is_sent_often_is_still_planned_for_its_values(self, database_url: str):
        engine = create_engine(database_url)
        rare = text("EXPLAIN SELECT 1 FROM skewed WHERE value = :value")
        async with engine.connect() as connection:
            await connection.execute(text("CREATE TEMPORARY TABLE skewed (value integer)"))
            await connection.execute(
                text(
                    "INSERT INTO skewed SELECT CASE WHEN n = 1 THEN 1 ELSE 2 END FROM generate_series(1, 20000) n"
                )
            )
            await connection.execute(text("CREATE INDEX ON skewed (value)"))
            await connection.execute(text("ANALYZE skewed"))
            for _ in range(20):
                seen = [str(await connection.scalar(rare, {"value": value})) for value in (1, 2)]
                assert ["Seq Scan" in plan for plan in seen] == [False, True]
            assert not await connection.scalar(text("SELECT count(*) FROM pg_prepared_statements"))
        await engine.dispose()

    async def test_checks_of_foreign_keys_are_planned_once(self, database_url: str):
        engine = create_engine(database_url)
        async with engine.connect() as connection:
            assert await connection.scalar(text("SHOW plan_cache_mode")) == "auto"
        await engine.dispose()
