//! Keeps load away from real patients' offices: a target counts as a
//! sandbox only where its responses say so themselves.
//!
//! One harmless read per target and account (a sample of many) goes ahead of everything else. During the run
//! every response is looked at again, since accounts of one gateway may live on different platforms: the
//! first that comes from elsewhere ends the run.

use std::rc::Rc;

use url::Url;

use super::connection::{KeepAliveConnection, SharedReadBuffer};
use super::request_mix::RequestMix;
use super::response::ReceivedResponse;
use super::target::ResolvedTarget;
use super::{LoadError, LoadPlan, RequestSpec};

/// It changes nothing and needs no id (the vendor's API table).
const HARMLESS: &str = "/practice-configuration";
/// How many accounts are asked ahead of a run.
const SAMPLE: usize = 256;

/// Asks before anything is sent.
pub async fn probe(plan: &LoadPlan, url: &Url, target: &ResolvedTarget) -> Result<(), LoadError> {
    let unreachable = |why: String| LoadError::Unreachable { target: url.clone(), why };
    let accounts: Rc<[String]> = plan.accounts.as_slice().into();
    let harmless = RequestSpec {
        headers: plan.mix.first().map(|call| call.headers.clone()).unwrap_or_default(),
        ..RequestSpec::get(HARMLESS)
    };
    let probing = LoadPlan { mix: vec![harmless], ..plan.clone() };
    let request_mixes = match plan.keys.as_slice() {
        [] => vec![RequestMix::new(&probing, target, None, accounts)?],
        keys => {
            let request_mixes =
                keys.iter().map(|key| RequestMix::new(&probing, target, Some(key), accounts.clone()));
            request_mixes.collect::<Result<_, _>>()?
        }
    };
    let read_buffer = SharedReadBuffer::new();
    let mut request = Vec::new();
    let mut connection = KeepAliveConnection::open(target).await.map_err(unreachable)?;
    for number in 0..plan.accounts.len().clamp(request_mixes.len(), SAMPLE.max(request_mixes.len())) {
        request_mixes[number % request_mixes.len()].next_request(number as u64, &mut request);
        if !connection.usable {
            connection = KeepAliveConnection::open(target).await.map_err(unreachable)?;
        }
        let exchange = connection.exchange(&request, false, &read_buffer, |_| {});
        let response = tokio::time::timeout(plan.timeout, exchange)
            .await
            .map_err(|_| unreachable("it does not answer in time".into()))?
            .map_err(|broken| unreachable(broken.why))?;
        if let Some(code) = response.refusal {
            return Err(LoadError::Refused { target: url.clone(), status: response.status, code });
        }
        require_sandbox(url, &response)?;
    }
    Ok(())
}

/// A refusal is the gateway's own: the platform was not asked.
pub fn require_sandbox(url: &Url, response: &ReceivedResponse) -> Result<(), LoadError> {
    if response.from_sandbox || response.refusal.is_some() {
        Ok(())
    } else {
        Err(LoadError::NotASandbox { target: url.clone(), status: response.status })
    }
}
