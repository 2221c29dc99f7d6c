"""Run the migrations on the connection that musicrl.feedback.database hands over, inside its transaction."""

from __future__ import annotations

from alembic import context

from musicrl.feedback import schema

context.configure(connection=context.config.attributes["connection"], target_metadata=schema.metadata)
context.run_migrations()
