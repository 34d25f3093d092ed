//! What a fault puts in the place of a right response, and which faults let the right one through.

use super::faults::Fault;
use super::reply::Reply;
use super::{api, invalid_tokens};

/// Responses that a fault puts in place of the right one; the call is not carried out for them.
pub fn replacement(fault: &Fault) -> Option<Reply> {
    let reply = match fault {
        Fault::Status(status) | Fault::RespondsBeforeBody(status) => {
            Reply::error(*status, "ordered by the sandbox's script")
        }
        Fault::FailsInside200(error) => {
            let body = serde_json::json!({"Data": null, "Status": "Failure", "Errors": [error]});
            Reply::json(200, &body)
        }
        Fault::HtmlInstead => {
            Reply::html(200, "<!doctype html><title>Maintenance</title><p>Back soon.".to_owned())
        }
        Fault::EmptyArray => Reply::json(200, &serde_json::json!({"APIs": []})),
        Fault::Responds { status, body } => Reply::json_text(*status, body.clone()),
        Fault::Discovers { domain, path } => Reply::json(200, &api::discovery_json("2", domain, path)),
        Fault::Redirects { status, location } => Reply::redirect(*status, location.clone()),
        Fault::JunkToken(invalid_tokens) => invalid_tokens::response(invalid_tokens),
        Fault::Speaks(speaker) => speaker.reply(),
        _ => return None,
    };
    Some(reply)
}

/// Nothing of a response is seen, so the call is carried out only where the script says so.
pub fn is_silent(fault: &Fault) -> bool {
    matches!(
        fault,
        Fault::Stalls(_)
            | Fault::StallsForever
            | Fault::DropsBeforeHead
            | Fault::LostTokenResponse
            | Fault::EndlessHead
            | Fault::Garbage
            | Fault::Unsolicited101
    )
}

/// Right but late: the pause lies behind.
pub fn is_late(fault: &Fault) -> bool {
    matches!(fault, Fault::DelayedThenNormal(_) | Fault::HeldBy(_))
}
