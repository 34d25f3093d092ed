//! Numbers, sizes, durations and truth values of a section, each with its default and its range. One that is
//! wrong has been reported, which keeps the whole configuration from being used: the reading goes on with the
//! default, so that all faults are found.

use std::ops::RangeInclusive;
use std::time::Duration;

use toml::de::DeValue;

use super::reader::{Reported, Section, TomlValue};
use super::units::{parse_duration, parse_size, show_duration, show_size};

impl<'a> Section<'a> {
    pub fn boolean(&self, key: &'static str, default: bool) -> bool {
        let Some(value) = self.get(key) else { return default };
        match value.node.get_ref() {
            DeValue::Boolean(response) => *response,
            _ => {
                let _ = value.wrong_type::<bool>("true or false");
                default
            }
        }
    }

    pub fn integer(&self, key: &'static str, default: usize, range: RangeInclusive<usize>) -> usize {
        let read = |value: TomlValue<'a>| {
            let number = value.integer()?;
            let shown = (range.start().to_string(), range.end().to_string());
            value.within(usize::try_from(number).ok(), &range, shown)
        };
        self.or_reported_default(key, read, default)
    }

    /// A share: 0 to 1.
    pub fn fraction(&self, key: &'static str, default: f64) -> f64 {
        let read = |value: TomlValue<'a>| {
            let number: f64 = match value.node.get_ref() {
                DeValue::Float(number) => number.as_str().parse().unwrap_or(f64::NAN),
                DeValue::Integer(_) => value.integer()? as f64,
                _ => return value.wrong_type("a number from 0.0 to 1.0"),
            };
            value.within(Some(number), &(0.0..=1.0), ("0.0".into(), "1.0".into()))
        };
        self.or_reported_default(key, read, default)
    }

    pub fn size(&self, key: &'static str, default: usize, range: RangeInclusive<usize>) -> usize {
        let shown = || (show_size(*range.start() as u64), show_size(*range.end() as u64));
        let read = |value: TomlValue<'a>| {
            let bytes = match value.node.get_ref() {
                DeValue::Integer(_) => value.integer().map(|number| u64::try_from(number).ok())?,
                DeValue::String(text) => match parse_size(text) {
                    None => {
                        let what = format!("{text:?} is not a size");
                        return value.refuse(what, "write bytes, or a text like \"64KiB\" or \"1MiB\"");
                    }
                    bytes => bytes,
                },
                _ => return value.wrong_type("a size like \"64KiB\""),
            };
            value.within(bytes.and_then(|bytes| usize::try_from(bytes).ok()), &range, shown())
        };
        self.or_reported_default(key, read, default)
    }

    pub fn duration(
        &self,
        key: &'static str,
        default: Duration,
        range: RangeInclusive<Duration>,
    ) -> Duration {
        let read = |value: TomlValue<'a>| {
            let text = match value.node.get_ref() {
                DeValue::String(text) => text,
                _ => return value.wrong_type("a duration like \"20s\""),
            };
            let Some(duration) = parse_duration(text) else {
                let what = format!("{text:?} is not a duration");
                return value
                    .refuse(what, "write a number with its unit: \"1500ms\", \"20s\", \"5m\", \"7d\"");
            };
            let shown = (show_duration(*range.start()), show_duration(*range.end()));
            value.within(Some(duration), &range, shown)
        };
        self.or_reported_default(key, read, default)
    }

    /// A number that is wrong has been reported, which keeps the whole configuration from being used: the
    /// reading goes on with the default, so that all faults are found.
    fn or_reported_default<T>(
        &self,
        key: &'static str,
        read: impl FnOnce(TomlValue<'a>) -> Result<T, Reported>,
        default: T,
    ) -> T {
        self.get(key).and_then(|value| read(value).ok()).unwrap_or(default)
    }
}
