//! Answers with the bytes of an order's download, for the API's own links and the storage host alike.
//! Ranges and validators are read as RFC 9110, sections 13 and 14, have them.

use std::ops::Range;

use super::assets::Asset;
use super::orders::{self, Order};
use super::reply::{Reply, ReplyContent};
use super::request::SandboxRequest;
use super::state::SandboxState;

/// The bytes of a download, for the API's own links and the storage host's alike.
pub fn asset_response(
    state: &SandboxState,
    order: Order,
    asset_type: &str,
    request: &SandboxRequest,
) -> Reply {
    let practice = state.accounts.get(&order.account).filter(|practice| orders::exists(practice, order));
    let asset = practice.and_then(|practice| order.asset(asset_type, practice.account.asset_bytes));
    match asset {
        Some(asset) => {
            let name = format!("{}_{asset_type}.zip", order.order_id());
            respond(asset, request, &name, Some(order.order_id()))
        }
        None => Reply::error(404, "no such asset"),
    }
}

/// Answers a GET or HEAD: 200, 206, 304 or 416. `order` is marked when its bytes have gone out.
fn respond(asset: Asset, request: &SandboxRequest, name: &str, order: Option<u64>) -> Reply {
    let etag = asset.etag();
    if request.header("if-none-match") == Some(&etag) {
        return Reply::empty(304).with("ETag", etag);
    }
    let current = request.header("if-range").is_none_or(|wanted| wanted == etag);
    let asked = request.header("range").filter(|_| current).map(|range| parse_range(range, asset.length));
    let (status, range) = match asked {
        Some(RangeRequest::Part(range)) => (206, range),
        Some(RangeRequest::Unsatisfiable) => {
            let unsatisfied = format!("bytes */{}", asset.length);
            return Reply::error(416, "range not satisfiable").with("Content-Range", unsatisfied);
        }
        Some(RangeRequest::Complete) | None => (200, 0..asset.length),
    };
    let mut reply = Reply::empty(status)
        .with("Content-Type", "application/zip")
        .with("Content-Disposition", format!("attachment; filename=\"{name}\""))
        .with("Accept-Ranges", "bytes")
        .with("ETag", etag);
    if status == 206 {
        let part = format!("bytes {}-{}/{}", range.start, range.end - 1, asset.length);
        reply = reply.with("Content-Range", part);
    }
    reply.body = ReplyContent::Asset { asset, range, order };
    reply
}

/// What a `Range` header asks for.
enum RangeRequest {
    Part(Range<u64>),
    /// Several ranges, or a unit that nobody knows: ignored, as RFC 9110 section 14.2 allows.
    Complete,
    Unsatisfiable,
}

fn parse_range(text: &str, length: u64) -> RangeRequest {
    let Some((first, last)) = text.strip_prefix("bytes=").and_then(|span| span.split_once('-')) else {
        return RangeRequest::Complete;
    };
    let range = match (first.trim().parse::<u64>(), last.trim().parse::<u64>()) {
        (Ok(first), Ok(last)) if first <= last => first..last.saturating_add(1).min(length),
        (Ok(first), Err(_)) if last.is_empty() => first..length,
        (Err(_), Ok(last)) if first.is_empty() && last > 0 => length.saturating_sub(last)..length,
        (Err(_), Ok(0)) if first.is_empty() => return RangeRequest::Unsatisfiable,
        _ => return RangeRequest::Complete,
    };
    if range.start >= range.end { RangeRequest::Unsatisfiable } else { RangeRequest::Part(range) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ranges_are_read_as_rfc_9110_has_them() {
        let part = |text| match parse_range(text, 100) {
            RangeRequest::Part(range) => Some(range),
            RangeRequest::Complete => Some(0..100),
            RangeRequest::Unsatisfiable => None,
        };
        assert_eq!(part("bytes=0-0"), Some(0..1));
        assert_eq!(part("bytes=90-"), Some(90..100));
        assert_eq!(part("bytes=-10"), Some(90..100));
        assert_eq!(part("bytes=50-500"), Some(50..100));
        assert_eq!(part("bytes=-500"), Some(0..100));
        assert_eq!(part("bytes=100-"), None);
        assert_eq!(part("bytes=-0"), None);
        assert_eq!(part("bytes=0-1,5-6"), Some(0..100));
        assert_eq!(part("lines=0-1"), Some(0..100));
    }
}
