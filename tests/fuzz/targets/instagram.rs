#![no_main]
//! Reading a webhook of Instagram's.

libfuzzer_sys::fuzz_target!(|body: &[u8]| {
    if let Ok(parsed) = shared::providers::instagram::parse(body, fuzz::received_at()) {
        fuzz::assert_storable(&parsed);
    }
});
