//! Findings of `explain` about calls: what callers got lately, and what to do about it.

use std::time::Duration;

use crate::access::failure_streak::{CallFailure, NotServed};

use super::explain_inputs::{ExplainInputs, finding, fix_of_realm};
use super::view::Finding;

/// An office that was busy and has been silent for this long has probably lost its way to us.
const QUIET: Duration = Duration::from_secs(3 * 24 * 3600);
/// So many requests in a row that the platform does not take are no slip.
const MANY: u32 = 3;

impl ExplainInputs<'_> {
    /// What callers got, where the last of them got nothing good.
    pub(super) fn streak_finding(&self) -> Option<Finding> {
        let streak = self.summary.streak.as_ref().filter(|streak| !self.is_over(streak))?;
        let calls = match streak.count {
            1 => format!("The last call, at {},", streak.last),
            many => format!("All of the last {many} calls, since {},", streak.since),
        };
        let (what, fix) = match streak.what {
            // An application that asks for what is not there, now and then, is no trouble of the account's.
            CallFailure::Status(400 | 404..=499) if streak.count < MANY => return None,
            CallFailure::Status(status) => (
                match streak.count {
                    1 => format!("The platform answered the last call with {status}, at {}.", streak.last),
                    many => format!(
                        "The platform answers {status} to every call: {many} in a row since {}.",
                        streak.since
                    ),
                },
                self.fix_of_status(status),
            ),
            CallFailure::Refused(NotServed::PlatformUnreachable) => {
                let why = self.summary.unreachable.as_ref().map(|it| format!(": {}", it.why));
                let route = self.summary.route.as_ref().map_or_else(String::new, |route| format!(" They go to {route}"));
                (
                    format!("{calls} got 502 platform_unreachable.{route}{}.", why.unwrap_or_default()),
                    format!("`genapi-gateway check --connect` shows whether this machine reaches the platform at all; `genapi-gateway accounts discover {}` asks where the account lives now, as the gateway does by itself once a minute.", self.view.name),
                )
            }
            CallFailure::Refused(NotServed::TokenUnavailable) => {
                let why = self.why_no_token().map_or_else(String::new, |why| format!(": {why}"));
                (format!("{calls} got 503 token_unavailable{why}."), self.fix_of_no_token())
            }
            // Said by the account's state already.
            CallFailure::Refused(NotServed::AccountNeedsLogin) => return None,
            CallFailure::Refused(why @ (NotServed::PlatformTimeout | NotServed::PlatformMisbehaved)) => (
                if why == NotServed::PlatformTimeout {
                    format!("{calls} got 504 platform_timeout: the platform did not answer in time.")
                } else {
                    format!("{calls} got 502 platform_misbehaved: the platform's answer broke off or was not valid HTTP.")
                },
                "The trouble is the platform's or on the way there: `genapi-gateway check --connect` looks at the way. A call that creates something may have taken effect; look before it is sent again.".to_owned(),
            ),
        };
        Some(finding("trouble", what, &fix))
    }

    pub(super) fn fix_of_status(&self, status: u16) -> String {
        let name = &self.view.name;
        match status {
            401 => format!("The platform refuses a token that it has issued: `genapi-gateway accounts renew {name}` gets another one; if that changes nothing, ask Align."),
            403 => format!("The platform takes the token and forbids the calls. Either the account may not use this part of the API: look in MyiTero, or ask Align. Or it has moved: `genapi-gateway accounts discover {name}` asks where it lives."),
            500..=599 => "The trouble is the platform's and nothing here can mend it: tell Align since when, with a request id of the access log.".to_owned(),
            404 => format!("Either the application asks for what is not there, or its base URL or the route's ApiPath is wrong: compare the access log with the API's documents; `genapi-gateway accounts discover {name}` asks for the route."),
            _ => "The application's requests are not taken: compare the access log with the API's documents.".to_owned(),
        }
    }

    pub(super) fn fix_of_no_token(&self) -> String {
        if let Some((_, trouble)) = self.realm_trouble() {
            return fix_of_realm(trouble).to_owned();
        }
        match &self.summary.last_error {
            Some((_, retry_at)) if *retry_at > self.now => {
                format!(
                    "It is tried again by itself, next after {retry_at}. `genapi-gateway check --connect` asks the token endpoint now."
                )
            }
            None if self.store.is_some() => {
                "The gateway goes on by itself as soon as the store takes writes again.".to_owned()
            }
            _ => "It is tried again by itself. `genapi-gateway check --connect` asks the token endpoint now."
                .to_owned(),
        }
    }

    pub(super) fn call_findings(&self, is_trouble: bool) -> Vec<Finding> {
        let (signals, now) = (&self.view.signals, self.now);
        let mut findings = Vec::new();
        if let Some(streak) = self.summary.streak.as_ref().filter(|streak| self.is_over(streak)) {
            let calls = match streak.count {
                1 => "A call failed at".to_owned(),
                many => format!("{many} calls failed in a row until"),
            };
            findings.push(finding(
                "note",
                format!("{calls} {}; since then the platform has answered again.", streak.last),
                "",
            ));
        }
        match signals.last_call_at {
            None => findings.push(finding(
                "note",
                "No call has come in for this account since the gateway started.".into(),
                "If the application should be calling: is its base URL the gateway's, with /accounts/… in it?",
            )),
            Some(at) if now.since(at) > QUIET => findings.push(finding(
                "note",
                format!("The account has gone quiet: its last call was at {at}."),
                "Does the application still run, and does it still point here?",
            )),
            Some(_) => {}
        }
        if let (Some(code), Some(at)) = (&signals.last_refusal, signals.last_refusal_at)
            && !self.is_said(code)
        {
            let later = signals.last_success_at.is_some_and(|success| success > at);
            let level = if is_trouble && !later { "trouble" } else { "note" };
            findings.push(finding(
                level,
                format!("The gateway refused a call with {code} at {at}."),
                "docs/refusals.md lists every code.",
            ));
        }
        if signals.last_list_links == Some(0) {
            findings.push(finding(
                "note",
                "The last order list was empty, which looks like success.".into(),
                "Compare with what the practice or lab sees in MyiTero.",
            ));
        }
        findings
    }

    pub(super) fn download_finding(&self) -> Option<Finding> {
        let signals = &self.view.signals;
        let at = signals.unfinished_download_at?;
        let later = signals.last_success_at.is_some_and(|success| success > at);
        Some(finding(
            if later { "note" } else { "trouble" },
            format!("A download ended before its last byte at {at}."),
            "A lab's order may have left its list all the same: fetch it again by its RX id.",
        ))
    }
}
