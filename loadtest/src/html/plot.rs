//! A plot as inline SVG: axes, lines, phases behind them, labels beside them.
//!
//! Every plot of a page has the same width and margins, so that those over time line up one below the
//! other. Lines are labelled at their right end instead of in a legend, moved apart where they would
//! overlap; colours are classes of the style sheet, which knows light and dark. A strip for each point in
//! time carries its figures as a title, which browsers show under the pointer without a script. A plot
//! knows shares of its area, not what they mean.

use std::fmt::Write as _;

use super::escape;

/// One line of a plot.
#[derive(Clone, Debug)]
pub(super) struct Line {
    pub(super) label: String,
    /// The style sheet's class, `s1` to `s6` or `quiet`.
    pub(super) class: &'static str,
    /// Shares of the width and of the height; a gap where there is none.
    pub(super) points: Vec<Option<(f64, f64)>>,
    /// Share of the height at which the label stands.
    pub(super) label_at: f64,
    /// Whether the area below is tinted.
    pub(super) filled: bool,
}

/// What lies behind the lines, from share to share of the width.
#[derive(Clone, Debug)]
pub(super) struct Band {
    pub(super) from: f64,
    pub(super) to: f64,
    pub(super) label: String,
}

/// A plot being put together.
#[derive(Clone, Debug, Default)]
pub(super) struct Plot {
    pub(super) height: f64,
    pub(super) title: String,
    /// Beside the title, in less weight.
    pub(super) note: String,
    /// Share of the width and label of each tick.
    pub(super) across: Vec<(f64, String)>,
    /// Share of the height and label of each tick.
    pub(super) up: Vec<(f64, String)>,
    pub(super) bands: Vec<Band>,
    pub(super) lines: Vec<Line>,
    /// Share of the width, width and text of each strip.
    pub(super) strips: Vec<(f64, f64, String)>,
}

impl Plot {
    /// The plot as a figure with its caption.
    pub(super) fn render(&self) -> String {
        let total = TOP + self.height + BOTTOM;
        let mut svg = format!(
            "<figure><figcaption>{} <span>{}</span></figcaption>\
             <svg viewBox=\"0 0 {WIDTH} {total}\" role=\"img\" aria-label=\"{}\">\n",
            escape(&self.title),
            escape(&self.note),
            escape(&self.title),
        );
        self.draw_bands(&mut svg);
        self.draw_axes(&mut svg);
        for line in &self.lines {
            self.draw_line(&mut svg, line);
        }
        self.draw_labels(&mut svg);
        for (from, width, text) in &self.strips {
            let _ = writeln!(
                svg,
                "<rect class=\"strip\" x=\"{:.1}\" y=\"{TOP}\" width=\"{:.2}\" height=\"{}\">\
                 <title>{}</title></rect>",
                x(*from),
                width * AREA,
                self.height,
                escape(text),
            );
        }
        svg.push_str("</svg></figure>\n");
        svg
    }

    /// How many ticks a height has room for.
    pub(super) fn room(height: f64) -> usize {
        (1..64).take_while(|ticks| f64::from(*ticks) * 18.0 <= height).count()
    }

    fn y(&self, share: f64) -> f64 {
        TOP + (1.0 - share) * self.height
    }

    /// Neighbouring phases differ in shade, the longest being as light as the page. A label stands above
    /// its phase where there is room for it.
    fn draw_bands(&self, svg: &mut String) {
        let length = |band: &Band| band.to - band.from;
        let longest = (0..self.bands.len())
            .max_by(|a, b| length(&self.bands[*a]).total_cmp(&length(&self.bands[*b])));
        for (at, band) in self.bands.iter().enumerate() {
            let (left, width) = (x(band.from), length(band) * AREA);
            if longest.is_some_and(|longest| at.abs_diff(longest) % 2 == 1) {
                let _ = writeln!(
                    svg,
                    "<rect class=\"band\" x=\"{left:.1}\" y=\"{TOP}\" width=\"{width:.1}\" \
                     height=\"{}\"/>",
                    self.height
                );
            }
            let _ = writeln!(
                svg,
                "<line class=\"grid\" x1=\"{left:.1}\" x2=\"{left:.1}\" y1=\"{}\" y2=\"{}\"/>",
                TOP - 12.0,
                TOP + self.height
            );
            if width > text_width(&band.label) + 6.0 {
                let _ = writeln!(
                    svg,
                    "<text class=\"phase\" x=\"{:.1}\" y=\"{:.1}\">{}</text>",
                    left + 4.0,
                    TOP - 4.0,
                    escape(&band.label)
                );
            }
        }
    }

