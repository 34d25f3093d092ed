//! One listener's side of the sandbox: takes a call, notes it, lets a fault meet it or answers it.
//! Every call comes through here, so nothing can be answered that is not in the record.

use std::collections::HashMap;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use arc_swap::ArcSwap;
use tokio::io::{AsyncRead, AsyncWrite};

use super::deliver::{Delivered, deliver};
use super::endpoint::{Endpoint, Located, locate};
use super::faults::{Fault, Script, Scripts};
use super::habits::{Flip, Habits};
use super::http::{NoRequest, Wire};
use super::options::Identity;
use super::orders::Order;
use super::place::{Place, Platform, Region, V1_PATH};
use super::record::{Arrival, End, Ledger};
use super::reply::Reply;
use super::request::{Framing, Request};
use super::world::{Kind, World};
use super::{Handle, api, control, junk, login, oauth, storage};
use crate::clock::{Clock, Timestamp};

/// What all listeners share.
pub struct Shared {
    pub clock: Clock,
    pub habits: ArcSwap<Habits>,
    pub world: Mutex<World>,
    pub scripts: Scripts,
    pub ledger: Ledger,
    pub addresses: HashMap<Place, SocketAddr>,
    pub tls: bool,
    pub host_names: bool,
    /// False when bound wider than loopback: it can then be called by names that it never heard of.
    pub knows_its_names: bool,
    pub storage_key: aws_lc_rs::hmac::Key,
    /// What it shows when it answers over TLS.
    pub identity: Option<Identity>,
}

impl Shared {
    pub fn world(&self) -> MutexGuard<'_, World> {
        self.world.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// `host:port` as answers print it.
    pub fn authority(&self, place: Place) -> String {
        let Some(address) = self.addresses.get(&place) else { return String::new() };
        match self.host_names && place != Place::Control {
            true => format!("{}:{}", place.host_name(), address.port()),
            false => address.to_string(),
        }
    }

    pub fn origin(&self, place: Place) -> String {
        let scheme = if self.tls && place != Place::Control { "https" } else { "http" };
        format!("{scheme}://{}", self.authority(place))
    }

    pub fn login_page(&self, platform: Platform) -> String {
        format!("{}/login", self.origin(Place::Identity(platform)))
    }
}

pub struct Site {
    pub place: Place,
    pub shared: Arc<Shared>,
}

/// A located call.
pub struct Found {
    pub endpoint: Endpoint,
    pub prefix: String,
    pub segments: Vec<String>,
}

impl Found {
    pub fn is_v2(&self) -> bool {
        self.prefix != V1_PATH
    }
}

impl Site {
    pub fn now(&self) -> Timestamp {
        self.shared.clock.now()
    }

    pub fn clock(&self) -> &Clock {
        &self.shared.clock
    }

    pub fn habits(&self) -> Arc<Habits> {
        self.shared.habits.load_full()
    }

    /// Serves one connection to its end.
    pub async fn converse<S: AsyncRead + AsyncWrite + Unpin>(&self, stream: S, connection: u64) {
        let mut wire = Wire::new(stream);
        loop {
            match self.one_call(&mut wire, connection).await {
                Ok(true) => {}
                Ok(false) => return wire.close().await,
                Err(NoRequest::Gone) => return,
                Err(NoRequest::Refused(status, why)) => {
                    self.shared.ledger.refuse(self.place, why);
                    let text = Reply::error(status, why).open_head(self.now());
                    let _ = wire.write(&text).await;
                    let _ = wire.write(b"Content-Length: 0\r\nConnection: close\r\n\r\n").await;
                    return wire.close().await;
                }
            }
        }
    }

    /// False: the connection is done with.
    async fn one_call<S: AsyncRead + AsyncWrite + Unpin>(
        &self,
        wire: &mut Wire<S>,
        connection: u64,
    ) -> Result<bool, NoRequest> {
        let (mut request, framing) = wire.read_request().await?;
        if !matches!(framing, Framing::None)
            && let Some(status) = self.early_status(&request)
        {
            request.keep_alive = false;
            let mut entry = self.note(&request, self.endpoint_of(&request), connection);
            entry.responding(status);
            let reply = Reply::error(status, "ordered by the sandbox's script");
            entry.end = deliver(wire, self, &request, reply, None).await.end;
            return Ok(false);
        }
        wire.read_body(&mut request, framing).await?;
        Ok(self.serve(wire, request, connection).await)
    }

