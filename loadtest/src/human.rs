//! Figures as people read them, and text in columns.
//!
//! The terminal, the page and the comparison show the same quantities; that they show them alike is
//! decided here. Three significant digits, because no run repeats its fourth; units grow by a thousand
//! for time and counts and by 1,024 for memory; counts that must be exact are written out with commas.
//! Nothing here knows what a figure means.

/// Time from microseconds, as `12.3 ms`.
pub(crate) fn micros(us: f64) -> String {
    scaled(us, 1000.0, &["\u{b5}s", "ms", "s"])
}

/// Memory from bytes, as `1.25 MiB`; growth may be negative.
pub(crate) fn bytes(bytes: f64) -> String {
    if bytes.abs() < 1023.5 && bytes.fract() == 0.0 {
        return format!("{bytes:.0} B");
    }
    scaled(bytes, 1024.0, &["B", "KiB", "MiB", "GiB", "TiB"])
}

/// A number that may be rounded, as `163 k`.
pub(crate) fn compact(number: f64) -> String {
    if number.abs() < 999.5 && number.fract() == 0.0 {
        return format!("{number:.0}");
    }
    scaled(number, 1000.0, &["", "k", "M", "G", "T"]).trim_end().to_owned()
}

/// Events per second, as `163 k/s`.
pub(crate) fn rate(per_second: f64) -> String {
    format!("{}/s", compact(per_second))
}

/// A share from 0 to 1, as `85.2 %`.
pub(crate) fn percent(share: f64) -> String {
    let percent = share * 100.0;
    if percent.abs() < 0.005 { "0 %".to_owned() } else { format!("{} %", digits(percent)) }
}

/// Seconds, as `61.2 s` or `12 min 5 s`.
pub(crate) fn seconds(seconds: f64) -> String {
    if seconds < 120.0 {
        return micros(seconds * 1e6);
    }
    let whole = seconds.round();
    let (minutes, rest) = ((whole / 60.0).floor(), whole % 60.0);
    if minutes < 60.0 {
        format!("{minutes:.0} min {rest:.0} s")
    } else {
        format!("{:.0} h {:.0} min", (minutes / 60.0).floor(), minutes % 60.0)
    }
}

/// An exact count with commas, as `10,000`.
pub(crate) fn count(count: u64) -> String {
    grouped(&count.to_string())
}

/// Memory to the byte, as `3,995 B`, for what a connection costs.
pub(crate) fn exact_bytes(bytes: f64) -> String {
    let sign = if bytes < 0.0 { "-" } else { "" };
    format!("{sign}{} B", grouped(&format!("{:.0}", bytes.abs())))
}

/// Digits with a comma after every third from the right.
fn grouped(digits: &str) -> String {
    let mut text = String::with_capacity(digits.len() + digits.len() / 3);
    for (at, digit) in digits.chars().enumerate() {
        if at > 0 && (digits.len() - at).is_multiple_of(3) {
            text.push(',');
        }
        text.push(digit);
    }
    text
}

/// Three significant digits, as `4.81`, `48.1`, `481`.
pub(crate) fn digits(number: f64) -> String {
    match number.abs() {
        size if size < 9.995 => format!("{number:.2}"),
        size if size < 99.95 => format!("{number:.1}"),
        _ => format!("{number:.0}"),
    }
}

/// A figure without the zeros that end its fraction, as `10 ms` for `10.0 ms`, for the ticks of an axis.
pub(crate) fn short(figure: &str) -> String {
    let (number, unit) = match figure.split_once(' ') {
        Some((number, unit)) => (number, format!(" {unit}")),
        None => (figure, String::new()),
    };
    if !number.contains('.') {
        return figure.to_owned();
    }
    format!("{}{unit}", number.trim_end_matches('0').trim_end_matches('.'))
}

/// A date from milliseconds since 1970, as `2026-01-31 12:00:00 UTC`.
pub(crate) fn date(unix_ms: u64) -> String {
    let at = std::time::UNIX_EPOCH + std::time::Duration::from_millis(unix_ms);
    let text = humantime::format_rfc3339_seconds(at).to_string();
    text.replace('T', " ").replace('Z', " UTC")
}

