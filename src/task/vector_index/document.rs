//! The report of a run as one HTML document: recall against speed of each index, drawn and as figures, before the run and after it. Pure.

use std::fmt::Write as _;

use maud::{Markup, html};
use serde_json::Value;

use super::curve::{Drawn, Point};
use crate::base::{html_page, units};
use crate::ledger::Row;
use crate::ledger::report::Outcome;

/// The name of the task in the ledger.
const TASK: &str = "vector_index";

/// The drawing, and the axes in it.
const WIDTH: f64 = 640.0;
const HEIGHT: f64 = 360.0;
const LEFT: f64 = 70.0;
const RIGHT: f64 = 620.0;
const TOP: f64 = 20.0;
const BOTTOM: f64 = 310.0;
/// Recall at the left is a multiple of it.
const STEP_OF_RECALL: f64 = 0.05;

/// None for a run of another task.
pub fn render(row: &Row) -> Option<String> {
    if row.task != TASK {
        return None;
    }
    let heading = format!("Searches of {}", row.database);
    let tables = row.report.as_ref().and_then(|report| report.facts.get("tables")).and_then(Value::as_array);
    let body = html! {
        header { h1 { (heading) } p { (row.outcome.0.map_or("running".to_owned(), Outcome::in_words)) } }
        main {
            @for (number, table) in tables.into_iter().flatten().enumerate() { (of_table(number, table)) }
            @if let Some(error) = &row.error { section { h2 { "Error" } p { (error) } } }
        }
        footer { "Run " (row.id) " of job " (row.job) ", pgtend " (row.version) ", as the ledger has it." }
    };
    Some(html_page::render(&format!("{heading}, run {}", row.id), html_page::DOCUMENT_STYLE, &html_page::nothing(), &body))
}

fn of_table(number: usize, table: &Value) -> Markup {
    let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
    let (name, index) = (text(&table["table"]), text(&table["index"]));
    let curves: Vec<Drawn> = serde_json::from_value(table["curves"].clone()).unwrap_or_default();
    html! {
        section {
            h2 { (index) " of " (name) }
            p { (text(&table["summary"])) }
            @if curves.is_empty() {
                p { "Nothing was measured." }
            } @else {
                (svg(number, &format!("Recall and searches a second of {index} of {name}"), &curves))
                (figures(&curves))
            }
        }
    }
}

fn figures(curves: &[Drawn]) -> Markup {
    html! {
        table {
            thead { tr {
                th scope="col" { "Index" } th scope="col" { "Setting" } th scope="col" { "Recall" } th scope="col" { "Searches a second" } th scope="col" { "Queries" }
            } }
            tbody { @for curve in curves { @for point in &curve.points {
                tr {
                    td { (curve.index) } td { (curve.setting) " = " (point.setting) } td { (format!("{:.3}", point.recall)) }
                    td { (units::count(point.searches_per_second.round() as u64)) } td { (units::count(point.queries as u64)) }
                }
            } } }
        }
    }
}

/// Draws the curves. `number`: of the drawing in its document. `number`: of the drawing in its document. Their colours are those of the text around; "before" is dashed.
fn svg(number: usize, title: &str, curves: &[Drawn]) -> Markup {
    let axes = Axes::of(curves.iter().flat_map(|curve| &curve.points));
    html! {
        svg xmlns="http://www.w3.org/2000/svg" viewBox={ "0 0 " (WIDTH) " " (HEIGHT) } role="img" aria-labelledby={ "title" (number) " figures" (number) } fill="none"
            stroke="currentColor" style="max-width:100%" {
            title id={ "title" (number) } { (title) }
            desc id={ "figures" (number) } { (in_words(curves)) }
            path d={ "M" (LEFT) " " (TOP) "V" (BOTTOM) "H" (RIGHT) } {}
            g fill="currentColor" stroke="none" font-size="12" {
                @for recall in axes.recalls() {
                    text x=(axes.x(recall)) y=(BOTTOM + 18.0) text-anchor="middle" { (format!("{recall:.2}")) }
                }
                @for speed in axes.speeds() {
                    text x=(LEFT - 8.0) y=(axes.y(speed) + 4.0) text-anchor="end" { (units::count(speed as u64)) }
                }
                text x=((LEFT + RIGHT) / 2.0) y=(BOTTOM + 40.0) text-anchor="middle" { "recall" }
                text x=(LEFT + 8.0) y=(TOP + 4.0) { "searches a second, by one session" }
            }
            @for curve in curves {
                @let is_before = curve.index == "before";
                polyline points=(line(&axes, curve)) stroke-width="2" stroke-dasharray=[is_before.then_some("6 4")] {}
                @for point in &curve.points {
                    circle cx=(axes.x(point.recall)) cy=(axes.y(point.searches_per_second)) r="4" fill=[(!is_before).then_some("currentColor")] {
                        title { (of_point(curve, point)) }
                    }
                    text x=(axes.x(point.recall) + 7.0) y=(axes.y(point.searches_per_second) - 7.0) font-size="11" fill="currentColor" stroke="none" {
                        (point.setting)
                    }
                }
            }
        }
    }
}

