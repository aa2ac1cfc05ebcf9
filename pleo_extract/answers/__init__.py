"""Answers: DuckDB over the Parquet files of a lake, with the statements of `sql/` as its views and macros.

The only room with duckdb. It is told which files to read and never looks for them, and "now" is the instant
it is told, never a clock: the same files and the same instants give the same answers.

    statement     what is in `sql/`: names, parameters, documentation, text
    facts         what a lake says of a snapshot beside its rows: instants, names, vanished jobs
    definition    a statement as DuckDB's CREATE VIEW or CREATE MACRO
    connection    open_warehouse: a connection that holds them all; answer: one question, read only
    catalogue     the same definitions in a DuckDB file, for other clients
    output        an answer as a table for people, CSV, JSON or Parquet
"""

from __future__ import annotations

from pleo_extract.answers.catalogue import write_catalogue, write_facts
from pleo_extract.answers.connection import answer, open_warehouse, translate_errors
from pleo_extract.answers.facts import SnapshotFacts, read_facts
from pleo_extract.answers.output import FORMATS, AnswerTable, read_table, write
from pleo_extract.answers.statement import Parameter, Statement, statements

__all__ = [
    "FORMATS",
    "AnswerTable",
    "Parameter",
    "SnapshotFacts",
    "Statement",
    "answer",
    "open_warehouse",
    "read_facts",
    "read_table",
    "statements",
    "translate_errors",
    "write",
    "write_catalogue",
    "write_facts",
]
