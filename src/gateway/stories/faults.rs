//! A platform that breaks off, babbles, stalls or lies, and callers that go away.

use tokio::io::{AsyncReadExt, AsyncWriteExt};

use super::*;

fn say(text: &str) -> Act {
    Act::Say(text.replace('\n', "\r\n").into_bytes())
}

fn close(text: &str) -> Act {
    Act::SayAndClose(text.replace('\n', "\r\n").into_bytes())
}

#[test]
fn a_kept_connection_that_dies_unanswered_is_replaced_once_for_a_read_and_not_for_a_write() {
    story(|world| async move {
        assert_eq!(world.status("GET", "/orders/lab", "").await, 200);
        world.will(close(""));
        assert_eq!(world.status("GET", "/orders/lab", "").await, 200);
        assert_eq!(world.platform.connections.get(), 2);
        world.will(close(""));
        assert_eq!(world.status("POST", "/scan-request", "{}").await, 502);
        assert_eq!(world.sent().len(), 4, "the write was sent once");
    });
}

#[test]
fn a_connection_that_the_platform_has_closed_in_the_meantime_is_not_used() {
    story(|world| async move {
        world.will(close("HTTP/1.1 200 OK\ncontent-length: 2\n\n{}"));
        assert_eq!(world.status("GET", "/orders/lab", "").await, 200);
        // The end arrives while nobody looks; a second caller must not notice.
        tokio::task::yield_now().await;
        assert_eq!(world.status("POST", "/scan-request", "{}").await, 200);
        assert_eq!(world.sent().len(), 2);
    });
}

#[test]
fn a_response_cut_short_never_looks_complete() {
    story(|world| async move {
        for cut in [
            "HTTP/1.1 200 OK\ncontent-length: 10\n\nhalf",
            "HTTP/1.1 200 OK\ntransfer-encoding: chunked\n\n4\nhalf\n",
            "HTTP/1.1 200 OK\ntransfer-encoding: chunked\n\nzz\n4\nhalf\n0\n\n",
            "HTTP/1.1 200 OK\ntransfer-encoding: chunked\n\n4\nhalfX\n\n0\n\n",
        ] {
            world.will(close(cut));
            // Where the end came with the head, the caller's connection ends before anything is written.
            let got = world.try_call(request("GET", "/order/1/download/IDE", "")).await;
            assert!(got.is_err() || got.is_ok_and(|(_, body)| body.is_err()), "{cut}");
            assert!(!world.records.0.lock().unwrap().last().unwrap().complete);
        }
        assert_eq!(world.gateway.idle_connections(), 0);
    });
}

#[test]
fn a_fault_behind_the_last_chunk_costs_the_connection_and_no_download() {
    story(|world| async move {
        for behind in ["no trailer\n\n", "X-Trailer\n\n", "X: a\rb\n\n"] {
            world.will(say(&format!("HTTP/1.1 200 OK\ntransfer-encoding: chunked\n\n4\nfile\n0\n{behind}")));
            assert_eq!(world.get("/order/1/download/IDE").await.1, "file", "{behind:?}");
            assert!(world.records.0.lock().unwrap().last().unwrap().complete);
            assert_eq!(world.gateway.idle_connections(), 0);
        }
        world.will(close("HTTP/1.1 200 OK\ntransfer-encoding: chunked\n\n4\nfile\n0\n"));
        assert_eq!(world.get("/order/1/download/IDE").await.1, "file", "the last chunk has come");
    });
}

#[test]
fn nobody_gets_a_response_that_was_meant_for_another() {
    story(|world| async move {
        let stray = "HTTP/1.1 200 OK\ncontent-length: 6\n\nSECRET";
        for first in [
            format!("HTTP/1.1 200 OK\ncontent-length: 2\n\nok{stray}"),
            format!("HTTP/1.1 200 OK\ntransfer-encoding: chunked\n\n2\nok\n0\n\n{stray}"),
        ] {
            world.will(say(&first));
            // 502 where the stray bytes were seen before the head was passed on.
            let (_, body) = world.get("/practice-configuration").await;
            assert!(body == "ok" || body.contains("platform_misbehaved"), "{body}");
            assert_eq!(world.get("/practice-configuration").await.1, "{}", "{first}");
            assert_eq!(world.gateway.idle_connections(), 1);
        }
        world.will(say(&format!("HTTP/1.1 204 No Content\n\n{stray}")));
        assert_eq!(world.status("GET", "/practice-configuration", "").await, 502);
        assert_eq!(world.get("/practice-configuration").await.1, "{}");
    });
}

