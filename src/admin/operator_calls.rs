//! `accounts call`: the way from the admin listener to the request path, which runs on another thread.

use tokio::sync::{mpsc, oneshot};

use crate::model::account::AccountName;

use super::view::{CallRequest, CallResponse};

/// More operators at once wait for their turn.
const WAITING: usize = 16;

/// One call that an operator wants to be made as an account.
pub struct OperatorCall {
    pub account: AccountName,
    pub call: CallRequest,
    /// The error is a sentence for people.
    pub respond: oneshot::Sender<Result<CallResponse, String>>,
}

/// Hands calls over to the thread that makes them.
#[derive(Clone)]
pub struct OperatorCalls(mpsc::Sender<OperatorCall>);

impl OperatorCalls {
    pub fn channel() -> (Self, mpsc::Receiver<OperatorCall>) {
        let (calls, received) = mpsc::channel(WAITING);
        (Self(calls), received)
    }

    /// Has one call made through the whole request path, and reports on it.
    pub async fn call(&self, account: AccountName, call: CallRequest) -> Result<CallResponse, String> {
        let stopping = || "the gateway is stopping".to_owned();
        let (respond, responded) = oneshot::channel();
        self.0.send(OperatorCall { account, call, respond }).await.map_err(|_| stopping())?;
        responded.await.map_err(|_| stopping())?
    }
}
