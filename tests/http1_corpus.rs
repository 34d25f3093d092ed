//! The corpus of `fuzz/` on stable Rust: each file, each of its beginnings, and each file with one byte
//! changed. A fuzzer goes on from here (`just fuzz-smoke`).

use std::fs;
use std::path::Path;

use genapi_gateway::http1;

#[path = "../fuzz/src/properties.rs"]
mod properties;

/// Bytes at which readers of HTTP/1 are known to differ.
const CHANGES: &[u8] = b"\0\t\n\r :;,01aF\x7f\x80\xff";

fn corpus(target: &str) -> Vec<Vec<u8>> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("fuzz/corpus").join(target);
    let files = fs::read_dir(&folder).unwrap().map(|file| fs::read(file.unwrap().path()).unwrap());
    let files: Vec<_> = files.collect();
    assert!(files.len() >= 10, "{}: {} files", folder.display(), files.len());
    files
}

fn run(target: &str, property: fn(&[u8])) {
    for file in corpus(target) {
        (0..=file.len()).for_each(|end| property(&file[..end]));
        for at in 0..file.len() {
            let mut changed = file.clone();
            for byte in CHANGES {
                changed[at] = *byte;
                property(&changed);
            }
            changed.remove(at);
            property(&changed);
        }
    }
}

#[test]
fn a_request_head_has_one_meaning() {
    run("request_head", properties::request_head);
}

#[test]
fn a_response_head_has_one_meaning() {
    run("response_head", properties::response_head);
}

#[test]
fn a_chunked_body_has_one_end() {
    run("chunked_body", properties::chunked_body);
}

#[test]
fn what_we_accept_other_readers_accept_with_the_same_meaning() {
    for target in ["request_head", "response_head", "chunked_body"] {
        corpus(target).iter().for_each(|file| properties::differential(file));
    }
    run("differential", properties::differential);
}
