"""Answers: DuckDB over the Parquet files of a lake, with the statements of `sql/` as views and macros.

Only `doors` knows lakes; the other modules are given Parquet files and never search for them. "Now" is an argument too,
not the time of the clock: the same files and instants give the same answers.

    statement     the files of `sql/`: names, parameters, manual, query
    facts         what a lake knows about a snapshot besides its rows: instants, names, vanished jobs
    names         names of companies, from a file or kept in the lake
    definition    a statement as DuckDB's CREATE VIEW or CREATE MACRO
    connection    open_warehouse: a connection with all views and macros; answer: the result of one read-only query
    catalogue     the same definitions in a DuckDB file, for other clients
    output        an answer as a table for people, or as CSV, JSON, Parquet or a file for Excel
    spreadsheet   frames as a workbook, or as CSV that Excel opens as a table
    doors         connect, list_answers and write_catalogue: the way in, by the name of a lake
    verification  verify_lake, which looks at the catalogue too, and the repair of that
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from pleo_extract.lazy import attach

if TYPE_CHECKING:
    from pleo_extract.answers.catalogue import compile_ahead, is_readable, write_catalogue
    from pleo_extract.answers.connection import answer, name_lake, open_warehouse, translate_errors
    from pleo_extract.answers.facts import SnapshotFacts, find_damaged_facts, read_facts, write_facts
    from pleo_extract.answers.output import FORMATS, AnswerTable, read_table, write
    from pleo_extract.answers.statement import Parameter, Statement, statements

__all__ = [
    "FORMATS",
    "AnswerTable",
    "Parameter",
    "SnapshotFacts",
    "Statement",
    "answer",
    "compile_ahead",
    "find_damaged_facts",
    "is_readable",
    "name_lake",
    "open_warehouse",
    "read_facts",
    "read_table",
    "statements",
    "translate_errors",
    "write",
    "write_catalogue",
    "write_facts",
]

if not TYPE_CHECKING:  # a run that changes no view needs no duckdb, and neither do the answers on Spark
    __getattr__ = attach(
        __name__,
        {
            **dict.fromkeys(("compile_ahead", "is_readable", "write_catalogue"), "catalogue"),
            **dict.fromkeys(("answer", "name_lake", "open_warehouse", "translate_errors"), "connection"),
            **dict.fromkeys(("SnapshotFacts", "find_damaged_facts", "read_facts", "write_facts"), "facts"),
            **dict.fromkeys(("AnswerTable", "FORMATS", "read_table", "write"), "output"),
            **dict.fromkeys(("Parameter", "Statement", "statements"), "statement"),
        },
    )
