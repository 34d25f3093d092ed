//! One listener's side of the sandbox: reads a call, records it, and answers it or lets a fault meet it.
//! Every call comes through here, so nothing can be answered that is not in the record.

use tokio::io::{AsyncRead, AsyncWrite};

use super::context::VirtualHost;
use super::deliver::{Delivered, deliver};
use super::endpoint::{Endpoint, Located, locate};
use super::faults::{Fault, FaultRule};
use super::host_role::HostRole;
use super::peer_stream::PeerStream;
use super::record::{Arrival, CallEnd, CallRecorder};
use super::reply::Reply;
use super::request::{ReadRequestError, RequestFraming, SandboxRequest};
use super::{Handle, api, control, fault_replies, login, oauth, storage};

impl VirtualHost {
    /// Serves one connection to its end.
    pub async fn serve_connection<S: AsyncRead + AsyncWrite + Unpin>(&self, stream: S, connection: u64) {
        let mut peer = PeerStream::new(stream);
        loop {
            match self.serve_call(&mut peer, connection).await {
                Ok(true) => {}
                Ok(false) => return peer.close().await,
                Err(ReadRequestError::Closed) => return,
                Err(ReadRequestError::Refused(status, why)) => {
                    self.context.recorder.refuse(self.role, why);
                    let text = Reply::error(status, why).open_head(self.now());
                    let _ = peer.write(&text).await;
                    let _ = peer.write(b"Content-Length: 0\r\nConnection: close\r\n\r\n").await;
                    return peer.close().await;
                }
            }
        }
    }

    /// False: the connection is done with.
    async fn serve_call<S: AsyncRead + AsyncWrite + Unpin>(
        &self,
        peer: &mut PeerStream<S>,
        connection: u64,
    ) -> Result<bool, ReadRequestError> {
        let (mut request, framing) = peer.read_request().await?;
        if !matches!(framing, RequestFraming::None)
            && let Some(status) = self.early_status(&request)
        {
            request.keep_alive = false;
            let mut entry = self.record_arrival(&request, self.endpoint_of(&request), connection);
            entry.responding(status);
            let reply = Reply::error(status, "ordered by the sandbox's script");
            entry.end = deliver(peer, self, &request, reply, None).await.end;
            return Ok(false);
        }
        peer.read_body(&mut request, framing).await?;
        Ok(self.serve(peer, request, connection).await)
    }

    fn early_status(&self, request: &SandboxRequest) -> Option<u16> {
        let (account, _) = self.token_owner(request, None);
        let rule = self.context.fault_rules.take(self.endpoint_of(request)?, self.role, account, true)?;
        match rule.fault {
            Fault::RespondsBeforeBody(status) => Some(status),
            _ => None,
        }
    }

    fn endpoint_of(&self, request: &SandboxRequest) -> Option<Endpoint> {
        match self.locate(request) {
            Located::At(call) => Some(call.endpoint),
            _ => None,
        }
    }

    fn locate(&self, request: &SandboxRequest) -> Located {
        let behavior = self.context.behavior.load();
        let paths: Vec<&str> = behavior.v3_path.iter().chain([&behavior.path]).map(String::as_str).collect();
        locate(self.role, request.method(), request.path(), &request.body, &paths)
    }

    /// False: the connection is done with.
    async fn serve<S: AsyncRead + AsyncWrite + Unpin>(
        &self,
        peer: &mut PeerStream<S>,
        request: SandboxRequest,
        connection: u64,
    ) -> bool {
        if self.role == HostRole::Control {
            let reply = control::response(&Handle { context: self.context.clone() }, &request);
            return deliver(peer, self, &request, reply, None).await.keep;
        }
        let located = self.locate(&request);
        let endpoint = match &located {
            Located::At(call) => Some(call.endpoint),
            _ => None,
        };
        let mut entry = self.record_arrival(&request, endpoint, connection);
        let rule =
            endpoint.and_then(|row| self.context.fault_rules.take(row, self.role, entry.account, false));
        let delivered = match rule {
            Some(rule) => self.inject_fault(peer, &request, located, rule, &mut entry).await,
            None => {
                let reply = self.response(&request, located);
                entry.responding(reply.status);
                deliver(peer, self, &request, reply, None).await
            }
        };
        entry.status = delivered.status;
        entry.end = delivered.end;
        delivered.keep
    }

