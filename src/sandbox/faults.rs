//! Trouble to order, named after its behaviour, and the scripts that say whom it meets and how often.
//! `inject_fault` carries it out on the wire.

use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use serde::{Deserialize, Serialize};
use tokio::sync::watch;

use super::endpoint::Endpoint;
use super::host_role::{HostRole, Platform};
use super::quirks::{CustomResponse, ResponseQuirks};

/// One way for a call to go wrong.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Fault {
    /// An error response in the vendor's manner.
    Status(u16),
    /// 200 whose body says `Failure`, as gen-api section 4 warns.
    FailsInside200(String),
    /// Nothing for that long, then the connection drops.
    Stalls(#[serde(with = "super::duration_text")] Duration),
    StallsForever,
    /// The right response, late.
    DelayedThenNormal(#[serde(with = "super::duration_text")] Duration),
    /// The right response, as soon as a test opens the gate.
    #[serde(skip)]
    HeldBy(Gate),
    /// Head and half of the body, then nothing.
    StallsAfterHead,
    DropsBeforeHead,
    /// An error response while the caller still sends its body, which
    /// is not read; then the connection closes.
    #[serde(rename = "answers_before_body")]
    RespondsBeforeBody(u16),
    /// Half of the promised body, then the end of the connection.
    DropsMidBody,
    /// A right response on a connection that is then closed without a word.
    #[serde(alias = "closes_after_answer")]
    ClosesAfterResponse,
    Slow {
        bytes_per_sec: u32,
    },
    /// Something that looks like another response behind the right one.
    BytesAfterBody,
    /// Two Content-Length fields that differ.
    TwoLengths,
    LengthAndChunked,
    /// 204 with a body all the same.
    BodyAfter204,
    /// 304 with a body all the same.
    BodyAfter304,
    /// A response to HEAD with the body of the GET.
    BodyAfterHead,
    Unsolicited101,
    EndlessHead,
    Garbage,
    /// A web page with status 200 where JSON belongs.
    HtmlInstead,
    /// Discovery: 200 and no entry.
    EmptyArray,
    /// Discovery: any Domain and Path at all.
    Discovers {
        domain: String,
        path: String,
    },
    /// Any body at all, called JSON.
    #[serde(rename = "answers")]
    Responds {
        status: u16,
        body: String,
    },
    Redirects {
        status: u16,
        location: String,
    },
    /// A refresh is carried out, rotation included, and the response never arrives.
    #[serde(alias = "lost_token_answer")]
    LostTokenResponse,
    JunkToken(InvalidTokens),
    /// A token call is carried out, and its response is written oddly.
    #[serde(alias = "odd_token_answer")]
    OddTokenResponse(ResponseQuirks),
    /// Any response at all, with the fields that tell who speaks.
    Speaks(CustomResponse),
}

/// Token responses with status 200 that must not be believed.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum InvalidTokens {
    NoAccessToken,
    AccessTokenIsNull,
    AccessTokenIsNumber,
    EmptyAccessToken,
    LineBreakInAccessToken,
    LineBreakInRefreshToken,
    AccessTokenOfLength(usize),
    /// Any JSON in place of the seconds.
    ExpiresIn(serde_json::Value),
    /// The JSON stops in the middle, with a Content-Length that fits.
    HalfOfTheJson,
    /// Valid JSON of this many bytes.
    Huge(u64),
    /// A compressed response that unpacks to this many bytes.
    GzipBomb(u64),
}

/// A door that a test opens. Calls wait before it, and the test can wait for them to come.
#[derive(Clone, Debug)]
pub struct Gate {
    open: watch::Sender<bool>,
    waiting: watch::Sender<usize>,
}

impl Default for Gate {
    fn default() -> Self {
        Self { open: watch::Sender::new(false), waiting: watch::Sender::new(0) }
    }
}

impl Gate {
    pub fn new() -> Self {
        Self::default()
    }

    pub fn open(&self) {
        self.open.send_replace(true);
    }

    /// Returns once `count` calls have come to the gate.
    pub async fn until_waiting(&self, count: usize) {
        let _ = self.waiting.subscribe().wait_for(|waiting| *waiting >= count).await;
    }

    pub(super) async fn pass(&self) {
        self.waiting.send_modify(|waiting| *waiting += 1);
        let _ = self.open.subscribe().wait_for(|open| *open).await;
    }
}

/// Whom a fault meets, and how often.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct FaultRule {
    pub fault: Fault,
    /// None: every endpoint.
    #[serde(default)]
    pub endpoint: Option<Endpoint>,
    #[serde(default)]
    pub platform: Option<Platform>,
    #[serde(default, rename = "place")]
    pub role: Option<HostRole>,
    #[serde(default)]
    pub account: Option<u64>,
    /// How many more calls; None until it is cleared.
    #[serde(default)]
    pub times: Option<u32>,
    /// The call takes effect all the same: a 504 that created its RX.
    #[serde(default)]
    pub carried_out: bool,
}