    fn draw_axes(&self, svg: &mut String) {
        for (share, label) in &self.up {
            let y = self.y(*share);
            let _ = writeln!(
                svg,
                "<line class=\"grid\" x1=\"{LEFT}\" x2=\"{:.1}\" y1=\"{y:.1}\" y2=\"{y:.1}\"/>\
                 <text class=\"tick\" text-anchor=\"end\" x=\"{}\" y=\"{:.1}\">{}</text>",
                LEFT + AREA,
                LEFT - 8.0,
                y + 3.5,
                escape(label)
            );
        }
        let floor = TOP + self.height;
        for (share, label) in &self.across {
            let x = x(*share);
            let _ = writeln!(
                svg,
                "<line class=\"axis\" x1=\"{x:.1}\" x2=\"{x:.1}\" y1=\"{floor}\" y2=\"{}\"/>\
                 <text class=\"tick\" text-anchor=\"middle\" x=\"{x:.1}\" y=\"{}\">{}</text>",
                floor + 4.0,
                floor + 17.0,
                escape(label)
            );
        }
        let _ = writeln!(
            svg,
            "<line class=\"axis\" x1=\"{LEFT}\" x2=\"{:.1}\" y1=\"{floor}\" y2=\"{floor}\"/>",
            LEFT + AREA
        );
    }

    /// A path for each run of points between gaps; a point on its own is a dot.
    fn draw_line(&self, svg: &mut String, line: &Line) {
        let floor = TOP + self.height;
        for run in line.points.split(Option::is_none) {
            let points: Vec<_> =
                run.iter().flatten().map(|(across, up)| (x(*across), self.y(*up))).collect();
            let (Some((first, _)), Some((last, y))) = (points.first(), points.last()) else {
                continue;
            };
            if points.len() == 1 {
                let _ = writeln!(
                    svg,
                    "<circle class=\"dot {}\" cx=\"{last:.1}\" cy=\"{y:.1}\" r=\"2\"/>",
                    line.class
                );
                continue;
            }
            let mut path = String::new();
            for (x, y) in &points {
                let _ = write!(path, "{}{x:.1} {y:.1}", if path.is_empty() { "M" } else { "L" });
            }
            if line.filled {
                let _ = writeln!(
                    svg,
                    "<path class=\"area {}\" d=\"{path}L{last:.1} {floor}L{first:.1} {floor}Z\"/>",
                    line.class
                );
            }
            let _ = writeln!(svg, "<path class=\"line {}\" d=\"{path}\"/>", line.class);
        }
    }

    /// Names beside the lines, at least a line of text apart.
    fn draw_labels(&self, svg: &mut String) {
        let mut labels: Vec<(f64, &Line)> =
            self.lines.iter().map(|line| (self.y(line.label_at), line)).collect();
        labels.sort_by(|a, b| a.0.total_cmp(&b.0));
        let heights =
            apart(&labels.iter().map(|label| label.0).collect::<Vec<_>>(), TOP + self.height);
        for (y, (_, line)) in heights.into_iter().zip(labels) {
            let _ = writeln!(
                svg,
                "<line class=\"line {}\" x1=\"{:.1}\" x2=\"{:.1}\" y1=\"{y:.1}\" y2=\"{y:.1}\"/>\
                 <text class=\"label\" x=\"{:.1}\" y=\"{:.1}\">{}</text>",
                line.class,
                LEFT + AREA + 7.0,
                LEFT + AREA + 19.0,
                LEFT + AREA + 24.0,
                y + 4.0,
                escape(&line.label)
            );
        }
    }
}

/// Heights moved so that neighbours are [`LINE`] apart and the last is not below `floor`.
fn apart(wanted: &[f64], floor: f64) -> Vec<f64> {
    let mut placed: Vec<f64> = Vec::with_capacity(wanted.len());
    for height in wanted {
        let least = placed.last().map_or(f64::NEG_INFINITY, |above| above + LINE);
        placed.push(height.max(least));
    }
    let mut most = floor;
    for height in placed.iter_mut().rev() {
        *height = height.min(most);
        most = *height - LINE;
    }
    placed
}

fn x(share: f64) -> f64 {
    LEFT + share * AREA
}

/// About how wide a small text is drawn.
fn text_width(text: &str) -> f64 {
    5.8 * text.chars().count() as f64
}

const WIDTH: f64 = 960.0;
const LEFT: f64 = 64.0;
const AREA: f64 = 790.0;
const TOP: f64 = 20.0;
const BOTTOM: f64 = 24.0;
const LINE: f64 = 15.0;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn labels_are_moved_apart_but_not_below_the_floor() {
        assert_eq!(apart(&[10.0, 50.0], 100.0), [10.0, 50.0]);
        assert_eq!(apart(&[10.0, 12.0], 100.0), [10.0, 25.0]);
        assert_eq!(apart(&[98.0, 99.0], 100.0), [85.0, 100.0]);
        assert!(apart(&[], 100.0).is_empty());
    }

    #[test]
    fn a_line_breaks_at_gaps_and_a_lone_point_is_a_dot() {
        let points = vec![Some((0.0, 0.0)), Some((0.1, 1.0)), None, Some((0.5, 0.5)), None];
        let line = Line { label: "a<b".into(), class: "s1", points, label_at: 0.5, filled: false };
        let plot = Plot { height: 100.0, lines: vec![line], ..Plot::default() };
        let svg = plot.render();
        assert_eq!(svg.matches("<path").count(), 1);
        assert_eq!(svg.matches("<circle").count(), 1);
        assert!(svg.contains("a&lt;b") && !svg.contains("a<b"));
    }
}
