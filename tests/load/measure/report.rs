//! The end of a measurement on stdout: one table, or JSON with every run. Void runs are named under the table, and make the
//! program's exit status 3, so that nobody quotes them by mistake.

use std::io::Write;
use std::process::ExitCode;

use anyhow::Result;
use comfy_table::{Cell, CellAlignment, Table};
use serde_json::json;

use super::figures::Unit;
use super::machine;
use super::runs::{Pairs, Series, Spread};

/// Exit status when the numbers do not count.
const VOID: u8 = 3;

/// Table or JSON.
#[derive(Debug, Clone, Copy, clap::Args)]
pub(crate) struct Output {
    /// Every run as JSON instead of the table
    #[arg(long)]
    json: bool,
}

/// Writes a series of one side.
pub(crate) fn series(output: Output, series: &Series) -> Result<ExitCode> {
    let mut table = table(&["", "unit", &series.side, "least – most"]);
    for figure in series.figures() {
        let Some(spread) = series.spread(&figure.name, figure.unit) else { continue };
        table.add_row(row(&figure.name, figure.unit, &[write(figure.unit, spread), range(figure.unit, spread)]));
    }
    let spreads = spreads(series);
    finish(output, &table, json!({"series": series, "spreads": spreads}), series.void())
}

/// Writes pairs: both sides and B ÷ A.
pub(crate) fn pairs(output: Output, pairs: &Pairs) -> Result<ExitCode> {
    let ratio_name = format!("{} ÷ {}", pairs.b.side, pairs.a.side);
    let mut table =
        table(&["", "unit", &pairs.a.side, "least – most", &pairs.b.side, "least – most", &ratio_name, "least – most"]);
    let mut ratios = serde_json::Map::new();
    let mut figures = pairs.a.figures();
    for figure in pairs.b.figures() {
        if !figures.iter().any(|seen| seen.name == figure.name && seen.unit == figure.unit) {
            figures.push(figure);
        }
    }
    for figure in figures {
        let mut cells = Vec::new();
        for side in [&pairs.a, &pairs.b] {
            let spread = side.spread(&figure.name, figure.unit);
            cells.push(spread.map(|spread| write(figure.unit, spread)).unwrap_or_default());
            cells.push(spread.map(|spread| range(figure.unit, spread)).unwrap_or_default());
        }
        let ratio = pairs.ratio(&figure.name, figure.unit);
        cells.push(ratio.map(|ratio| format!("{:.2}", ratio.median)).unwrap_or_default());
        cells.push(ratio.map(|ratio| format!("{:.2} – {:.2}", ratio.least, ratio.most)).unwrap_or_default());
        table.add_row(row(&figure.name, figure.unit, &cells));
        ratios.insert(format!("{} {}", figure.name, figure.unit.label()), json!(ratio));
    }
    let json = json!({
        "a": {"series": pairs.a, "spreads": spreads(&pairs.a)},
        "b": {"series": pairs.b, "spreads": spreads(&pairs.b)},
        "ratios": ratios,
    });
    finish(output, &table, json, pairs.void())
}

fn table(header: &[&str]) -> Table {
    let mut table = Table::new();
    table.load_style(comfy_table::presets::UTF8_FULL_CONDENSED).set_header(header);
    for column in table.column_iter_mut().skip(2) {
        column.set_cell_alignment(CellAlignment::Right);
    }
    table
}

fn row(name: &str, unit: Unit, cells: &[String]) -> Vec<Cell> {
    [Cell::new(name), Cell::new(unit.label())].into_iter().chain(cells.iter().map(Cell::new)).collect()
}

fn write(unit: Unit, spread: Spread) -> String {
    unit.write(spread.median)
}

fn range(unit: Unit, spread: Spread) -> String {
    format!("{} – {}", unit.write(spread.least), unit.write(spread.most))
}

fn spreads(series: &Series) -> serde_json::Value {
    let named = series.figures().into_iter();
    named
        .map(|figure| {
            (format!("{} {}", figure.name, figure.unit.label()), json!(series.spread(&figure.name, figure.unit)))
        })
        .collect()
}

/// `json` is an object, to which the machine and the reasons are added.
fn finish(output: Output, table: &Table, mut json: serde_json::Value, mut void: Vec<String>) -> Result<ExitCode> {
    void.extend(machine::unfit_build());
    let mut stdout = std::io::stdout().lock();
    if output.json {
        json["machine"] = json!(machine::describe());
        json["void"] = json!(void);
        serde_json::to_writer_pretty(&mut stdout, &json)?;
        writeln!(stdout)?;
    } else {
        writeln!(stdout, "{table}\nMeasured on {}", machine::describe())?;
        for why in &void {
            writeln!(stdout, "VOID  {why}")?;
        }
    }
    Ok(if void.is_empty() { ExitCode::SUCCESS } else { ExitCode::from(VOID) })
}
