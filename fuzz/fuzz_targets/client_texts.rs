#![no_main]

libfuzzer_sys::fuzz_target!(|data: &str| realtime_websocket::fuzz::client_texts(data));
