"""Tests that need Spark; `.ci/spark` runs them."""
