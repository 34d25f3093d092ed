//! Links over the wire: buffered, streamed, compressed, and back in again.

use std::io::Write;

use super::*;

const JSON: &str = "application/json";

fn ours(text: &str, world: &World) -> String {
    text.replace("{domain}", &world.platform.domain())
}

#[test]
fn a_list_of_orders_comes_with_our_links_and_its_new_length_and_the_link_leads_back() {
    story(|world| async move {
        let list = ours(
            r#"{"a":"{domain}/itero-gen-api/v2/order/9/download/IDE?x=1","b":"https://store.test/s"}"#,
            &world,
        );
        world.will_say(&response("200 OK", JSON, &list));
        let (head, body) = world.get("/orders/lab").await;
        let expected = r#"{"a":"http://gateway.test/accounts/smile/itero-gen-api/v2/order/9/download/IDE?x=1","b":"https://store.test/s"}"#;
        assert_eq!(body, expected);
        assert_eq!(head.headers()["content-length"], expected.len().to_string().as_str());
        world.get("/accounts/smile/itero-gen-api/v2/order/9/download/IDE?x=1").await;
        assert_eq!(world.sent()[1], "GET /itero-gen-api/v2/order/9/download/IDE?x=1 HTTP/1.1");
        assert_eq!(world.records.0.lock().unwrap()[0].links, 1);
        assert!(world.platform.requests.borrow()[0].contains("accept-encoding: identity\r\n"));
    });
}

