//! V1's scan-request as V2 wants it: the procedure becomes its MapID code, and every other byte stays as the
//! caller sent it.

use bytes::Bytes;

use super::json_text::{Member, decoded, scalar_members};
use crate::config::{Procedures, V1Config};
use crate::gateway::forward::headers::OutboundFraming;
use crate::gateway::forward::replay::ReplayableBody;
use crate::gateway::refusal::{ProcedureProblem, Refusal};
use crate::http1::{Headers, KnownHeader};

/// The body for V2. One that names no procedure goes as it is: the platform judges it.
pub fn translate(
    body: ReplayableBody,
    headers: &Headers,
    config: &V1Config,
) -> Result<ReplayableBody, Refusal> {
    let refused = |problem| Err(Refusal::ProcedureUnknown(problem));
    let Some(procedures) = &config.procedures else { return refused(ProcedureProblem::NoList) };
    if headers
        .get(KnownHeader::ContentEncoding)
        .is_some_and(|coding| !coding.eq_ignore_ascii_case(b"identity"))
    {
        return refused(ProcedureProblem::Compressed);
    }
    let bytes = match &body {
        ReplayableBody::Empty => return Ok(body),
        ReplayableBody::Buffered { bytes, .. } => bytes,
        // Only what is kept can be changed before it is sent.
        ReplayableBody::Streamed { .. } => return Err(Refusal::ContentTooLarge),
    };
    let members = scalar_members(bytes, &config.procedure_field);
    if members.is_empty() {
        return Ok(body);
    }
    let translated = translated(bytes, &members, procedures, config.map_id_field.as_deref())?;
    let framing = OutboundFraming::Length(translated.len());
    Ok(ReplayableBody::Buffered { bytes: Bytes::from(translated), framing })
}

fn translated(
    text: &[u8],
    members: &[Member],
    procedures: &Procedures,
    new_name: Option<&str>,
) -> Result<Vec<u8>, Refusal> {
    let mut out = Vec::with_capacity(text.len() + 64);
    let mut copied = 0;
    for Member { name, value } in members {
        let literal = &text[value.clone()];
        let procedure = procedure_of(literal);
        let Some(map_id) = procedures.map_id(procedure.trim()) else {
            return Err(Refusal::ProcedureUnknown(not_listed(&procedure, procedures)));
        };
        if let Some(new_name) = new_name {
            out.extend_from_slice(&text[copied..name.start]);
            out.extend_from_slice(quoted(new_name).as_bytes());
            copied = name.end;
        }
        out.extend_from_slice(&text[copied..value.start]);
        // A number stays one where the code is one.
        if literal.starts_with(b"\"") || !is_number(map_id) {
            out.extend_from_slice(quoted(map_id).as_bytes());
        } else {
            out.extend_from_slice(map_id.as_bytes());
        }
        copied = value.end;
    }
    out.extend_from_slice(&text[copied..]);
    Ok(out)
}

fn procedure_of(literal: &[u8]) -> String {
    decoded(literal).unwrap_or_else(|| String::from_utf8_lossy(literal).into_owned())
}

fn quoted(text: &str) -> String {
    serde_json::Value::from(text).to_string()
}

fn is_number(text: &str) -> bool {
    text.bytes().all(|byte| byte.is_ascii_digit()) && (text == "0" || !text.starts_with('0'))
}

/// Longer than the name of any procedure.
const LONGEST_SHOWN: usize = 80;
/// More than any laboratory makes.
const MOST_SHOWN: usize = 200;

fn not_listed(procedure: &str, procedures: &Procedures) -> ProcedureProblem {
    let shown = procedure.chars().filter(|letter| !letter.is_control()).take(LONGEST_SHOWN);
    ProcedureProblem::NotListed {
        procedure: shown.collect(),
        known: procedures.names().take(MOST_SHOWN).map(str::to_owned).collect(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const PROCEDURES: [(&str, &str); 4] = [("Crown", "FR"), ("7", "17"), ("8", "SM"), ("a\"b", "q\"")];

    fn to_v2(text: &str, new_name: Option<&str>) -> Result<String, Refusal> {
        let members = scalar_members(text.as_bytes(), "Procedure");
        let out = translated(text.as_bytes(), &members, &Procedures::from(PROCEDURES), new_name)?;
        Ok(String::from_utf8(out).unwrap())
    }

    #[test]
    fn the_procedure_alone_changes() {
        for (v1, v2) in [
            (
                r#"{"A": 1.50, "Procedure" : "Crown" ,"B":"\u00e4"}"#,
                r#"{"A": 1.50, "Procedure" : "FR" ,"B":"\u00e4"}"#,
            ),
            (
                r#"{"Rx":{"Procedure":7},"More":[{"Procedure":8}]}"#,
                r#"{"Rx":{"Procedure":17},"More":[{"Procedure":"SM"}]}"#,
            ),
            (r#"{"Procedure":"7"}"#, r#"{"Procedure":"17"}"#),
            (r#"{"Procedure":" a\u0022b "}"#, r#"{"Procedure":"q\""}"#),
        ] {
            assert_eq!(to_v2(v1, None).unwrap(), v2);
        }
        assert_eq!(to_v2(r#"{ "Procedure":"Crown"}"#, Some("MapID")).unwrap(), r#"{ "MapID":"FR"}"#);
    }

    #[test]
    fn an_unknown_procedure_is_named_and_so_are_the_known_ones() {
        let refusal = to_v2(r#"{"Procedure":"crown\u0007"}"#, None).unwrap_err();
        let told = refusal.detail().unwrap();
        assert_eq!(told, r#"procedure "crown" is not one of the known ones: 7, 8, Crown, a"b"#);
        let long = format!(r#"{{"Procedure":"{}"}}"#, "x".repeat(5000));
        assert!(to_v2(&long, None).unwrap_err().detail().unwrap().len() < 200);
    }
}
