//! Strict reading of control responses: names trimmed, and a name that comes twice refused, since two readers
//! could disagree about it.

use std::fmt;

use serde::de::{Deserialize, Deserializer, Error, MapAccess, SeqAccess, Visitor};
use serde_json::{Map, Value};

/// Parses one complete document. The documents print some names with a trailing blank (S1 4.2.3), so names
/// are trimmed.
pub(super) fn parse(bytes: &[u8]) -> Option<Value> {
    serde_json::from_slice::<StrictJson>(bytes).ok().map(|strict| strict.0)
}

struct StrictJson(Value);

impl<'de> Deserialize<'de> for StrictJson {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_any(StrictVisitor).map(StrictJson)
    }
}

struct StrictVisitor;

impl<'de> Visitor<'de> for StrictVisitor {
    type Value = Value;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("JSON")
    }

    fn visit_unit<E: Error>(self) -> Result<Value, E> {
        Ok(Value::Null)
    }

    fn visit_bool<E: Error>(self, value: bool) -> Result<Value, E> {
        Ok(Value::from(value))
    }

    fn visit_u64<E: Error>(self, value: u64) -> Result<Value, E> {
        Ok(Value::from(value))
    }

    fn visit_i64<E: Error>(self, value: i64) -> Result<Value, E> {
        Ok(Value::from(value))
    }

    fn visit_f64<E: Error>(self, value: f64) -> Result<Value, E> {
        Ok(Value::from(value))
    }

    fn visit_str<E: Error>(self, value: &str) -> Result<Value, E> {
        Ok(Value::from(value))
    }

    fn visit_string<E: Error>(self, value: String) -> Result<Value, E> {
        Ok(Value::from(value))
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut items: A) -> Result<Value, A::Error> {
        let mut array = Vec::new();
        while let Some(StrictJson(item)) = items.next_element()? {
            array.push(item);
        }
        Ok(Value::Array(array))
    }

    fn visit_map<A: MapAccess<'de>>(self, mut members: A) -> Result<Value, A::Error> {
        let mut object = Map::new();
        while let Some((name, StrictJson(value))) = members.next_entry::<String, StrictJson>()? {
            if object.insert(name.trim().to_owned(), value).is_some() {
                return Err(A::Error::custom("a name comes twice"));
            }
        }
        Ok(Value::Object(object))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn names_are_trimmed_and_everything_else_stays() {
        let text = br#"{"Data ": [{"AccountId ": 7, "n": null, "f": 1.5, "b": true, "s": " x ", "i": -1}]}"#;
        let expected =
            json!({"Data": [{"AccountId": 7, "n": null, "f": 1.5, "b": true, "s": " x ", "i": -1}]});
        assert_eq!(parse(text), Some(expected));
    }

    #[test]
    fn a_name_that_comes_twice_is_refused_at_every_depth() {
        for twice in [
            r#"{"access_token":"a","access_token":"b"}"#,
            r#"{"access_token":"a","access_token ":"b"}"#,
            r#"[{"a":{"b":1,"b":2}}]"#,
        ] {
            assert_eq!(parse(twice.as_bytes()), None, "{twice}");
        }
    }

    #[test]
    fn what_is_not_exactly_one_document_is_refused() {
        let deep = "[".repeat(100_000);
        for bad in ["", "<html></html>", "{} {}", "{", "NaN", r#"{"a":1e999}"#, &deep] {
            assert_eq!(parse(bad.as_bytes()), None);
        }
    }
}
