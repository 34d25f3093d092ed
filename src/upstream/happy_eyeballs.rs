//! Connects to the first address that responds (RFC 8305): families take turns, and an attempt starts every
//! 250 ms. An address that does not answer costs those 250 ms and not its timeout.

use std::io;
use std::net::SocketAddr;
use std::time::Duration;

use futures_util::StreamExt;
use futures_util::stream::FuturesUnordered;
use tokio::net::TcpStream;

/// "Connection Attempt Delay" (RFC 8305, 5 and 8).
pub(super) const ATTEMPT_DELAY: Duration = Duration::from_millis(250);

/// How many failed attempts an error names.
const MAX_REPORTED: usize = 4;

/// Connects to the first address that responds; the other attempts are dropped. Says why none did. Does not
/// end by itself where none answers: its caller has a deadline.
pub(super) async fn connect(addresses: Vec<SocketAddr>) -> Result<TcpStream, String> {
    let mut waiting = interleave_families(addresses).into_iter();
    let mut attempts = FuturesUnordered::new();
    let mut failures = Vec::new();
    loop {
        attempts.extend(waiting.next().map(attempt));
        tokio::select! {
            outcome = attempts.next() => match outcome {
                Some(Ok(stream)) => return Ok(stream),
                Some(Err((address, error))) => failures.push(format!("{}: {error}", address.ip())),
                None => break,
            },
            () = tokio::time::sleep(ATTEMPT_DELAY), if waiting.len() > 0 => {}
        }
    }
    failures.truncate(MAX_REPORTED);
    Err(if failures.is_empty() { "the name has no address".to_owned() } else { failures.join("; ") })
}

/// The same addresses, first the one that responds first, if one does in time.
pub(super) async fn fastest_first(mut addresses: Vec<SocketAddr>, at_most: Duration) -> Vec<SocketAddr> {
    if addresses.len() > 1
        && let Ok(Ok(stream)) = tokio::time::timeout(at_most, connect(addresses.clone())).await
        && let Ok(reached) = stream.peer_addr()
    {
        addresses.sort_by_key(|address| *address != reached);
    }
    addresses
}

async fn attempt(address: SocketAddr) -> Result<TcpStream, (SocketAddr, io::Error)> {
    let connected = TcpStream::connect(address).await;
    // Without it a small head would wait for the acknowledgement of what went before.
    connected.and_then(|stream| stream.set_nodelay(true).map(|()| stream)).map_err(|error| (address, error))
}

/// One of each family by turns, beginning with the one that the resolver prefers; within a family its order
/// stays (RFC 8305, 4).
pub(super) fn interleave_families(addresses: Vec<SocketAddr>) -> Vec<SocketAddr> {
    let preferred = addresses.first().is_some_and(SocketAddr::is_ipv6);
    let (first, second): (Vec<_>, Vec<_>) =
        addresses.into_iter().partition(|address| address.is_ipv6() == preferred);
    let (mut first, mut second) = (first.into_iter(), second.into_iter());
    let mut turns = Vec::with_capacity(first.len() + second.len());
    while first.len() + second.len() > 0 {
        turns.extend(first.next());
        turns.extend(second.next());
    }
    turns
}

#[cfg(test)]
mod tests {
    use super::super::testing::unresponsive_address;
    use super::*;
    use tokio::net::TcpListener;
    use tokio::time::Instant;

    fn addresses(texts: &[&str]) -> Vec<SocketAddr> {
        texts.iter().map(|text| text.parse().unwrap()).collect()
    }

    #[test]
    fn families_take_turns_and_the_resolvers_order_stays() {
        for (given, turns) in [
            (
                &["[::1]:1", "[::2]:1", "1.1.1.1:1", "1.1.1.2:1"][..],
                &["[::1]:1", "1.1.1.1:1", "[::2]:1", "1.1.1.2:1"][..],
            ),
            (
                &["1.1.1.1:1", "[::1]:1", "[::2]:1", "[::3]:1"],
                &["1.1.1.1:1", "[::1]:1", "[::2]:1", "[::3]:1"],
            ),
            (&["1.1.1.2:1", "1.1.1.1:1"], &["1.1.1.2:1", "1.1.1.1:1"]),
            (&[], &[]),
        ] {
            assert_eq!(interleave_families(addresses(given)), addresses(turns));
        }
    }

    #[tokio::test]
    async fn addresses_that_do_not_respond_cost_a_quarter_of_a_second_each() {
        let silent = [unresponsive_address(), unresponsive_address()];
        let live = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let live = live.local_addr().unwrap();
        let began = Instant::now();
        let stream = connect(vec![silent[0].address, silent[1].address, live]).await.unwrap();
        assert_eq!(stream.peer_addr().unwrap(), live);
        assert!(began.elapsed() >= 2 * ATTEMPT_DELAY, "they had their time");
        assert!(stream.nodelay().unwrap());
    }

    #[tokio::test]
    async fn the_one_that_responds_comes_first_and_none_is_lost() {
        let silent = unresponsive_address();
        let live = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let live = live.local_addr().unwrap();
        let timeout = Duration::from_secs(60);
        let first = fastest_first(vec![silent.address, live], timeout).await;
        assert_eq!(first, [live, silent.address]);
        let none = fastest_first(vec![silent.address; 2], Duration::from_millis(20)).await;
        assert_eq!(none, [silent.address; 2]);
    }

    #[tokio::test]
    async fn a_refusal_starts_the_next_at_once_and_all_refusals_are_told() {
        let closed = || async { TcpListener::bind("127.0.0.1:0").await.unwrap().local_addr().unwrap() };
        let (one, two) = (closed().await, closed().await);
        let error = connect(vec![one, two]).await.unwrap_err();
        assert_eq!(error.matches("127.0.0.1: ").count(), 2, "{error}");
        assert_eq!(connect(Vec::new()).await.unwrap_err(), "the name has no address");
    }
}
