//! A text that is being written survives reloads on any node and transport, byte for byte.

use rand::{RngExt, SeedableRng, rngs::StdRng};
use realtime_tests::Redis;

use super::*;

/// Number of reloads.
const RELOADS: usize = 100;

#[tokio::test(flavor = "multi_thread")]
async fn a_hundred_reloads_at_random_bytes_lose_and_double_nothing() {
    let redis = Redis::start().await;
    let nodes = [node(&redis).await, node(&redis).await];
    let mut random = StdRng::seed_from_u64(7);
    let (mut reloads, mut answers) = (0, 0);
    while reloads < RELOADS {
        let id = format!("answer-{answers}");
        let mut witness = Reader::connect(&nodes[0], Transport::Sse, &id).await;
        let mut reader = Reader::connect(&nodes[1], Transport::WebSocket, &id).await;
        ask(&nodes[answers % 2], &id).await;
        while reader.end.is_none() {
            let bytes = reader.text.len() + random.random_range(0..30);
            reader.until_bytes(bytes).await;
            let node = &nodes[random.random_range(0..2)];
            let transport = if random.random() { Transport::Sse } else { Transport::WebSocket };
            if random.random() {
                reader.reload(node, transport).await;
            } else {
                reader.reconnect(node, transport).await;
            }
            reloads += 1;
        }
        assert_eq!(witness.until_end().await, "done");
        assert_eq!(reader.until_end().await, "done");
        assert_eq!(reader.text, witness.text);
        assert!(witness.text.contains(PROMPT) && witness.text.ends_with("else has to change."));
        assert_eq!((witness.prefixes, witness.runs), (0, 1));
        // The page is loaded anew after the end.
        reader.reload(&nodes[1], Transport::Sse).await;
        reader.until_end().await;
        assert_eq!((&reader.text, reader.prefixes), (&witness.text, 1));
        answers += 1;
    }
    println!("{reloads} reloads of {answers} answers");
}
