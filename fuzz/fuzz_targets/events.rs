#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| realtime_sse::fuzz::events(data));
