"""A dashboard over a lake: `marimo run notebooks/05_dashboard.py -- --lake data/export_jobs`."""

import marimo

app = marimo.App(width="medium", app_title="Export jobs")


@app.cell
def open_lake():
    from pathlib import Path

    import altair as alt
    import marimo as mo
    import polars as pl

    from pleo_extract import Lake

    lake = Lake(mo.cli_args().get("lake") or Path(__file__).parent.parent / "data" / "sample")
    con = lake.connect()
    status = lake.status()
    return alt, con, mo, pl, status


@app.cell
def choose(con, mo):
    names = con.execute("""
        select distinct coalesce(c.name, j.company_id) as shown, j.company_id
        from export_jobs as j left join companies as c on c.id = j.company_id order by shown""").fetchall()
    grain = mo.ui.dropdown(["day", "week", "month", "quarter"], value="month", label="by")
    company = mo.ui.dropdown({"all companies": None} | dict(names), value="all companies", label="of")
    return company, grain


@app.cell
def head(company, grain, mo, status):
    mo.vstack(
        [
            mo.md(
                f"# Export jobs\n{status.rows} jobs, {status.open} of them open; data as of {status.data_as_of:%Y-%m-%d %H:%M} UTC"
            ),
            mo.hstack([grain, company], justify="start"),
        ]
    )


@app.cell
def ask(company, con, grain):
    def answer(macro):
        query = f"from {macro}($grain, company_id := $company, per_company := false)"
        return con.sql(query, params={"grain": grain.value, "company": company.value}).pl()

    return (answer,)


@app.cell
def draw_rates(alt, answer, mo, pl):
    # A period that is not over can look like an incident.
    rates = (
        answer("failure_rates")
        .filter(~pl.col("is_partial"))
        .with_columns(pl.col("period").cast(pl.Datetime).dt.replace_time_zone("UTC"))
    )
    base = alt.Chart(rates, width=640, height=220).encode(
        x=alt.X("period:T", title=None, scale=alt.Scale(type="utc"))
    )
    band = base.mark_area(opacity=0.2).encode(
        y=alt.Y("low:Q", title="failed of finished", axis=alt.Axis(format="%")), y2="high:Q"
    )
    mo.vstack(
        [
            mo.md("## How often do exports fail? Periods that are over, with 95 % intervals"),
            band + base.mark_line(point=True).encode(y="rate:Q"),
            rates,
        ]
    )


@app.cell
def list_reasons(answer, mo):
    mo.vstack([mo.md("## Why?"), answer("failure_reasons")])


@app.cell
def list_durations(answer, mo):
    mo.vstack([mo.md("## How long do they take, in seconds?"), answer("duration_stats")])


if __name__ == "__main__":
    app.run()
