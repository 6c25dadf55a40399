#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| realtime_core::fuzz::handshakes(data));
