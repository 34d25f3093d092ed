//! Procedures, which V1 names and V2 knows by their MapID codes (migration notice, comparison). No document
//! prints a list of them: these are ours.

use serde_json::{Value, json};

use super::behavior::Behavior;

/// MapID code and name; V1 also takes its number in this row.
const PROCEDURES: [(&str, &str); 3] =
    [("FR", "Fixed Restorative"), ("IN", "Invisalign"), ("SM", "Study Model/iRecord")];

/// As a practice configuration lists them.
pub fn list_json() -> Value {
    PROCEDURES.iter().map(|(map_id, name)| json!({"MapID": map_id, "Name": name})).collect()
}

/// Whether a scan-request names a procedure as its version of the API does, where that is looked at.
pub fn is_named(body: &Value, v2: bool, behavior: &Behavior) -> bool {
    let Some(v1_field) = &behavior.procedure_field else { return true };
    let field = behavior.map_id_field.as_ref().filter(|_| v2).unwrap_or(v1_field);
    let Some(named) = find(body, field) else { return false };
    let is_it = |(number, (map_id, name)): (usize, &(&str, &str))| {
        let by_name = named.as_str() == Some(if v2 { map_id } else { name });
        by_name || !v2 && named.as_u64() == Some(number as u64 + 1)
    };
    PROCEDURES.iter().enumerate().any(is_it)
}

/// The first member of that name, at whatever depth.
fn find<'v>(value: &'v Value, field: &str) -> Option<&'v Value> {
    match value {
        Value::Object(members) => {
            members.get(field).or_else(|| members.values().find_map(|member| find(member, field)))
        }
        Value::Array(items) => items.iter().find_map(|item| find(item, field)),
        _ => None,
    }
}
