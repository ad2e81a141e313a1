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

/// As `Measurement::add_usage` calls the sum.
const ALL_BUT_THE_LOAD: &str = "all but the load";
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

/// Writes what B ÷ A of a rate was in several measurements, each against the same bar, and what each side's work cost.
pub(crate) fn ratios(output: Output, what: &str, rate: &str, bar: f64, all: &[(String, Pairs)]) -> Result<ExitCode> {
    let sides = all.first().map(|(_, pairs)| (pairs.a.side.clone(), pairs.b.side.clone())).unwrap_or_default();
    let header = [
        what,
        &format!("{}, {rate}/s", sides.0),
        &format!("{}, {rate}/s", sides.1),
        &format!("{} ÷ {}", sides.1, sides.0),
        "least – most",
        "bar",
        "",
        &format!("{}, {}", sides.0, Unit::CpuMicrosPerMessage.label()),
        &format!("{}, {}", sides.1, Unit::CpuMicrosPerMessage.label()),
    ];
    let mut table = table(&header);
    let (mut json, mut void) = (serde_json::Map::new(), Vec::new());
    for (name, pairs) in all {
        let of = |series: &Series, figure: &str, unit: Unit| {
            series.spread(figure, unit).map(|spread| write(unit, spread)).unwrap_or_default()
        };
        let ratio = pairs.ratio(rate, Unit::PerSecond);
        let verdict = ratio.map(|ratio| if ratio.median >= bar { "met" } else { "MISSED" }).unwrap_or_default();
        let cost = Unit::CpuMicrosPerMessage;
        table.add_row([
            name.clone(),
            of(&pairs.a, rate, Unit::PerSecond),
            of(&pairs.b, rate, Unit::PerSecond),
            ratio.map(|ratio| format!("{:.2}", ratio.median)).unwrap_or_default(),
            ratio.map(|ratio| format!("{:.2} – {:.2}", ratio.least, ratio.most)).unwrap_or_default(),
            format!("{bar:.2}"),
            verdict.to_owned(),
            of(&pairs.a, ALL_BUT_THE_LOAD, cost),
            of(&pairs.b, ALL_BUT_THE_LOAD, cost),
        ]);
        json.insert(name.clone(), json!({"a": pairs.a, "b": pairs.b, "ratio": ratio, "bar": bar, "verdict": verdict}));
        void.extend(pairs.void().into_iter().map(|why| format!("{name}: {why}")));
    }
    finish(output, &table, json!({"measurements": json}), void)
}

/// Runs by so many workers.
#[derive(Debug)]
pub(crate) struct Scaled {
    /// How many.
    pub(crate) workers: u32,
    /// The runs.
    pub(crate) series: Series,
}

/// Writes a rate and what a message cost in each part by the number of workers, and whether those parts of which it is asked cost the
/// same within `within`, the dearest against the cheapest.
pub(crate) fn scale(
    output: Output,
    (rate, unit): (&str, Unit),
    parts: &[(&str, bool)],
    within: f64,
    all: &[Scaled],
) -> Result<ExitCode> {
    let named = all.iter().map(|scaled| scaled.series.side.as_str());
    let dearest = format!("dearest ÷ cheapest (bar {:.2})", 1.0 + within);
    let header: Vec<&str> = ["", "unit"].into_iter().chain(named).chain([dearest.as_str(), ""]).collect();
    let mut table = table(&header);
    let of = |scaled: &Scaled, name: &str, unit: Unit| scaled.series.spread(name, unit);
    let mut add = |name: &str, unit: Unit, is_asked: bool| {
        let spreads: Vec<Option<Spread>> = all.iter().map(|scaled| of(scaled, name, unit)).collect();
        let medians: Vec<f64> = spreads.iter().flatten().map(|spread| spread.median).collect();
        let (least, most) = medians.iter().fold((f64::MAX, 0.0_f64), |(a, b), one| (a.min(*one), b.max(*one)));
        let ratio = (!medians.is_empty() && least > 0.0).then(|| most / least);
        let verdict = ratio.filter(|_| is_asked).map(|ratio| if ratio <= 1.0 + within { "met" } else { "MISSED" });
        let cells: Vec<String> = spreads
            .iter()
            .map(|spread| spread.map(|spread| format!("{} ({})", write(unit, spread), range(unit, spread))))
            .map(Option::unwrap_or_default)
            .chain([
                ratio.map(|ratio| format!("{ratio:.2}")).unwrap_or_default(),
                verdict.unwrap_or_default().to_owned(),
            ])
            .collect();
        table.add_row(row(name, unit, &cells));
        json!({"name": name, "dearest_to_cheapest": ratio, "verdict": verdict})
    };
    let mut judged = vec![add(rate, unit, false)];
    judged.extend(parts.iter().map(|(part, is_asked)| add(part, Unit::CpuMicrosPerMessage, *is_asked)));
    let void = all.iter().flat_map(|scaled| scaled.series.void()).collect();
    let runs: Vec<_> = all
        .iter()
        .map(|scaled| json!({"workers": scaled.workers, "series": scaled.series, "spreads": spreads(&scaled.series)}))
        .collect();
    finish(output, &table, json!({"by_workers": runs, "judged": judged}), void)
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
