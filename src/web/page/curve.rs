//! A vector index before and after a run: recall over the time of a query. The facts have the points.

use std::fmt::Write as _;

use maud::{Markup, html};
use serde_json::{Map, Value};

use super::words::shortened;

const TABLES: usize = 20;

/// A measured point: what was searched, recall from 0 to 1, milliseconds per query.
struct Point {
    what: &'static str,
    shape: &'static str,
    setting: Option<u64>,
    recall: f64,
    ms: Option<f64>,
}

/// Draws each table of a run of [vector_index]; nothing of others.
pub(super) fn section(facts: &Map<String, Value>) -> Markup {
    let tables = facts.get("tables").and_then(Value::as_array).map(Vec::as_slice).unwrap_or_default();
    let drawn: Vec<(&Value, Vec<Point>)> =
        tables.iter().take(TABLES).map(|table| (table, points(table))).filter(|(_, points)| !points.is_empty()).collect();
    html! {
        @if !drawn.is_empty() {
            section aria-labelledby="curve" {
                h2 #curve { "Recall and time of a query" }
                @for (table, points) in &drawn { (one(table, points)) }
            }
        }
    }
}

fn points(table: &Value) -> Vec<Point> {
    let kinds = [
        ("before", "before", "circle"),
        ("after_at_todays_setting", "after, at the setting of before", "diamond"),
        ("after", "after", "square"),
    ];
    let found = kinds.into_iter().filter_map(|(name, what, shape)| {
        let found = table.get(name)?;
        let recall = found.get("recall")?.as_f64().filter(|recall| (0.0..=1.0).contains(recall))?;
        let ms = found.pointer("/cost/ms").and_then(Value::as_f64).filter(|ms| ms.is_finite() && *ms >= 0.0);
        Some(Point { what, shape, setting: found.get("setting").and_then(Value::as_u64), recall, ms })
    });
    found.collect()
}

fn one(table: &Value, points: &[Point]) -> Markup {
    let text = |name: &str| table.get(name).and_then(Value::as_str).unwrap_or_default();
    let is_drawn = points.iter().filter(|point| point.ms.is_some()).count() > 1;
    html! {
        h3 { (shortened(text("table"), 200)) " " span.quiet { (shortened(text("index"), 200)) } }
        @if is_drawn { (drawing(points)) }
        table.plain {
            thead { tr { @for title in ["", "Setting", "Recall", "Milliseconds a query"] { th scope="col" { (title) @if title.is_empty() { span.hidden { "When" } } } } } }
            tbody { @for point in points { tr {
                th scope="row" { (point.what) }
                td { @match point.setting { Some(setting) => { (setting) }, None => { "–" } } }
                td.num { (format!("{:.2} %", point.recall * 100.0)) }
                td.num { @match point.ms { Some(ms) => { (format!("{ms:.2}")) }, None => { "–" } } }
            } } }
        }
    }
}

/// Recall upwards, milliseconds to the right; each point has its name beside it.
fn drawing(points: &[Point]) -> Markup {
    let measured = || points.iter().filter_map(|point| Some((point, point.ms?)));
    let slowest = measured().map(|(_, ms)| ms).fold(f64::MIN_POSITIVE, f64::max) * 1.15;
    let lowest = (measured().map(|(point, _)| point.recall).fold(1.0, f64::min) - 0.02).clamp(0.0, 0.97);
    let x = |ms: f64| (60.0 + ms / slowest * 400.0).round();
    let y = |recall: f64| (170.0 - (recall - lowest) / (1.0 - lowest) * 150.0).round();
    let mut line = String::new();
    for (point, ms) in measured() {
        let _ = write!(line, "{},{} ", x(ms), y(point.recall));
    }
    let label = measured()
        .map(|(point, ms)| format!("{}: {:.2} % in {ms:.2} ms", point.what, point.recall * 100.0))
        .collect::<Vec<_>>()
        .join("; ");
    html! {
        svg.curve viewBox="0 0 640 200" role="img" aria-label=(label) {
            path.axis d="M60 10v160h400" {}
            text x="4" y="24" { "100 %" }
            text x="4" y="172" { (format!("{:.0} %", lowest * 100.0)) }
            text x="60" y="190" { "0 ms" }
            text x="430" y="190" { (format!("{slowest:.1} ms")) }
            polyline points=(line.trim_end()) {}
            @for (point, ms) in measured() {
                @let (x, y) = (x(ms), y(point.recall));
                @match point.shape {
                    "circle" => circle cx=(x) cy=(y) r="6" {},
                    "diamond" => path.point d={ "M" (x) " " (y - 7.0) "l7 7-7 7-7-7z" } {},
                    _ => rect.point x=(x - 6.0) y=(y - 6.0) width="12" height="12" {},
                }
                text x=(x + 11.0) y=(y + 5.0) { (point.what) }
            }
        }
    }
}
