//! Durations as people write them: `50m`, `2h`, `1h30m`.
//!
//! A number without a unit is refused: whether `timeout = 50` means seconds or minutes is what one gets wrong at
//! night. Months and years are not units here, because they have no fixed length.

use std::fmt::Write as _;
use std::time::Duration;

/// The units with their seconds, longest first.
const UNITS: [(&str, u64); 5] = [("w", 604_800), ("d", 86_400), ("h", 3600), ("m", 60), ("s", 1)];
/// What a message says about units.
pub(crate) const UNITS_HINT: &str =
    "units are s, m, h, d and w (seconds, minutes, hours, days, weeks), as in \"90s\", \"50m\" or \"1h30m\"";
/// The longest duration that is taken: ten years. Anything beyond is a slip, and sums of such can't overflow.
const LONGEST: u64 = 3650 * 86_400;

/// Reads a duration.
///
/// # Errors
/// What is wrong with it, in a sentence that goes on after the quoted text.
pub fn parse_duration(text: &str) -> Result<Duration, String> {
    if text.is_empty() {
        return Err("is empty".to_owned());
    }
    let mut rest = text;
    let mut seconds: u64 = 0;
    let mut units = &UNITS[..];
    while !rest.is_empty() {
        let digits = rest.find(|c: char| !c.is_ascii_digit()).unwrap_or(rest.len());
        let unit_end =
            (rest[digits..].find(|c: char| c.is_ascii_digit())).map_or(rest.len(), |at| digits + at);
        let (number, unit) = (&rest[..digits], &rest[digits..unit_end]);
        if number.is_empty() {
            return Err("does not begin with a whole number".to_owned());
        }
        if unit.is_empty() {
            return Err("has a number without a unit".to_owned());
        }
        let Some(at) = units.iter().position(|(name, _)| *name == unit) else {
            if unit.starts_with(['.', ',']) {
                return Err("has a fraction; write the rest in a smaller unit".to_owned());
            }
            return Err(match UNITS.iter().any(|(name, _)| *name == unit) {
                true => {
                    format!("has the unit `{unit}` twice or in the wrong place; write the longest unit first")
                }
                false => format!("has the unknown unit {}", super::text::quoted(unit)),
            });
        };
        let factor = units[at].1;
        units = &units[at + 1..];
        seconds = (number.parse::<u64>().ok())
            .and_then(|number| number.checked_mul(factor))
            .and_then(|more| seconds.checked_add(more))
            .filter(|sum| *sum <= LONGEST)
            .ok_or("is longer than ten years")?;
        rest = &rest[unit_end..];
    }
    Ok(Duration::from_secs(seconds))
}

/// What a text that is no duration most likely meant: other names of the units, spaces, a wrong order, a fraction.
pub(crate) fn repair(text: &str) -> Option<String> {
    let text: String = text.chars().filter(|c| !c.is_whitespace()).collect();
    let mut rest = text.as_str();
    let mut seconds: u64 = 0;
    while !rest.is_empty() {
        let number_end = rest
            .find(|c: char| !(c.is_ascii_digit() || c == '.'))
            .unwrap_or(rest.len());
        let (number, tail) = rest.split_at(number_end);
        let unit_end = tail.find(|c: char| c.is_ascii_digit()).unwrap_or(tail.len());
        let (unit, tail) = tail.split_at(unit_end);
        let (_, factor) = UNITS.iter().find(|(name, _)| *name == other_name(unit))?;
        let (whole, fraction) = number.split_once('.').unwrap_or((number, ""));
        let mut more = whole.parse::<u64>().ok()?.checked_mul(*factor)?;
        if !fraction.is_empty() {
            let scale = 10_u64.checked_pow(u32::try_from(fraction.len()).ok()?)?;
            more = more.checked_add(fraction.parse::<u64>().ok()?.checked_mul(*factor)? / scale)?;
        }
        seconds = seconds.checked_add(more)?;
        rest = tail;
    }
    ((1..=LONGEST).contains(&seconds)).then(|| format_duration(Duration::from_secs(seconds)))
}

/// The unit of a name that it goes by elsewhere.
fn other_name(unit: &str) -> &'static str {
    match unit.to_ascii_lowercase().as_str() {
        "s" | "sec" | "secs" | "second" | "seconds" => "s",
        "m" | "min" | "mins" | "minute" | "minutes" => "m",
        "h" | "hr" | "hrs" | "hour" | "hours" => "h",
        "d" | "day" | "days" => "d",
        "w" | "wk" | "week" | "weeks" => "w",
        _ => "",
    }
}

/// Writes a duration so that [`parse_duration`] reads the same one, to the second.
pub fn format_duration(duration: Duration) -> String {
    let mut left = duration.as_secs();
    let mut text = String::new();
    for (unit, seconds) in UNITS {
        let count = left / seconds;
        // Weeks only where they come out even: nobody reads 1w1d as 8d.
        if count > 0 && (unit != "w" || left.is_multiple_of(seconds)) {
            let _ = write!(text, "{count}{unit}");
            left %= seconds;
        }
    }
    if text.is_empty() {
        text.push_str("0s");
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn durations_are_read() {
        for (text, seconds) in [
            ("0s", 0),
            ("90s", 90),
            ("50m", 3000),
            ("2h", 7200),
            ("1h30m", 5400),
            ("1w", 604_800),
            ("1d1s", 86_401),
        ] {
            assert_eq!(parse_duration(text), Ok(Duration::from_secs(seconds)), "{text}");
            assert_eq!(
                parse_duration(&format_duration(Duration::from_secs(seconds))),
                Ok(Duration::from_secs(seconds))
            );
        }
    }

    #[test]
    fn other_ways_to_write_a_duration_are_understood_for_a_hint() {
        for (text, meant) in [
            ("50min", Some("50m")),
            ("50 M", Some("50m")),
            ("1.5h", Some("1h30m")),
            ("30m1h", Some("1h30m")),
            ("2 hours 30 minutes", Some("2h30m")),
            ("90", None),
            ("0m", None),
            ("1mo", None),
            ("9.99999999999999999999999h", None),
            ("..h", None),
            ("", None),
        ] {
            assert_eq!(repair(text).as_deref(), meant, "{text}");
        }
    }

    #[test]
    fn what_is_not_a_duration_is_refused_with_its_reason() {
        for (text, why) in [
            ("", "is empty"),
            ("50", "has a number without a unit"),
            ("1h30", "has a number without a unit"),
            ("m", "does not begin with a whole number"),
            ("-5m", "does not begin with a whole number"),
            ("1.5h", "has a fraction; write the rest in a smaller unit"),
            ("50min", "has the unknown unit \"min\""),
            ("50 m", "has the unknown unit \" m\""),
            ("50M", "has the unknown unit \"M\""),
            (
                "30m1h",
                "has the unit `h` twice or in the wrong place; write the longest unit first",
            ),
            (
                "1m1m",
                "has the unit `m` twice or in the wrong place; write the longest unit first",
            ),
            ("99999999999999999999999s", "is longer than ten years"),
            ("18446744073709551615w", "is longer than ten years"),
            ("٣m", "does not begin with a whole number"),
        ] {
            assert_eq!(parse_duration(text), Err(why.to_owned()), "{text}");
        }
    }
}
