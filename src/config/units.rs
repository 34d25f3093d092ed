//! Durations and sizes as people write them: `"20s"`, `"7d"`, `65536`, `"64KiB"`. A bare number is never a
//! duration.

use std::time::Duration;

/// `"1500ms"`, `"20s"`, `"5m"`, `"7d"`, `"1h 30m"`, `"0s"`.
pub fn parse_duration(text: &str) -> Option<Duration> {
    humantime::parse_duration(text.trim()).ok()
}

/// `"64KiB"`, `"1MiB"`, `"2GiB"`, `"512B"`, `"65536"`. Decimal units are refused: a limit that is 2 % off is
/// a puzzle later.
pub fn parse_size(text: &str) -> Option<u64> {
    let text = text.trim();
    let digits = text.find(|c: char| !c.is_ascii_digit()).unwrap_or(text.len());
    let (number, unit) = text.split_at(digits);
    let factor = match unit.trim() {
        "" | "B" => 1,
        "KiB" => 1 << 10,
        "MiB" => 1 << 20,
        "GiB" => 1 << 30,
        _ => return None,
    };
    number.parse::<u64>().ok()?.checked_mul(factor)
}

/// The shortest form that `parse_duration` reads back.
pub fn show_duration(duration: Duration) -> String {
    let millis = duration.as_millis();
    for (unit, length) in [("d", 86_400_000_u128), ("h", 3_600_000), ("m", 60_000), ("s", 1000)] {
        if millis >= length && millis.is_multiple_of(length) {
            return format!("{}{unit}", millis / length);
        }
    }
    if millis == 0 { "0s".to_owned() } else { format!("{millis}ms") }
}

/// The shortest form that `parse_size` reads back.
pub fn show_size(bytes: u64) -> String {
    for (unit, length) in [("GiB", 1 << 30), ("MiB", 1 << 20), ("KiB", 1 << 10)] {
        if bytes >= length && bytes.is_multiple_of(length) {
            return format!("{}{unit}", bytes / length);
        }
    }
    bytes.to_string()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_duration_needs_its_unit() {
        for (text, millis) in [("20s", 20_000), ("1500ms", 1500), ("7d", 604_800_000), ("0s", 0)] {
            let duration = parse_duration(text).unwrap();
            assert_eq!(duration, Duration::from_millis(millis));
            assert_eq!(parse_duration(&show_duration(duration)), Some(duration));
        }
        for bad in ["", "20", "-1s", "1 parsec", "s"] {
            assert_eq!(parse_duration(bad), None, "{bad:?}");
        }
        assert_eq!(show_duration(Duration::from_secs(100)), "100s");
        assert_eq!(show_duration(Duration::from_secs(3600)), "1h");
    }

    #[test]
    fn a_size_is_a_number_of_bytes_or_of_binary_units() {
        for (text, bytes) in [("65536", 65_536), ("64KiB", 65_536), ("1 MiB", 1 << 20), ("0", 0)] {
            assert_eq!(parse_size(text), Some(bytes), "{text:?}");
            assert_eq!(parse_size(&show_size(bytes)), Some(bytes));
        }
        for bad in ["", "64K", "64KB", "-1", "1.5MiB", "99999999999999999999GiB", "KiB"] {
            assert_eq!(parse_size(bad), None, "{bad:?}");
        }
    }
}
