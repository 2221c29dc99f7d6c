"""Alembic migrations of the preference store; `musicrl.feedback.database` runs them when a store is opened."""