impl FaultRule {
    /// Every call of one endpoint, on every platform, until cleared.
    pub fn on(endpoint: Endpoint, fault: Fault) -> Self {
        Self { endpoint: Some(endpoint), ..Self::everywhere(fault) }
    }

    pub fn everywhere(fault: Fault) -> Self {
        Self {
            fault,
            endpoint: None,
            platform: None,
            role: None,
            account: None,
            times: None,
            carried_out: false,
        }
    }

    pub fn times(self, times: u32) -> Self {
        Self { times: Some(times), ..self }
    }

    pub fn once(self) -> Self {
        self.times(1)
    }

    pub fn on_platform(self, platform: Platform) -> Self {
        Self { platform: Some(platform), ..self }
    }

    pub fn on_host(self, role: HostRole) -> Self {
        Self { role: Some(role), ..self }
    }

    pub fn for_account(self, account: u64) -> Self {
        Self { account: Some(account), ..self }
    }

    pub fn carried_out(self) -> Self {
        Self { carried_out: true, ..self }
    }

    fn meets(&self, endpoint: Endpoint, role: HostRole, account: Option<u64>) -> bool {
        self.times != Some(0)
            && self.endpoint.is_none_or(|wanted| wanted == endpoint)
            && self.role.is_none_or(|wanted| wanted == role)
            && (self.platform.is_none() || self.platform == role.platform())
            && (self.account.is_none() || self.account == account)
    }
}

/// The scripts in force, oldest first; the first one that fits is used.
#[derive(Default)]
pub struct FaultRules(Mutex<Vec<FaultRule>>);

impl FaultRules {
    pub fn add(&self, inject: FaultRule) {
        self.list().push(inject);
    }

    pub fn clear(&self) {
        self.list().clear();
    }

    pub fn in_force(&self) -> Vec<FaultRule> {
        self.list().clone()
    }

    /// The fault for a call, which counts against its script. `early`: the call's body has not been read yet.
    pub fn take(
        &self,
        endpoint: Endpoint,
        role: HostRole,
        account: Option<u64>,
        early: bool,
    ) -> Option<FaultRule> {
        let mut list = self.list();
        let is_early = |inject: &FaultRule| matches!(inject.fault, Fault::RespondsBeforeBody(_));
        let index = list
            .iter()
            .position(|inject| is_early(inject) == early && inject.meets(endpoint, role, account))?;
        let inject = list[index].clone();
        if let Some(times) = &mut list[index].times {
            *times -= 1;
            if *times == 0 {
                list.remove(index);
            }
        }
        Some(inject)
    }

    fn list(&self) -> MutexGuard<'_, Vec<FaultRule>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn faults_keep_the_words_under_which_scripts_know_them() {
        for word in
            ["closes_after_answer", "closes_after_response", "lost_token_answer", "lost_token_response"]
        {
            assert!(serde_json::from_value::<Fault>(word.into()).is_ok(), "{word}");
        }
        for word in ["odd_token_answer", "odd_token_response"] {
            assert!(serde_json::from_value::<Fault>(serde_json::json!({ word: {} })).is_ok(), "{word}");
        }
    }

    #[test]
    fn a_script_is_used_up_and_the_next_one_takes_over() {
        let fault_rules = FaultRules::default();
        fault_rules.add(FaultRule::on(Endpoint::OrdersLab, Fault::Status(500)).once());
        fault_rules.add(FaultRule::on(Endpoint::OrdersLab, Fault::Status(504)).once());
        let mut taken = Vec::new();
        while let Some(inject) = fault_rules.take(Endpoint::OrdersLab, HostRole::OldV1, None, false) {
            taken.push(inject.fault);
        }
        assert!(matches!(taken[..], [Fault::Status(500), Fault::Status(504)]));
    }

    #[test]
    fn a_script_for_one_account_or_platform_leaves_the_others_alone() {
        let fault_rules = FaultRules::default();
        let inject =
            FaultRule::on(Endpoint::Refresh, Fault::Garbage).for_account(7).on_platform(Platform::Old);
        fault_rules.add(inject);
        assert!(
            fault_rules.take(Endpoint::Refresh, HostRole::Identity(Platform::Old), Some(8), false).is_none()
        );
        assert!(
            fault_rules.take(Endpoint::Refresh, HostRole::Identity(Platform::New), Some(7), false).is_none()
        );
        assert!(
            fault_rules.take(Endpoint::Refresh, HostRole::Identity(Platform::Old), Some(7), false).is_some()
        );
    }

    #[test]
    fn scripts_read_as_people_write_them() {
        let text = r#"{"endpoint":"orders_lab","fault":{"delayed_then_normal":"5s"},"times":2}"#;
        let inject: FaultRule = serde_json::from_str(text).unwrap();
        assert!(matches!(inject.fault, Fault::DelayedThenNormal(pause) if pause == Duration::from_secs(5)));
        assert_eq!(inject.times, Some(2));
        assert!(serde_json::from_str::<FaultRule>(r#"{"fault":"garbage","endpont":"order"}"#).is_err());
    }
}
