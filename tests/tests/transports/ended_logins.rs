//! A session is closed within a second of its token's `exp`, on both transports, with its reason.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use futures_util::future::join_all;
use realtime_tests::{Demo, EventStream, Socket, sign};
use serde_json::json;

fn since_1970() -> Duration {
    SystemTime::now().duration_since(UNIX_EPOCH).unwrap()
}

#[tokio::test(flavor = "multi_thread")]
async fn sessions_end_with_their_tokens_to_the_second() {
    let demo = Demo::start().await;
    let now = since_1970().as_secs();
    let ends = (3..9).map(async |seconds| {
        let exp = now + seconds;
        let token = sign(&json!({ "sub": "9", "clientid": "web", "exp": exp }));
        let (mut v1, mut raw, mut stream) = tokio::join!(
            async { Socket::open(&demo, &token, &["realtime.v1"], None).await.unwrap() },
            async { Socket::open(&demo, &token, &[], None).await.unwrap() },
            async { EventStream::open(&demo, &token, None).await.unwrap() },
        );
        let v1 = async { (v1.close_code().await, since_1970()) };
        let raw = async { (raw.close_code().await, since_1970()) };
        let stream = async {
            while stream.next().await.is_some() {}
            since_1970()
        };
        let ((v1, v1_end), (raw, raw_end), stream_end) = tokio::join!(v1, raw, stream);
        assert_eq!((v1, raw), (4401, 4401));
        for end in [v1_end, raw_end, stream_end] {
            assert!(end.as_secs() >= exp, "not before: {end:?}, {exp}");
            // A second, and what a busy machine takes.
            assert!(end < Duration::from_secs(exp + 2), "{end:?}, {exp}");
        }
        assert_eq!(EventStream::open(&demo, &token, None).await.err(), Some(401));
    });
    join_all(ends).await;
}
