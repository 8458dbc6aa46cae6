"""Connections to the database."""

from sqlalchemy import text

from control_plane.foundation.db import create_engine


class TestEngine:
    async def test_a_statement_that_is_sent_often_is_still_planned_for_its_values(self, database_url: str):
        engine = create_engine(database_url)
        async with engine.connect() as connection:
            for number in range(20):
                await connection.execute(text("SELECT count(*) FROM pg_class WHERE relpages > :n"), {"n": number})
            plans = (
                await connection.execute(
                    text("SELECT generic_plans, custom_plans FROM pg_prepared_statements WHERE statement LIKE :n"),
                    {"n": "%relpages%"},
                )
            ).one()
        await engine.dispose()
        assert plans.generic_plans == 0
        assert plans.custom_plans >= 10
