//! Keeps load away from real patients' offices: a target counts as a sandbox only where its answers say so themselves.
//!
//! One harmless read per target and account (a sample of many) goes ahead of everything else. During the run every answer is
//! looked at again, since accounts of one gateway may live on different platforms: the first that comes from elsewhere ends the run.

use std::rc::Rc;

use url::Url;

use super::connection::{Connection, Scratch};
use super::deck::Deck;
use super::response::ReceivedResponse;
use super::target::Target;
use super::{Call, LoadError, Plan};

/// It changes nothing and needs no id (the vendor's API table).
const HARMLESS: &str = "/practice-configuration";
/// How many accounts are asked ahead of a run.
const SAMPLE: usize = 256;

/// Asks before anything is sent.
pub async fn probe(plan: &Plan, url: &Url, target: &Target) -> Result<(), LoadError> {
    let unreachable = |why: String| LoadError::Unreachable { target: url.clone(), why };
    let accounts: Rc<[String]> = plan.accounts.as_slice().into();
    let harmless = Call {
        headers: plan.mix.first().map(|call| call.headers.clone()).unwrap_or_default(),
        ..Call::get(HARMLESS)
    };
    let probing = Plan { mix: vec![harmless], ..plan.clone() };
    let decks = match plan.keys.as_slice() {
        [] => vec![Deck::new(&probing, target, None, accounts)?],
        keys => {
            let decks = keys.iter().map(|key| Deck::new(&probing, target, Some(key), accounts.clone()));
            decks.collect::<Result<_, _>>()?
        }
    };
    let scratch = Scratch::new();
    let mut request = Vec::new();
    let mut connection = Connection::open(target).await.map_err(unreachable)?;
    for number in 0..plan.accounts.len().clamp(decks.len(), SAMPLE.max(decks.len())) {
        decks[number % decks.len()].deal(number as u64, &mut request);
        if !connection.usable {
            connection = Connection::open(target).await.map_err(unreachable)?;
        }
        let exchange = connection.exchange(&request, false, &scratch, |_| {});
        let response = tokio::time::timeout(plan.timeout, exchange)
            .await
            .map_err(|_| unreachable("it does not answer in time".into()))?
            .map_err(|broken| unreachable(broken.why))?;
        if let Some(code) = response.refusal {
            return Err(LoadError::Refused { target: url.clone(), status: response.status, code });
        }
        judge(url, &response)?;
    }
    Ok(())
}

/// A refusal is the gateway's own: the platform was not asked.
pub fn judge(url: &Url, response: &ReceivedResponse) -> Result<(), LoadError> {
    match response.from_sandbox || response.refusal.is_some() {
        true => Ok(()),
        false => Err(LoadError::NotASandbox { target: url.clone(), status: response.status }),
    }
}
