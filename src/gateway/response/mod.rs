//! Makes the caller's response of the platform's: links and addresses become ours, the rest passes unchanged.

pub mod body;
pub mod discovery;
pub mod links;
mod rewrite;

use std::rc::Rc;

use http::Response;

use crate::http1::client::{Dial, Io};
use crate::http1::{KnownHeader, ReasonPhrase, ResponseHead};

use super::access_log::RequestLog;
use super::forward::ForwardedResponse;
use super::forward::headers;
use super::forward::resolved_request::ResolvedRequest;
use super::forward::upstream_body::{ResponseBodyError, UpstreamBody};
use super::inbound::cors;
use super::refusal::Refusal;
use super::v1;
use super::worker::{Gateway, GatewayResponse};
use body::ResponseBody;
use links::{ADDRESS_FIELDS, LinkContext, LinkMatcher};
use rewrite::{Decoding, RewritePlan, RewrittenBody, RewrittenResponse};

impl<D: Dial> Gateway<D> {
    pub(super) async fn caller_response(
        &self,
        request: &ResolvedRequest<'_>,
        forwarded: ForwardedResponse<D::Stream>,
        log: &mut RequestLog,
    ) -> Result<GatewayResponse<D>, Refusal> {
        let ForwardedResponse { response, access } = forwarded;
        let mut head = response.head;
        headers::prepare_response(&mut head.headers, &log.request_id);
        if request.head.headers.has(KnownHeader::Origin) {
            cors::drop_platform_headers(&mut head.headers);
        }
        let link_context =
            || LinkContext::new(&request.rules.url, &request.account.name, access.route(), request.realm);
        if head.headers.has_any(ADDRESS_FIELDS) {
            link_context().rewrite_addresses(&mut head.headers);
        }
        let body = if request.endpoint.links {
            let matcher = self.link_matcher(access.route().path());
            let link_context = || {
                link_context().remembering(&self.shared.download_links, &request.account.name, access.realm())
            };
            Box::pin(self.rewrite_links(request, &mut head, response.body, matcher, link_context, log))
                .await?
        } else if request.adds_case_types() {
            Box::pin(add_case_types(request, &mut head, response.body, log)).await?
        } else {
            ResponseBody::live(response.body)
        };
        // What version the platform speaks is its own affair; the server responds in the caller's.
        let ResponseHead { status, reason, headers, .. } = head;
        let mut response = Response::new(body.with_headers(headers));
        *response.status_mut() = status;
        if !reason.is_empty() && status.canonical_reason().map(str::as_bytes) != Some(&reason) {
            response.extensions_mut().insert(ReasonPhrase(reason));
        }
        Ok(response)
    }

    async fn rewrite_links(
        &self,
        request: &ResolvedRequest<'_>,
        head: &mut ResponseHead,
        body: UpstreamBody<D::Stream>,
        matcher: Option<Rc<LinkMatcher>>,
        link_context: impl FnOnce() -> LinkContext,
        log: &mut RequestLog,
    ) -> Result<ResponseBody<D::Stream>, Refusal> {
        let gzip = match rewrite::plan(&request.head.method, head.status, &head.headers) {
            RewritePlan::Rewrite { gzip } => gzip,
            RewritePlan::NoLinks => return Ok(ResponseBody::live(body)),
            RewritePlan::PassThrough(why) => {
                log.unread = Some(why);
                return Ok(ResponseBody::live(body));
            }
            RewritePlan::HeadOnly => {
                rewrite::drop_representation_headers(&mut head.headers, None);
                return Ok(ResponseBody::live(body));
            }
        };
        let Some(matcher) = matcher else { return Ok(ResponseBody::live(body)) };
        let decoding = Decoding { gzip, strips_orders: request.strips_orders() };
        let RewrittenResponse { body, length, links, untouched } =
            rewrite::rewrite(body, decoding, matcher, link_context).await.map_err(body_refusal)?;
        log.set_links(links.changed, links.passed);
        // What came with its length and has nothing changed is described as it came. A part of it could be
        // one with links by then.
        if !untouched
            || !head.headers.has(KnownHeader::ContentLength)
            || head.headers.has(KnownHeader::AcceptRanges)
        {
            rewrite::drop_representation_headers(&mut head.headers, length);
        }
        Ok(match body {
            RewrittenBody::Buffered(bytes) => ResponseBody::full(bytes),
            RewrittenBody::Streaming(body) => ResponseBody::rewriting(body),
        })
    }
}

/// Puts V1's case types into a configuration of V2's. One that cannot be read as a whole passes untouched,
/// and is counted as a link row's is.
async fn add_case_types<S: Io>(
    request: &ResolvedRequest<'_>,
    head: &mut ResponseHead,
    mut body: UpstreamBody<S>,
    log: &mut RequestLog,
) -> Result<ResponseBody<S>, Refusal> {
    if !head.status.is_success() {
        return Ok(ResponseBody::live(body));
    }
    let gzip = match rewrite::plan(&request.head.method, head.status, &head.headers) {
        RewritePlan::Rewrite { gzip } => gzip,
        RewritePlan::NoLinks => return Ok(ResponseBody::live(body)),
        RewritePlan::PassThrough(why) => {
            log.unread = Some(why);
            return Ok(ResponseBody::live(body));
        }
        RewritePlan::HeadOnly => {
            rewrite::drop_representation_headers(&mut head.headers, None);
            return Ok(ResponseBody::live(body));
        }
    };
    body.buffer_up_to(rewrite::MAX_BUFFERED).await.map_err(body_refusal)?;
    let text = match body.buffered() {
        Some(packed) if gzip => rewrite::unpacked(packed),
        text => text.map(<[u8]>::to_vec),
    };
    let Some(text) = text else {
        log.unread = Some("size");
        return Ok(ResponseBody::live(body));
    };
    let Some(configuration) = v1::with_members(&text, &request.settings.v1.case_types) else {
        return Ok(ResponseBody::live(body));
    };
    rewrite::drop_representation_headers(&mut head.headers, Some(configuration.len()));
    Ok(ResponseBody::full(configuration.into()))
}

/// Nothing has been sent to the caller yet, so it can be told plainly.
fn body_refusal(error: ResponseBodyError) -> Refusal {
    match error {
        ResponseBodyError::Truncated => Refusal::PlatformMisbehaved("its answer broke off"),
        ResponseBodyError::Damaged => Refusal::PlatformMisbehaved("its compressed answer is damaged"),
        ResponseBodyError::Stalled => Refusal::PlatformTimeout,
    }
}
