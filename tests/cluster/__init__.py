"""Tests that need Dask; `.ci/dask` runs them."""
