#![no_main]

use genapi_gateway_fuzz::properties;

libfuzzer_sys::fuzz_target!(|input: &[u8]| properties::differential(input));