/// Rows in columns two blanks apart: the first column flush left, the others flush right.
pub(crate) fn columns(rows: &[Vec<String>]) -> String {
    let mut widths: Vec<usize> = Vec::new();
    for row in rows {
        for (at, cell) in row.iter().enumerate() {
            let width = cell.chars().count();
            match widths.get_mut(at) {
                Some(widest) => *widest = width.max(*widest),
                None => widths.push(width),
            }
        }
    }
    let mut text = String::new();
    for row in rows {
        let mut line = String::new();
        for (at, (cell, width)) in row.iter().zip(&widths).enumerate() {
            if at == 0 {
                line.push_str(&format!("{cell:<width$}"));
            } else {
                line.push_str(&format!("  {cell:>width$}"));
            }
        }
        text.push_str(line.trim_end());
        text.push('\n');
    }
    text
}

/// The largest unit in which the number is at least one.
fn scaled(number: f64, step: f64, units: &[&str]) -> String {
    let mut number = number;
    let mut units = units.iter();
    let mut unit = units.next();
    // What would be rounded up to the next unit is shown in that unit.
    while number.abs() >= step - 0.5 {
        let Some(next) = units.next() else { break };
        number /= step;
        unit = Some(next);
    }
    format!("{} {}", digits(number), unit.unwrap_or(&""))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn time_takes_the_unit_that_fits() {
        let cases = [
            (0.0, "0.00 \u{b5}s"),
            (0.85, "0.85 \u{b5}s"),
            (9.996, "10.0 \u{b5}s"),
            (999.6, "1.00 ms"),
            (12_345.0, "12.3 ms"),
            (1_500_000.0, "1.50 s"),
            (600e6, "600 s"),
        ];
        for (us, text) in cases {
            assert_eq!(micros(us), text);
        }
        assert_eq!(seconds(61.23), "61.2 s");
        assert_eq!(seconds(725.0), "12 min 5 s");
        assert_eq!(seconds(7300.0), "2 h 1 min");
    }

    #[test]
    fn memory_and_numbers_are_rounded_to_three_digits() {
        assert_eq!(bytes(131.0), "131 B");
        assert_eq!(bytes(131.26), "131 B");
        assert_eq!(bytes(-2048.0), "-2.00 KiB");
        assert_eq!(bytes(268_435_456.0), "256 MiB");
        assert_eq!(compact(12.0), "12");
        assert_eq!(compact(163_399.0), "163 k");
        assert_eq!(rate(1_234_567.0), "1.23 M/s");
        assert_eq!(percent(0.8512), "85.1 %");
        assert_eq!(percent(0.0), "0 %");
    }

    #[test]
    fn counts_are_exact() {
        let cases = [(0, "0"), (999, "999"), (1000, "1,000"), (10_000_000, "10,000,000")];
        for (number, text) in cases {
            assert_eq!(count(number), text);
        }
        assert_eq!(exact_bytes(3994.6), "3,995 B");
        assert_eq!(exact_bytes(-12.0), "-12 B");
    }

    #[test]
    fn ticks_have_no_zeros_to_spare() {
        let cases =
            [("10.0 ms", "10 ms"), ("2.50 MiB", "2.5 MiB"), ("0.00", "0"), ("100 k", "100 k")];
        for (figure, text) in cases {
            assert_eq!(short(figure), text);
        }
    }

    #[test]
    fn dates_are_in_universal_time() {
        assert_eq!(date(1_767_225_600_123), "2026-01-01 00:00:00 UTC");
    }

    #[test]
    fn columns_line_up_by_characters_not_bytes() {
        let rows = [vec!["a".into(), "1 \u{b5}s".into()], vec!["bcd".into(), "10 ms".into()]];
        assert_eq!(columns(&rows), "a     1 \u{b5}s\nbcd  10 ms\n");
    }
}
