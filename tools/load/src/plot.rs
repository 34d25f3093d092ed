//! Latency by percentile as an SVG picture, without a library: axes in
//! nines and in logarithmic time, a line per series.

use std::fmt::Write;

const WIDTH: f64 = 760.0;
const HEIGHT: f64 = 420.0;
const LEFT: f64 = 70.0;
const RIGHT: f64 = 160.0;
const TOP: f64 = 40.0;
const BOTTOM: f64 = 50.0;
const COLOURS: [&str; 6] = ["#0b6e99", "#c2410c", "#15803d", "#7c3aed", "#a16207", "#475569"];

/// A named line: percentile (below 100) and microseconds, as [`super::LoadReport::curve`] has them.
pub struct Series<'a> {
    pub name: &'a str,
    pub curve: &'a [(f64, u64)],
}

/// Draws all series into one picture.
pub fn svg(title: &str, series: &[Series]) -> String {
    let scale = Scale::fitting(series);
    let mut out = format!(
        "<svg xmlns=\"http://www.w3.org/2000/svg\" viewBox=\"0 0 {WIDTH} {HEIGHT}\" font-family=\"sans-serif\" font-size=\"12\">\n\
         <rect width=\"{WIDTH}\" height=\"{HEIGHT}\" fill=\"#fff\"/>\n"
    );
    text(&mut out, LEFT, 22.0, "start", title);
    let bottom = HEIGHT - BOTTOM;
    for (percentile, label) in TICKS.iter().filter(|(percentile, _)| nines(*percentile) <= scale.nines) {
        let x = scale.x(*percentile);
        line(&mut out, (x, TOP), (x, bottom), "#e2e8f0");
        text(&mut out, x, bottom + 18.0, "middle", label);
    }
    for microseconds in scale.time_ticks() {
        let y = scale.y(microseconds);
        line(&mut out, (LEFT, y), (WIDTH - RIGHT, y), "#e2e8f0");
        text(&mut out, LEFT - 8.0, y + 4.0, "end", &duration(microseconds));
    }
    text(&mut out, (LEFT + WIDTH - RIGHT) / 2.0, HEIGHT - 12.0, "middle", "percentile of calls");
    for (index, one) in series.iter().enumerate() {
        let colour = COLOURS[index % COLOURS.len()];
        let points = one.curve.iter().map(|(percentile, us)| {
            format!("{:.1},{:.1}", scale.x(*percentile), scale.y((*us).max(1) as f64))
        });
        let points = points.collect::<Vec<_>>().join(" ");
        // Writing to a String cannot fail.
        let _ = writeln!(
            out,
            "<polyline points=\"{points}\" fill=\"none\" stroke=\"{colour}\" stroke-width=\"2\"/>"
        );
        let (x, y) = (WIDTH - RIGHT + 14.0, TOP + 14.0 + 20.0 * index as f64);
        let _ =
            writeln!(out, "<rect x=\"{x}\" y=\"{}\" width=\"14\" height=\"4\" fill=\"{colour}\"/>", y - 5.0);
        text(&mut out, x + 20.0, y, "start", one.name);
    }
    out.push_str("</svg>\n");
    out
}

const TICKS: [(f64, &str); 7] = [
    (0.0, "0"),
    (50.0, "50"),
    (90.0, "90"),
    (99.0, "99"),
    (99.9, "99.9"),
    (99.99, "99.99"),
    (99.999, "99.999"),
];

/// Where percentiles and times lie in the picture.
struct Scale {
    /// How far the lower axis reaches.
    nines: f64,
    /// Powers of ten of a microsecond.
    low: f64,
    high: f64,
}

impl Scale {
    fn fitting(series: &[Series]) -> Self {
        let points = || series.iter().flat_map(|one| one.curve.iter());
        let reach = points().map(|(percentile, _)| nines(*percentile)).fold(1.0, f64::max);
        let times = || points().map(|(_, us)| (*us).max(1) as f64);
        let low = times().fold(f64::MAX, f64::min).min(1e9).log10().floor();
        let high = times().fold(1.0, f64::max).log10().ceil().max(low + 1.0);
        Self { nines: reach, low, high }
    }

    fn x(&self, percentile: f64) -> f64 {
        LEFT + (WIDTH - LEFT - RIGHT) * nines(percentile) / self.nines
    }

    fn y(&self, microseconds: f64) -> f64 {
        let share = (microseconds.log10() - self.low) / (self.high - self.low);
        HEIGHT - BOTTOM - (HEIGHT - TOP - BOTTOM) * share
    }

    fn time_ticks(&self) -> impl Iterator<Item = f64> {
        let (low, high) = (self.low as i32, self.high as i32);
        let all = (low..=high).flat_map(|power| [1.0, 2.0, 5.0].map(|step| step * 10_f64.powi(power)));
        all.filter(move |tick| *tick <= 10_f64.powi(high) * 1.001)
    }
}

/// 90 is 1, 99 is 2, and so on.
fn nines(percentile: f64) -> f64 {
    -(1.0 - percentile / 100.0).max(1e-9).log10()
}

fn duration(microseconds: f64) -> String {
    match microseconds {
        us if us < 1e3 => format!("{us:.0} µs"),
        us if us < 1e6 => format!("{:.0} ms", us / 1e3),
        us => format!("{:.0} s", us / 1e6),
    }
}

fn line(out: &mut String, from: (f64, f64), to: (f64, f64), colour: &str) {
    let ((x1, y1), (x2, y2)) = (from, to);
    let _ = writeln!(
        out,
        "<line x1=\"{x1:.1}\" y1=\"{y1:.1}\" x2=\"{x2:.1}\" y2=\"{y2:.1}\" stroke=\"{colour}\"/>"
    );
}

fn text(out: &mut String, x: f64, y: f64, anchor: &str, words: &str) {
    let words = words.replace('&', "&amp;").replace('<', "&lt;");
    let _ = writeln!(
        out,
        "<text x=\"{x:.1}\" y=\"{y:.1}\" text-anchor=\"{anchor}\" fill=\"#334155\">{words}</text>"
    );
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_point_lies_within_the_frame_and_names_are_escaped() {
        let curve = [(0.0, 90), (50.0, 120), (99.0, 3_000), (99.9, 40_000)];
        let picture =
            svg("a < b", &[Series { name: "R&D", curve: &curve }, Series { name: "none", curve: &[] }]);
        assert!(picture.contains("a &lt; b") && picture.contains("R&amp;D"), "{picture}");
        let points = picture.split("points=\"").nth(1).and_then(|rest| rest.split('"').next()).unwrap();
        let points: Vec<&str> = points.split(' ').collect();
        assert_eq!(points.len(), curve.len());
        for point in points {
            let (x, y) = point.split_once(',').unwrap();
            assert!((LEFT..=WIDTH - RIGHT).contains(&x.parse().unwrap()), "{point}");
            assert!((TOP..=HEIGHT - BOTTOM).contains(&y.parse().unwrap()), "{point}");
        }
    }

    #[test]
    fn a_run_without_responses_can_be_drawn_too() {
        assert!(svg("nothing", &[]).ends_with("</svg>\n"));
    }
}
