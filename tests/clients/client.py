"""A client in an environment with only DuckDB: it holds a catalogue open and prints the rows of each query as JSON."""

from __future__ import annotations

import json
import sys

import duckdb

con = duckdb.connect(sys.argv[1], read_only=True) if sys.argv[2] == "opened" else duckdb.connect()
if sys.argv[2] == "attached":
    path = sys.argv[1].replace("'", "''")
    con.execute(f"ATTACH '{path}' AS jobs (READ_ONLY)")
con.execute("SET TimeZone = 'UTC'")
sys.stdout.write("ready\n")
sys.stdout.flush()
for query in sys.stdin:
    sys.stdout.write(json.dumps(con.execute(query).fetchall()) + "\n")
    sys.stdout.flush()
