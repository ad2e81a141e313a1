#![no_main]
//! Reading a webhook of Twilio's: a body, and after a line break the query it came with.

libfuzzer_sys::fuzz_target!(|input: &[u8]| {
    let (body, query) = match input.iter().position(|byte| *byte == b'\n') {
        Some(end) => (&input[..end], std::str::from_utf8(&input[end + 1..]).ok()),
        None => (input, None),
    };
    if let Ok(parsed) = shared::providers::twilio::parse(body, query, fuzz::received_at()) {
        fuzz::assert_storable(&parsed);
    }
});
