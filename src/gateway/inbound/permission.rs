//! Whether a caller may make a call: its endpoint's group is in the caller's `allow`, and no tunnel is ever
//! opened.

use http::Method;

use crate::gateway::refusal::Refusal;
use crate::gateway::settings::CallerRules;
use crate::model::endpoint::Endpoint;

/// Whether the caller may make this call at all. Decided before a token is looked for, and again when the
/// route is known.
pub fn check_allowed(rules: &CallerRules, endpoint: &Endpoint) -> Result<(), Refusal> {
    if !endpoint.is_forwarded {
        return Err(Refusal::BadRequest("tokens are asked for by POST /oauth2/token, spelled just so"));
    }
    if rules.allow.contains(&endpoint.group) { Ok(()) } else { Err(Refusal::CallNotAllowed(endpoint.group)) }
}

/// No tunnel, ever, and no echo of our own headers (threats, row 2).
pub fn refuse_tunnel_methods(method: &Method) -> Result<(), Refusal> {
    let is_tunnel =
        ["CONNECT", "TRACE", "TRACK"].iter().any(|tunnel| method.as_str().eq_ignore_ascii_case(tunnel));
    if is_tunnel { Err(Refusal::MethodNotAllowed) } else { Ok(()) }
}