fn line(axes: &Axes, curve: &Drawn) -> String {
    curve.points.iter().fold(String::new(), |mut line, point| {
        let _ = write!(line, "{},{} ", axes.x(point.recall), axes.y(point.searches_per_second));
        line
    })
}

fn in_words(curves: &[Drawn]) -> String {
    let points = curves.iter().flat_map(|curve| curve.points.iter().map(|point| of_point(curve, point)));
    points.collect::<Vec<_>>().join("; ")
}

fn of_point(Drawn { index, setting, .. }: &Drawn, point: &Point) -> String {
    let speed = units::count(point.searches_per_second.round() as u64);
    format!("{index}, {setting} = {}: recall {:.3}, {speed} searches a second", point.setting, point.recall)
}

/// The ends of both axes. That of speeds is logarithmic.
struct Axes {
    lowest_recall: f64,
    speeds: [f64; 2],
}

impl Axes {
    fn of<'a>(points: impl Iterator<Item = &'a Point> + Clone) -> Self {
        let lowest = points.clone().map(|point| point.recall).fold(1.0, f64::min);
        let lowest_recall = ((lowest / STEP_OF_RECALL).floor() * STEP_OF_RECALL).clamp(0.0, 1.0 - STEP_OF_RECALL);
        let speeds = points.map(|point| point.searches_per_second.max(1.0));
        let (slowest, fastest) = speeds.fold((f64::MAX, 1.0), |(low, high), speed| (speed.min(low), speed.max(high)));
        let decade = |speed: f64| 10_f64.powf(speed.log10().floor());
        let (low, high) = (decade(slowest.min(fastest)), decade(fastest) * 10.0);
        Self { lowest_recall, speeds: [low, high] }
    }

    fn x(&self, recall: f64) -> f64 {
        tenth(LEFT + (recall - self.lowest_recall) / (1.0 - self.lowest_recall) * (RIGHT - LEFT))
    }

    fn y(&self, speed: f64) -> f64 {
        let [low, high] = self.speeds;
        tenth(BOTTOM - (speed.max(1.0) / low).log10() / (high / low).log10() * (BOTTOM - TOP))
    }

    fn recalls(&self) -> impl Iterator<Item = f64> {
        let lowest = self.lowest_recall;
        (0..=4).map(move |step| lowest + (1.0 - lowest) * f64::from(step) / 4.0)
    }

    fn speeds(&self) -> impl Iterator<Item = f64> {
        let [low, high] = self.speeds;
        std::iter::successors(Some(low), |speed| Some(speed * 10.0)).take_while(move |speed| *speed <= high * 1.01)
    }
}

fn tenth(value: f64) -> f64 {
    (value * 10.0).round() / 10.0
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::super::curve::Curve;
    use super::super::kind::Method;
    use super::*;

    fn curve(index: &str, points: [(u32, f64, u64); 2]) -> Drawn {
        let mut curve = Curve::default();
        for (setting, recall, microseconds) in points {
            curve.add(setting, recall, 200, Duration::from_micros(microseconds));
        }
        Drawn::of(index, Method::Hnsw, &curve)
    }

    #[test]
    fn the_drawing_says_in_words_what_it_shows_and_names_are_text() {
        let curves = [curve("before", [(40, 0.91, 500), (80, 0.96, 1000)]), curve("after", [(40, 0.95, 400), (80, 0.98, 800)])];
        let drawn = svg(0, "items_idx of <script>", &curves).into_string();
        assert!(drawn.contains("<title id=\"title0\">items_idx of &lt;script&gt;</title>"), "{drawn}");
        assert!(drawn.contains("after, hnsw.ef_search = 40: recall 0.950, 2,500 searches a second"), "{drawn}");
        // From 1,000 to 10,000 searches a second, and from a recall of 0.90.
        assert!(drawn.contains("points=\"125,222.7 400,310 \""), "{drawn}");
        assert_eq!((drawn.matches("<circle").count(), drawn.matches("stroke-dasharray").count()), (4, 1), "{drawn}");
    }

    #[test]
    fn every_point_is_within_the_axes_however_slow_few_or_bad_they_are() {
        let several = [
            vec![curve("after", [(1, 0.0, 90_000_000), (2, 1.0, 1)])],
            vec![curve("after", [(1, 1.0, 1_000), (1, 1.0, 1_000)])],
            vec![curve("after", [(1, 0.999, 999), (2, 0.9999, 1_001)])],
        ];
        for curves in several {
            let axes = Axes::of(curves.iter().flat_map(|curve| &curve.points));
            for point in &curves[0].points {
                let (x, y) = (axes.x(point.recall), axes.y(point.searches_per_second));
                assert!((LEFT..=RIGHT).contains(&x) && (TOP..=BOTTOM).contains(&y), "{point:?}: {x} {y}");
            }
            assert!(axes.speeds().count() >= 2);
        }
    }
}
