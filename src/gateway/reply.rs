//! The caller's answer, from the platform's: links and addresses become ours, the rest passes as it came.

use std::rc::Rc;

use http::Response;

use crate::http1::{Name, Reason, ResponseHead};

use super::access_log::Line;
use super::account::Accounts;
use super::body::{BodyError, LiveBody, ReplyBody};
use super::carry::{Call, Carried};
use super::links::{ADDRESS_FIELDS, Finder, Places};
use super::pool::Dial;
use super::refusal::Refusal;
use super::rewrite::{self, Plan, Rewritten};
use super::{Gateway, Reply, headers, pages};

impl<A: Accounts, D: Dial> Gateway<A, D> {
    pub(super) async fn reply(
        &self,
        call: &Call<'_, A>,
        carried: Carried<D::Stream>,
        line: &mut Line,
    ) -> Result<Reply<D>, Refusal> {
        let Carried { response, access } = carried;
        let mut head = response.head;
        headers::inbound(&mut head.fields, &line.request_id);
        if call.head.fields.has(Name::Origin) {
            pages::forget_the_platforms(&mut head.fields);
        }
        let places = || Places::new(&call.rules.url, A::name(&call.account), access.route(), call.realm);
        if head.fields.has_any(ADDRESS_FIELDS) {
            places().rewrite_addresses(&mut head.fields);
        }
        let body = if call.row.links {
            let finder = self.finder(access.route().path());
            Box::pin(self.with_our_links(call, &mut head, response.body, finder, places, line)).await?
        } else {
            ReplyBody::live(response.body)
        };
        // What version the platform speaks is its own affair; the server answers the caller in the caller's.
        let ResponseHead { status, reason, fields, .. } = head;
        let mut response = Response::new(body.with_fields(fields));
        *response.status_mut() = status;
        if !reason.is_empty() && status.canonical_reason().map(str::as_bytes) != Some(&reason) {
            response.extensions_mut().insert(Reason(reason));
        }
        Ok(response)
    }

    async fn with_our_links(
        &self,
        call: &Call<'_, A>,
        head: &mut ResponseHead,
        body: LiveBody<D::Stream>,
        finder: Option<Rc<Finder>>,
        places: impl FnOnce() -> Places,
        line: &mut Line,
    ) -> Result<ReplyBody<D::Stream>, Refusal> {
        let gzip = match rewrite::plan(&call.head.method, head.status, &head.fields) {
            Plan::Rewrite { gzip } => gzip,
            Plan::Pass => return Ok(ReplyBody::live(body)),
            Plan::PassUnread(why) => {
                line.unread = Some(why);
                return Ok(ReplyBody::live(body));
            }
            Plan::HeadOnly => {
                rewrite::forget_old_form(&mut head.fields, None);
                return Ok(ReplyBody::live(body));
            }
        };
        let Some(finder) = finder else { return Ok(ReplyBody::live(body)) };
        let Rewritten { body, length, links, untouched } =
            rewrite::rewrite(body, gzip, finder, places).await.map_err(broken)?;
        line.note_links(links);
        // What came with its length and has nothing changed is described as it came. A part of it could be
        // one with links by then.
        if !untouched || !head.fields.has(Name::ContentLength) || head.fields.has(Name::AcceptRanges) {
            rewrite::forget_old_form(&mut head.fields, length);
        }
        Ok(body)
    }
}

/// Nothing has been sent to the caller yet, so it can be told plainly.
fn broken(error: BodyError) -> Refusal {
    match error {
        BodyError::BrokenOff => Refusal::PlatformMisbehaved("its answer broke off"),
        BodyError::Damaged => Refusal::PlatformMisbehaved("its compressed answer is damaged"),
        BodyError::Stalled => Refusal::PlatformTimeout,
    }
}
