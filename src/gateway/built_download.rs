//! Downloads whose address the application has built by itself, which the platform asks not to do: they are
//! served through the link that was last seen for the order, where there is one, and are counted.
//!
//! An address that is spelled exactly as the gateway's own links are cannot be told from one that was
//! followed, and is not counted unless the link that was seen is another one.

use http::{Method, StatusCode, Uri};

use crate::access::Access;
use crate::http1::client::Dial;
use crate::http1::{KnownHeader, RequestHead};
use crate::model::endpoint::Group;

use super::access_log::{BuiltDownload, RequestLog};
use super::download_links::{DownloadLink, DownloadName};
use super::forward::replay::ReplayableBody;
use super::forward::resolved_request::ResolvedRequest;
use super::inbound::target;
use super::refusal::Refusal;
use super::worker::{Gateway, GatewayResponse};

fn has_body(head: &RequestHead) -> bool {
    let length = head.headers.get(KnownHeader::ContentLength);
    head.headers.has(KnownHeader::TransferEncoding) || length.is_some_and(|length| length != b"0")
}

/// A link to follow in the caller's place.
pub(super) struct KnownDownload {
    name: DownloadName,
    link: DownloadLink,
}

impl<D: Dial> Gateway<D> {
    /// The link that stands for a download which the application has built; `None` where the call is to go as
    /// it came. Allocates nothing where no link was ever kept.
    pub(super) fn known_download(
        &self,
        request: &ResolvedRequest<'_>,
        access: &Access,
        log: &mut RequestLog,
    ) -> Option<KnownDownload> {
        let is_get = matches!(request.head.method, Method::GET | Method::HEAD);
        // A query is nothing that anybody builds: it came with a link. What has a body goes out as it came.
        let is_bare = request.query().is_none() && !has_body(request.head);
        if !is_get || !is_bare || !request.takes_the_route() {
            return None;
        }
        let known = self.last_seen_link(request, access);
        if known.is_some() {
            log.built_download = Some(BuiltDownload::ByLink);
        } else if !request.is_spelled_like_a_link(access.route()) {
            log.built_download = Some(BuiltDownload::ByPath);
        }
        known
    }

    /// Where it is another address than the one that is asked for.
    fn last_seen_link(&self, request: &ResolvedRequest<'_>, access: &Access) -> Option<KnownDownload> {
        let links = &self.shared.download_links;
        if links.is_empty() {
            return None;
        }
        let [path, rest] = request.platform_path(access.route());
        let name = DownloadName::of_built_path(rest)?;
        let link = links.find(&request.account.name, access.realm(), &name)?;
        let is_the_same = link.path_and_query.strip_prefix(path) == Some(rest)
            && link.authority == access.route().authority();
        (!is_the_same).then_some(KnownDownload { name, link })
    }

    /// The response through the link; `None` where the call is to go as it came after all.
    pub(super) async fn known_download_response(
        &self,
        request: &ResolvedRequest<'_>,
        access: &Access,
        known: KnownDownload,
        log: &mut RequestLog,
    ) -> Result<Option<GatewayResponse<D>>, Refusal> {
        let served = self.through_link(request, access, &known.link, log).await?;
        if served.is_none() {
            self.shared.download_links.forget(&request.account.name, access.realm(), &known.name);
            log.built_download = Some(BuiltDownload::ByPath);
        }
        Ok(served)
    }

    /// Follows a link as if the caller had: whatever holds of links that come in holds of it. `None` where
    /// that is not permitted, or the platform knows the link no more.
    async fn through_link(
        &self,
        request: &ResolvedRequest<'_>,
        access: &Access,
        link: &DownloadLink,
        log: &mut RequestLog,
    ) -> Result<Option<GatewayResponse<D>>, Refusal> {
        let text = format!("/accounts/{}/@{}{}", request.account.name, link.authority, link.path_and_query);
        let Ok(uri) = text.parse::<Uri>() else { return Ok(None) };
        let Ok(target) = target::parse(&request.head.method, &uri, "") else { return Ok(None) };
        if !matches!(target.endpoint.group, Group::Downloads | Group::Other) || !target.endpoint.is_forwarded
        {
            return Ok(None);
        }
        let account = request.account.clone();
        let followed = ResolvedRequest::new(
            request.settings,
            request.head,
            request.rules,
            target,
            account,
            access,
            request.started,
        );
        let Ok(followed) = followed else { return Ok(None) };
        if followed.target(access.route()).is_err() {
            return Ok(None);
        }
        let forwarded =
            self.forward_with_retries(&followed, access.clone(), &ReplayableBody::Empty, log).await?;
        let is_gone = matches!(
            forwarded.response.head.status,
            StatusCode::BAD_REQUEST | StatusCode::FORBIDDEN | StatusCode::NOT_FOUND | StatusCode::GONE
        );
        if is_gone {
            return Ok(None);
        }
        self.caller_response(&followed, forwarded, log).await.map(Some)
    }
}