    async fn inject_fault<S: AsyncRead + AsyncWrite + Unpin>(
        &self,
        peer: &mut PeerStream<S>,
        request: &SandboxRequest,
        located: Located,
        rule: FaultRule,
        entry: &mut CallGuard<'_>,
    ) -> Delivered {
        let fault = rule.fault;
        let mut located = Some(located);
        let mut response = || located.take().map(|located| self.response(request, located));
        let carried_out = rule.carried_out || matches!(fault, Fault::LostTokenResponse);
        let early = if carried_out { response() } else { None };
        let there = match &fault {
            Fault::DelayedThenNormal(pause) => peer.wait_while_connected(self.clock().sleep(*pause)).await,
            Fault::HeldBy(gate) => peer.wait_while_connected(gate.pass()).await,
            _ => true,
        };
        if !there {
            return Delivered { status: None, end: CallEnd::PeerClosed, keep: false };
        }
        let (reply, on_the_wire) = match fault_replies::replacement(&fault) {
            Some(reply) => (Some(reply), None),
            None if matches!(fault, Fault::OddTokenResponse(_)) => (early.or_else(response), None),
            None if fault_replies::is_silent(&fault) => {
                (Some(early.unwrap_or(Reply::empty(200))), Some(&fault))
            }
            None if fault_replies::is_late(&fault) => (early.or_else(response), None),
            None => (early.or_else(response), Some(&fault)),
        };
        let mut reply = reply.unwrap_or_else(|| Reply::error(500, "no answer"));
        if let Fault::OddTokenResponse(quirks) = &fault {
            reply = quirks.applied_to(reply);
        }
        if !fault_replies::is_silent(&fault) {
            entry.responding(reply.status);
        }
        deliver(peer, self, request, reply, on_the_wire).await
    }

    /// The right response, with all its effects.
    fn response(&self, request: &SandboxRequest, located: Located) -> Reply {
        let call = match located {
            Located::At(call) => call,
            Located::WrongMethod(allowed) => {
                return Reply::error(405, "method not allowed").with("Allow", allowed.join(", "));
            }
            Located::Nowhere => return Reply::error(404, "no such resource"),
        };
        if !self.host_matches(request) {
            return Reply::error(421, "the Host field names another place");
        }
        match call.endpoint {
            Endpoint::Authorize => login::authorize(self, request),
            Endpoint::LoginPage => login::page(self, request),
            Endpoint::Exchange | Endpoint::Refresh => oauth::token(self, request),
            Endpoint::Revoke => oauth::revoke(self, request),
            Endpoint::Storage => storage::response(self, request),
            _ => api::response(self, request, &call),
        }
    }

    /// A proxy that passes on the Host it was called by would reach the wrong site in the real world.
    fn host_matches(&self, request: &SandboxRequest) -> bool {
        let Some(address) = self.context.addresses.get(&self.role) else { return false };
        let Some((host, port)) = request.header("host").and_then(|host| host.rsplit_once(':')) else {
            return false;
        };
        let bare = host.trim_start_matches('[').trim_end_matches(']');
        let by_name =
            host == self.role.host_name() || host == "localhost" || bare == address.ip().to_string();
        port == address.port().to_string() && (by_name || !self.context.strict_host_names)
    }

    fn record_arrival(
        &self,
        request: &SandboxRequest,
        endpoint: Option<Endpoint>,
        connection: u64,
    ) -> CallGuard<'_> {
        let (account, bearer) = self.token_owner(request, endpoint);
        let arrival =
            Arrival { at: self.now(), role: self.role, connection, endpoint, request, account, bearer };
        let number = self.context.recorder.arrived(&arrival);
        let refreshing = account.filter(|_| endpoint == Some(Endpoint::Refresh));
        CallGuard {
            recorder: &self.context.recorder,
            number,
            account,
            refreshing,
            status: None,
            end: CallEnd::PeerClosed,
        }
    }

    /// The account that a call is about, by its tokens, and its bearer's serial number.
    fn token_owner(
        &self,
        request: &SandboxRequest,
        endpoint: Option<Endpoint>,
    ) -> (Option<u64>, Option<u64>) {
        let state = self.context.state();
        if endpoint == Some(Endpoint::Refresh) {
            let token = request.form_value("refresh_token");
            return (token.and_then(|token| state.tokens.owner_of(&token)), None);
        }
        match request.bearer().and_then(|text| state.tokens.known(text)) {
            Some(access) => (access.grant.holder.account(), Some(access.serial)),
            None => (None, None),
        }
    }
}

/// A call that is going on. However its task ends, the record is completed.
struct CallGuard<'a> {
    recorder: &'a CallRecorder,
    number: u64,
    account: Option<u64>,
    /// The account whose refresh this is, as long as it is going on.
    refreshing: Option<u64>,
    status: Option<u16>,
    end: CallEnd,
}

impl CallGuard<'_> {
    /// Recorded before the response is written: whoever has it may look here, or refresh again, at once.
    fn responding(&mut self, status: u16) {
        self.status = Some(status);
        self.recorder.responding(self.number, self.refreshing.take(), status);
    }
}

impl Drop for CallGuard<'_> {
    fn drop(&mut self) {
        self.recorder.ended(self.number, self.refreshing, self.status, self.end);
    }
}