    fn early_status(&self, request: &Request) -> Option<u16> {
        let (account, _) = self.whose(request, None);
        let script = self.shared.scripts.take(self.endpoint_of(request)?, self.place, account, true)?;
        match script.fault {
            Fault::AnswersBeforeBody(status) => Some(status),
            _ => None,
        }
    }

    fn endpoint_of(&self, request: &Request) -> Option<Endpoint> {
        match self.locate(request) {
            Located::At { endpoint, .. } => Some(endpoint),
            _ => None,
        }
    }

    fn locate(&self, request: &Request) -> Located {
        let path = &self.shared.habits.load().path;
        locate(self.place, request.method(), request.path(), &request.body, path)
    }

    /// False: the connection is done with.
    async fn serve<S: AsyncRead + AsyncWrite + Unpin>(
        &self,
        wire: &mut Wire<S>,
        request: Request,
        connection: u64,
    ) -> bool {
        if self.place == Place::Control {
            let reply = control::response(&Handle { shared: self.shared.clone() }, &request);
            return deliver(wire, self, &request, reply, None).await.keep;
        }
        let located = self.locate(&request);
        let endpoint = match &located {
            Located::At { endpoint, .. } => Some(*endpoint),
            _ => None,
        };
        let mut entry = self.note(&request, endpoint, connection);
        let script = endpoint.and_then(|row| self.shared.scripts.take(row, self.place, entry.account, false));
        let delivered = match script {
            Some(script) => self.misbehave(wire, &request, located, script, &mut entry).await,
            None => {
                let reply = self.response(&request, located);
                entry.responding(reply.status);
                deliver(wire, self, &request, reply, None).await
            }
        };
        entry.status = delivered.status;
        entry.end = delivered.end;
        delivered.keep
    }

    async fn misbehave<S: AsyncRead + AsyncWrite + Unpin>(
        &self,
        wire: &mut Wire<S>,
        request: &Request,
        located: Located,
        script: Script,
        entry: &mut Entry<'_>,
    ) -> Delivered {
        let fault = script.fault;
        let mut located = Some(located);
        let mut response = || located.take().map(|located| self.response(request, located));
        let carried_out = script.carried_out || matches!(fault, Fault::LostTokenResponse);
        let early = if carried_out { response() } else { None };
        let there = match &fault {
            Fault::DelayedThenNormal(pause) => wire.hold(self.clock().sleep(*pause)).await,
            Fault::HeldBy(gate) => wire.hold(gate.pass()).await,
            _ => true,
        };
        if !there {
            return Delivered { status: None, end: End::HungUp, keep: false };
        }
        let (reply, on_the_wire) = match replacement(&fault) {
            Some(reply) => (Some(reply), None),
            None if matches!(fault, Fault::OddTokenResponse(_)) => (early.or_else(response), None),
            None if is_silent(&fault) => (Some(early.unwrap_or(Reply::empty(200))), Some(&fault)),
            None if is_late(&fault) => (early.or_else(response), None),
            None => (early.or_else(response), Some(&fault)),
        };
        let mut reply = reply.unwrap_or_else(|| Reply::error(500, "no answer"));
        if let Fault::OddTokenResponse(odd) = &fault {
            reply = odd.applied_to(reply);
        }
        if !is_silent(&fault) {
            entry.responding(reply.status);
        }
        deliver(wire, self, request, reply, on_the_wire).await
    }

    /// The right answer, with all its effects.
    fn response(&self, request: &Request, located: Located) -> Reply {
        let found = match located {
            Located::At { endpoint, prefix, segments } => Found { endpoint, prefix, segments },
            Located::WrongMethod(allowed) => {
                return Reply::error(405, "method not allowed").with("Allow", allowed.join(", "));
            }
            Located::Nowhere => return Reply::error(404, "no such resource"),
        };
        if !self.host_fits(request) {
            return Reply::error(421, "the Host field names another place");
        }
        match found.endpoint {
            Endpoint::Authorize => login::authorize(self, request),
            Endpoint::LoginPage => login::page(self, request),
            Endpoint::Exchange | Endpoint::Refresh => oauth::token(self, request),
            Endpoint::Revoke => oauth::revoke(self, request),
            Endpoint::Storage => storage::response(self, request),
            _ => api::response(self, request, &found),
        }
    }

