//! Patients of an account, made up from its number, and the changes that callers made to them.

use serde_json::{Map, Value, json};

use super::state::Practice;

/// Letters beyond ASCII on purpose: a body must pass byte for byte.
const FIRST: [&str; 6] = ["Anna", "Björn", "Chloé", "Dmitri", "Eun-ji", "Zoë"];
const LAST: [&str; 5] = ["Sandbox", "Müller", "O'Neill", "Ñandú", "李"];
/// Patients that an account has besides those of its orders.
const AT_LEAST: u64 = 5;

pub fn name(account: u64, index: u64) -> (&'static str, &'static str) {
    let number = account.wrapping_mul(7).wrapping_add(index);
    (FIRST[(number % 6) as usize], LAST[(number % 5) as usize])
}

pub fn chart_number(account: u64, index: u64) -> String {
    format!("C{account}-{index:04}")
}

pub fn guid(account: u64, index: u64) -> String {
    format!("{account:08x}-5a4d-4000-8000-{index:012x}")
}

/// Those whose name, chart number or GUID holds one of the texts that are asked for; all, when none is.
pub fn search(practice: &Practice, wanted: &[String]) -> Vec<Value> {
    let fits = |patient: &Value| {
        let text = patient.to_string().to_lowercase();
        wanted.is_empty() || wanted.iter().any(|part| text.contains(&part.to_lowercase()))
    };
    (0..count(practice)).map(|index| patient(practice, index)).filter(fits).collect()
}

/// Sets fields of the patient whose `key` field is named in `changes`. None: no such patient.
pub fn update(practice: &mut Practice, key: &str, changes: &Map<String, Value>) -> Option<Value> {
    let wanted = changes.iter().find(|(name, _)| name.eq_ignore_ascii_case(key))?.1.as_str()?.to_owned();
    let mut all = (0..count(practice)).map(|index| (index, patient(practice, index)));
    let (index, _) = all.find(|(_, patient)| patient[key] == *wanted)?;
    let guid = guid(practice.account.id, index);
    practice.patients.entry(guid).or_default().extend(changes.clone());
    Some(patient(practice, index))
}

fn count(practice: &Practice) -> u64 {
    practice.account.orders.max(AT_LEAST)
}

fn patient(practice: &Practice, index: u64) -> Value {
    let account = practice.account.id;
    let (first, last) = name(account, index);
    let guid = guid(account, index);
    let mut patient = json!({
        "PatientGuid": guid,
        "ChartNumber": chart_number(account, index),
        "FirstName": first,
        "LastName": last,
        "DateOfBirth": format!("19{:02}-0{}-1{}", 50 + index % 50, 1 + index % 9, index % 10),
    });
    if let (Some(changes), Some(fields)) = (practice.patients.get(&guid), patient.as_object_mut()) {
        fields.extend(changes.clone());
    }
    patient
}