#[test]
fn a_faulty_response_is_a_502_and_its_connection_is_gone() {
    story(|world| async move {
        let endless = format!("HTTP/1.1 200 OK\nx: {}", "a".repeat(300 * 1024));
        for faulty in [
            "SSH-2.0-OpenSSH_9.2\n\n",
            "HTTP/1.1 101 Switching Protocols\nupgrade: x\nconnection: upgrade\n\n",
            "HTTP/1.1 200 OK\ncontent-length: 2\ntransfer-encoding: chunked\n\n0\n\n",
            "HTTP/1.1 200 OK\ncontent-length: 2\ncontent-length: 3\n\nabc",
            "HTTP/1.1 200 OK\ncontent-length: 2\ncontent-length: 2\n\nab",
            "HTTP/1.1 200 OK\ntransfer-encoding: gzip\n\nabc",
            "HTTP/1.0 200 OK\ntransfer-encoding: chunked\n\n0\n\n",
            &endless,
        ] {
            world.will(say(faulty));
            let (head, body) = world.get("/practice-configuration").await;
            assert_eq!(head.status(), 502, "{}", &faulty[..40]);
            assert!(body.contains("platform_misbehaved"), "{body}");
            assert_eq!(world.gateway.idle_connections(), 0);
        }
    });
}

#[test]
fn a_platform_that_takes_no_calls_is_tried_three_times_with_pauses() {
    story(|world| async move {
        // A port that was free a moment ago and is nobody's now.
        let nobody = TcpListener::bind("127.0.0.1:0").await.unwrap().local_addr().unwrap();
        let nobody = testing::route(&format!("http://{nobody}"), "/v2");
        world.move_to(&nobody).await;
        world.bench.platform.next_discovery(Ok(nobody));
        let call = world.get("/orders/lab");
        let time = async {
            for nth in 1..3 {
                world.until_waiting(nth).await;
                world.clock.advance(Duration::from_secs(5));
            }
        };
        let ((head, body), ()) = tokio::join!(call, time);
        assert_eq!(head.status(), 502);
        assert!(body.contains("platform_unreachable"));
    });
}

#[test]
fn silence_is_a_504_and_a_pause_in_a_body_cuts_the_caller_off() {
    let hasty = |config: &mut Config| {
        config.upstream.response_timeout = Duration::from_millis(500);
        config.upstream.idle_timeout = Duration::from_millis(500);
    };
    with_config(hasty, |world| async move {
        world.will(Act::SayAndStall(Vec::new()));
        let (head, body) = world.get("/practice-configuration").await;
        assert_eq!(head.status(), 504);
        assert!(body.contains("platform_timeout"));
        world.will(Act::SayAndStall(b"HTTP/1.1 200 OK\r\ncontent-length: 10\r\n\r\nhalf".to_vec()));
        let (head, body) = world.call(request("GET", "/practice-configuration", "")).await;
        assert_eq!(head.status(), 200);
        assert!(body.is_err());
    });
}

#[test]
fn a_caller_that_hangs_up_takes_its_platform_connection_along() {
    story(|world| async move {
        for said in ["", "HTTP/1.1 200 OK\r\ncontent-length: 10\r\n\r\nhalf"] {
            world.will(Act::SayAndStall(said.as_bytes().to_vec()));
            let mut caller = world.connect();
            caller.write_all(b"GET /order/1/download/IDE HTTP/1.1\r\nHost: x\r\n\r\n").await.unwrap();
            while world.sent().is_empty() {
                tokio::task::yield_now().await;
            }
            drop(caller);
            world.platform.hung_up.notified().await;
            world.platform.requests.borrow_mut().clear();
        }
        assert_eq!(world.gateway.idle_connections(), 0);
    });
}

#[test]
fn a_body_that_breaks_off_is_not_passed_on_as_complete() {
    story(|world| async move {
        let mut caller = world.connect();
        let half = format!(
            "PUT /patients HTTP/1.1\r\nHost: x\r\nContent-Length: 200000\r\n\r\n{}",
            "x".repeat(100_000)
        );
        caller.write_all(half.as_bytes()).await.unwrap();
        while world.platform.connections.get() == 0 {
            tokio::task::yield_now().await;
        }
        drop(caller);
        world.platform.hung_up.notified().await;
        assert!(world.sent().is_empty(), "the platform saw no whole request");
    });
}

#[test]
fn a_response_that_comes_before_the_upload_is_over_passes() {
    story(|world| async move {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let domain = format!("http://{}", listener.local_addr().unwrap());
        world.move_to(&testing::route(&domain, "/v2")).await;
        let mut caller = world.connect();
        caller
            .write_all(b"PUT /patients HTTP/1.1\r\nHost: x\r\nContent-Length: 900000\r\n\r\nbegin")
            .await
            .unwrap();
        let (mut platform, _) = listener.accept().await.unwrap();
        assert_ne!(platform.read(&mut [0; 4096]).await.unwrap(), 0);
        platform.write_all(b"HTTP/1.1 413 Too Large\r\ncontent-length: 3\r\n\r\nbig").await.unwrap();
        let mut response = Vec::new();
        while !response.ends_with(b"big") {
            assert_ne!(caller.read_buf(&mut response).await.unwrap(), 0);
        }
        assert!(response.starts_with(b"HTTP/1.1 413 Too Large\r\n"));
        assert_eq!(world.gateway.idle_connections(), 0, "half a request is still on its way there");
    });
}

#[test]
fn a_loop_is_found() {
    story(|world| async move {
        let mut request = request("GET", "/orders/lab", "");
        request.headers_mut().insert("via", "1.1 genapi-gateway-t1".parse().unwrap());
        assert_eq!(world.call(request).await.0.status(), 508);
    });
}