#[test]
fn a_list_without_a_link_passes_byte_for_byte_with_its_description() {
    story(|world| async move {
        let list = format!("[{}]", r#"{"id":1,"note":"http","path":"/orders"},"#.repeat(30));
        world.will_say(&response("200 OK", &format!("{JSON}\nrepr-digest: sha-256=:x:"), &list));
        let (head, body) = world.get("/orders/lab").await;
        assert_eq!((body, head.headers()["repr-digest"].to_str().unwrap()), (list.clone(), "sha-256=:x:"));
        assert_eq!(head.headers()["content-length"], list.len().to_string().as_str());
        let chunked = format!(
            "HTTP/1.1 200 OK\ncontent-type: {JSON}\naccept-ranges: bytes\ntransfer-encoding: chunked\n\n{:x}\n{list}\n0\n\n",
            list.len()
        );
        world.will_say(&chunked);
        let (head, body) = world.get("/orders/lab").await;
        assert_eq!(head.headers()["content-length"], list.len().to_string().as_str());
        assert!(!head.headers().contains_key("accept-ranges"));
        assert_eq!(body, list);
        world.will_say(&response("200 OK", JSON, ""));
        assert_eq!(world.get("/orders/lab").await.1, "");
        assert_eq!(world.platform.connections.get(), 1);
    });
}

#[test]
fn a_link_outside_the_path_leads_back_to_the_very_same_address() {
    story(|world| async move {
        world.will_say(&response("200 OK", JSON, &ours(r#""{domain}/itero-gen-api/files/9?x""#, &world)));
        let (_, body) = world.get("/orders/lab").await;
        let link = body.trim_matches('"').strip_prefix("http://gateway.test").unwrap().to_owned();
        assert_eq!(link, format!("/accounts/smile/@{}/itero-gen-api/files/9?x", world.platform.addr));
        world.get(&link).await;
        assert_eq!(world.sent()[1], "GET /itero-gen-api/files/9?x HTTP/1.1");
    });
}

#[test]
fn a_long_list_streams_with_every_link_changed() {
    story(|world| async move {
        let link = ours(r#"{"u":"{domain}/itero-gen-api/v2/order/9/download/IDE"},"#, &world);
        let count = 3 * 1024 * 1024 / link.len();
        let list = link.repeat(count);
        world.will_say(&response("200 OK", JSON, &list));
        let (head, body) = world.get("/orders/practice").await;
        assert!(!head.headers().contains_key("content-length"));
        assert_eq!(body, list.replace(&world.platform.domain(), "http://gateway.test/accounts/smile"));
        assert_eq!(world.records.0.lock().unwrap()[0].links, count as u64);
    });
}

#[test]
fn gzip_that_comes_unasked_is_unpacked_and_a_damaged_one_does_not_look_complete() {
    story(|world| async move {
        let list = ours(r#"["{domain}/itero-gen-api/v2/order/9"]"#, &world);
        let mut packer = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::default());
        packer.write_all(list.as_bytes()).unwrap();
        let packed = packer.finish().unwrap();
        for (bytes, status) in [(&packed[..], 200), (&packed[..packed.len() - 6], 502)] {
            let mut act = format!(
                "HTTP/1.1 200 OK\r\ncontent-type: {JSON}\r\ncontent-encoding: gzip\r\ncontent-length: {}\r\n\r\n",
                bytes.len()
            )
            .into_bytes();
            act.extend_from_slice(bytes);
            world.will(Act::Say(act));
            let (head, body) = world.get("/orders/lab").await;
            assert_eq!(head.status(), status);
            assert!(!head.headers().contains_key("content-encoding"));
            if status == 200 {
                assert_eq!(body, r#"["http://gateway.test/accounts/smile/itero-gen-api/v2/order/9"]"#);
            }
        }
    });
}

#[test]
fn other_encodings_pass_untouched_and_are_counted() {
    story(|world| async move {
        let list = ours("{domain}/itero-gen-api/v2/x", &world);
        let brotli = response("200 OK", &format!("{JSON}\ncontent-encoding: br"), &list);
        world.will_say(&brotli);
        let (head, body) = world.get("/orders/lab").await;
        assert_eq!((body, head.headers()["content-encoding"].to_str().unwrap()), (list, "br"));
        assert_eq!(world.records.0.lock().unwrap()[0].unread, Some("encoding"));
    });
}

#[test]
fn a_redirect_passes_with_an_address_of_ours_and_is_not_followed() {
    story(|world| async move {
        let moved = ours(
            "HTTP/1.1 302 Found\nlocation: {domain}/itero-gen-api/v2/order/9\ncontent-length: 0\n\n",
            &world,
        );
        world.will_say(&moved);
        let (head, _) = world.get("/order/9/download/IDE").await;
        assert_eq!(head.status(), 302);
        assert_eq!(head.headers()["location"], "http://gateway.test/accounts/smile/itero-gen-api/v2/order/9");
        assert_eq!(world.sent().len(), 1);
    });
}

#[test]
fn downloads_pass_byte_for_byte_with_their_ranges() {
    story(|world| async move {
        let text = ours("{domain}/itero-gen-api/v2/x", &world);
        let part = format!(
            "HTTP/1.1 206 Partial Content\ncontent-type: application/zip\ncontent-range: bytes 0-1/9\naccept-ranges: bytes\ncontent-length: {}\n\n{text}",
            text.len()
        );
        world.will_say(&part);
        let mut wanted = request("GET", "/order/9/download/IDE", "");
        wanted.headers_mut().insert("range", "bytes=0-1".parse().unwrap());
        let (head, body) = world.call(wanted).await;
        assert_eq!((head.status().as_u16(), body.unwrap().as_ref()), (206, text.as_bytes()));
        assert_eq!(head.headers()["content-range"], "bytes 0-1/9");
        assert!(world.platform.requests.borrow()[0].contains("range: bytes=0-1\r\n"));
    });
}

#[test]
fn a_head_request_gets_a_head() {
    story(|world| async move {
        world.will_say(&format!("HTTP/1.1 200 OK\ncontent-type: {JSON}\ncontent-length: 99\n\n"));
        world.will_say("HTTP/1.1 200 OK\ncontent-type: application/zip\ncontent-length: 99\n\n");
        let (head, _) = world.call(request("HEAD", "/orders/lab", "")).await;
        assert!(!head.headers().contains_key("content-length"), "a GET's length is not known yet");
        let (head, body) = world.call(request("HEAD", "/order/9/download/IDE", "")).await;
        assert_eq!(head.headers()["content-length"], "99");
        assert!(body.unwrap().is_empty());
        assert_eq!(world.platform.connections.get(), 1);
    });
}

#[test]
fn every_field_that_carries_an_address_leads_back_to_us() {
    story(|world| async move {
        let said = ours(
            "HTTP/1.1 200 OK\nLink: <{domain}/itero-gen-api/v2/orders/lab?page=2>; rel=\"next\", <https://store.test/>; rel=help\n\
             link: </itero-gen-api/v2/orders/lab?page=9>; rel=last\nContent-Location: {domain}/itero-gen-api/v2/x\n\
             Operation-Location: {domain}/itero-gen-api/v2/y\nRefresh: 3; url={domain}/itero-gen-api/v2/z\n\
             X-Other: {domain}/itero-gen-api/v2/x\ncontent-length: 0\n\n",
            &world,
        );
        world.will_say(&said);
        let (head, _) = world.get("/order/9/download/IDE").await;
        let all = |name: &str| -> Vec<String> {
            head.headers().get_all(name).iter().map(|value| value.to_str().unwrap().to_owned()).collect()
        };
        let ours_is = |rest: &str| format!("http://gateway.test/accounts/smile/itero-gen-api/v2/{rest}");
        let first =
            format!("<{}>; rel=\"next\", <https://store.test/>; rel=help", ours_is("orders/lab?page=2"));
        let second = "</accounts/smile/itero-gen-api/v2/orders/lab?page=9>; rel=last".to_owned();
        assert_eq!(all("link"), [first, second]);
        assert_eq!(all("content-location"), [ours_is("x")]);
        assert_eq!(all("operation-location"), [ours_is("y")]);
        assert_eq!(all("refresh"), [format!("3; url={}", ours_is("z"))]);
        assert_eq!(all("x-other"), [ours("{domain}/itero-gen-api/v2/x", &world)]);
        world.get("/accounts/smile/itero-gen-api/v2/orders/lab?page=9").await;
        assert_eq!(world.sent()[1], "GET /itero-gen-api/v2/orders/lab?page=9 HTTP/1.1");
    });
}

#[test]
fn a_text_of_two_bytes_a_letter_passes_byte_for_byte_and_is_counted() {
    story(|world| async move {
        let text = ours("\"{domain}/itero-gen-api/v2/order/9\"", &world);
        let wide: String = text.chars().flat_map(|letter| [letter, '\0']).collect();
        world.will_say(&response("200 OK", "application/json; charset=\"UTF-16LE\"", &wide));
        assert_eq!(world.get("/orders/lab").await.1, wide);
        world.will_say(&response("200 OK", JSON, &wide));
        assert_eq!(world.get("/orders/lab").await.1, wide);
        world.will_say(&response("200 OK", JSON, &ours("\"{domain}%2Fx\" \"https://store.test/\"", &world)));
        world.get("/orders/lab").await;
        let records = world.records.0.lock().unwrap();
        assert_eq!((records[0].unread, records[0].links_passed), (Some("charset"), 0));
        assert_eq!((records[1].unread, records[1].links, records[1].links_passed), (None, 0, 1));
        assert_eq!((records[2].links, records[2].links_passed), (0, 0));
    });
}