    /// A proxy that passes on the Host it was called by would reach the wrong site in the real world.
    fn host_fits(&self, request: &Request) -> bool {
        let Some(address) = self.shared.addresses.get(&self.place) else { return false };
        let Some((host, port)) = request.header("host").and_then(|host| host.rsplit_once(':')) else {
            return false;
        };
        let bare = host.trim_start_matches('[').trim_end_matches(']');
        let by_name =
            host == self.place.host_name() || host == "localhost" || bare == address.ip().to_string();
        port == address.port().to_string() && (by_name || !self.shared.knows_its_names)
    }

    /// The region that this place answers for, where it answers for one.
    pub fn region(&self) -> Option<Region> {
        match self.place {
            Place::Region(region) => Some(region),
            _ => None,
        }
    }

    /// Told when a download's first and last byte go out.
    pub fn download_went_on(&self, order_id: u64, reached: Flip) {
        if self.habits().lab_list_flips_on != reached {
            return;
        }
        let Some(order) = Order::by_order_id(order_id) else { return };
        if let Some(practice) = self.shared.world().accounts.get_mut(&order.account)
            && practice.account.kind == Kind::Lab
        {
            practice.downloaded.insert(order_id);
        }
    }

    fn note(&self, request: &Request, endpoint: Option<Endpoint>, connection: u64) -> Entry<'_> {
        let (account, bearer) = self.whose(request, endpoint);
        let arrival =
            Arrival { at: self.now(), place: self.place, connection, endpoint, request, account, bearer };
        let number = self.shared.ledger.arrived(&arrival);
        let refreshing = account.filter(|_| endpoint == Some(Endpoint::Refresh));
        Entry { ledger: &self.shared.ledger, number, account, refreshing, status: None, end: End::HungUp }
    }

    /// The account that a call is about, by its tokens, and its bearer's serial number.
    fn whose(&self, request: &Request, endpoint: Option<Endpoint>) -> (Option<u64>, Option<u64>) {
        let world = self.shared.world();
        if endpoint == Some(Endpoint::Refresh) {
            let token = request.form_value("refresh_token");
            return (token.and_then(|token| world.vault.owner_of(&token)), None);
        }
        match request.bearer().and_then(|text| world.vault.known(text)) {
            Some(access) => (access.grant.holder.account(), Some(access.serial)),
            None => (None, None),
        }
    }
}

/// A call that is going on. However its task ends, the record is told.
struct Entry<'a> {
    ledger: &'a Ledger,
    number: u64,
    account: Option<u64>,
    /// The account whose refresh this is, as long as it is going on.
    refreshing: Option<u64>,
    status: Option<u16>,
    end: End,
}

impl Entry<'_> {
    /// Told before the answer is written: whoever has it may look here, or refresh again, at once.
    fn responding(&mut self, status: u16) {
        self.status = Some(status);
        self.ledger.responding(self.number, self.refreshing.take(), status);
    }
}

impl Drop for Entry<'_> {
    fn drop(&mut self) {
        self.ledger.ended(self.number, self.refreshing, self.status, self.end);
    }
}

/// Answers that a fault puts in place of the right one; the call is not carried out for them.
fn replacement(fault: &Fault) -> Option<Reply> {
    let reply = match fault {
        Fault::Status(status) | Fault::AnswersBeforeBody(status) => {
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
        Fault::Answers { status, body } => Reply::json_text(*status, body.clone()),
        Fault::Discovers { domain, path } => Reply::json(200, &api::discovery_json(domain, path)),
        Fault::Redirects { status, location } => Reply::redirect(*status, location.clone()),
        Fault::JunkToken(junk) => junk::response(junk),
        Fault::Speaks(speaker) => speaker.reply(),
        _ => return None,
    };
    Some(reply)
}

/// Nothing of an answer is seen, so the call is carried out only where the script says so.
fn is_silent(fault: &Fault) -> bool {
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
fn is_late(fault: &Fault) -> bool {
    matches!(fault, Fault::DelayedThenNormal(_) | Fault::HeldBy(_))
}
