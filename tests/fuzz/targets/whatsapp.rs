#![no_main]
//! Reading a webhook of WhatsApp's.

libfuzzer_sys::fuzz_target!(|body: &[u8]| {
    if let Ok(parsed) = shared::providers::whatsapp::parse(body, fuzz::received_at()) {
        fuzz::assert_storable(&parsed);
    }
});
