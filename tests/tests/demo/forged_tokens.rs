//! A token counts in one spelling only, and only when it was signed with the configured key and algorithm: no header of its
//! own, no other place in the request and no other encoding admits it.

use jsonwebtoken::{Algorithm, EncodingKey};
use realtime_tests::{Demo, SECRET, Socket, sign, token, within};
use reqwest::Method;
use serde_json::{Value, json};

const ALPHABET: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_";

/// Text as base64url without padding.
fn base64(text: &str) -> String {
    text.as_bytes().chunks(3).fold(String::new(), |mut encoded, three| {
        let bits = (0..3).fold(0, |bits, n| bits << 8 | u32::from(*three.get(n).unwrap_or(&0)));
        for n in 0..=three.len() {
            encoded.push(char::from(ALPHABET[(bits >> (18 - 6 * n) & 63) as usize]));
        }
        encoded
    })
}

/// A token with any header and claims, signed with a key.
fn forge(header: &str, claims: &str, key: &[u8], algorithm: Algorithm) -> String {
    let message = format!("{}.{}", base64(header), base64(claims));
    let key = EncodingKey::from_secret(key);
    let signature = jsonwebtoken::crypto::sign(message.as_bytes(), &key, algorithm).unwrap();
    format!("{message}.{signature}")
}

/// The statuses that a token gets: as a parameter of both transports, and in the header.
async fn statuses(demo: &Demo, token: &str) -> Vec<u16> {
    let encoded: String = token.bytes().map(|byte| format!("%{byte:02x}")).collect();
    let path = |path: &str| demo.url(&format!("{path}?Authorization={encoded}"));
    let http = reqwest::Client::new();
    let mut requests = vec![http.get(path("/resource/sse")), upgrade(http.get(path("/resource/websocket")))];
    requests.push(http.get(path("/demo/online")));
    if let Ok(value) = reqwest::header::HeaderValue::from_str(&format!("Bearer {token}")) {
        requests.push(http.get(demo.url("/resource/sse")).header("Authorization", value.clone()));
        requests.push(upgrade(http.get(demo.url("/resource/websocket"))).header("Authorization", value));
        let protocols = format!("realtime.v1, bearer.{token}");
        let offer = upgrade(http.get(demo.url("/resource/websocket")));
        requests.push(offer.header("Sec-WebSocket-Protocol", protocols));
    }
    let mut statuses = Vec::new();
    for request in requests {
        statuses.push(within("an answer", request.send()).await.unwrap().status().as_u16());
    }
    statuses
}

fn upgrade(request: reqwest::RequestBuilder) -> reqwest::RequestBuilder {
    let request = request.header("Connection", "Upgrade").header("Upgrade", "websocket");
    request.header("Sec-WebSocket-Version", "13").header("Sec-WebSocket-Key", "dGhlIHNhbXBsZSBub25jZQ==")
}

const CLAIMS: &str = r#"{"userId":7,"exp":4102444800}"#;

#[tokio::test(flavor = "multi_thread")]
async fn no_token_chooses_how_it_is_verified() {
    let demo = Demo::start().await;
    let secret = SECRET.as_bytes();
    let hs256 = |header: &str| forge(header, CLAIMS, secret, Algorithm::HS256);
    let good = hs256(r#"{"alg":"HS256"}"#);
    assert_eq!(statuses(&demo, &good).await, [200, 101, 200, 200, 101, 101]);
    let (message, signature) = good.rsplit_once('.').unwrap();
    let mut forged: Vec<(String, String)> = Vec::new();
    for alg in [
        r#""none""#,
        r#""None""#,
        r#""NONE""#,
        r#""nOnE""#,
        r#""""#,
        "null",
        "[]",
        r#"["HS256"]"#,
        "0",
        "{}",
        r#""hs256""#,
        r#"" HS256""#,
        r#""HS256\u0000""#,
    ] {
        let header = format!(r#"{{"alg":{alg}}}"#);
        let unsigned = format!("{}.{}.", base64(&header), base64(CLAIMS));
        forged.push((format!("alg {alg} without a signature"), unsigned));
        forged.push((format!("alg {alg}, signed"), hs256(&header)));
    }
    // A key pair's public half is known to everybody: it must not become a secret.
    for alg in ["RS256", "RS384", "RS512", "PS256", "ES256", "ES384", "EdDSA"] {
        let header = format!(r#"{{"alg":"{alg}"}}"#);
        forged.push((format!("{alg}, signed with the secret"), hs256(&header)));
        forged
            .push((format!("{alg} without a signature"), format!("{}.{}.", base64(&header), base64(CLAIMS))));
    }
    forged.push(("HS384".into(), forge(r#"{"alg":"HS384"}"#, CLAIMS, secret, Algorithm::HS384)));
    forged.push(("HS512".into(), forge(r#"{"alg":"HS512"}"#, CLAIMS, secret, Algorithm::HS512)));
    forged.push(("HS256 that says HS512".into(), hs256(r#"{"alg":"HS512"}"#)));
    forged.push((
        "HS512 that says HS256".into(),
        forge(r#"{"alg":"HS256"}"#, CLAIMS, secret, Algorithm::HS512),
    ));
    // Keys that a token names, or brings with it.
    for (name, key) in
        [("an empty key", &b""[..]), ("a key of NUL", b"\0"), ("the key `k`", b"k"), ("null", b"null")]
    {
        for header in [
            r#"{"alg":"HS256"}"#,
            r#"{"alg":"HS256","kid":"../../../../dev/null"}"#,
            r#"{"alg":"HS256","kid":"' UNION SELECT 'k' --"}"#,
            r#"{"alg":"HS256","kid":""}"#,
            r#"{"alg":"HS256","jwk":{"kty":"oct","k":"aw"}}"#,
            r#"{"alg":"HS256","jku":"http://127.0.0.1:1/keys"}"#,
            r#"{"alg":"HS256","x5u":"http://127.0.0.1:1/keys"}"#,
        ] {
            forged.push((format!("{name} and {header}"), forge(header, CLAIMS, key, Algorithm::HS256)));
        }
    }
    // Parts.
    for (name, token) in [
        ("no signature", format!("{message}.")),
        ("no third part", message.to_owned()),
        ("half a signature", format!("{message}.{}", &signature[..20])),
        ("a longer signature", format!("{good}AAAA")),
        ("a padded signature", format!("{good}=")),
        ("a fourth part", format!("{good}.{signature}")),
        ("five parts, as of an encrypted token", format!("{good}.{signature}.{signature}")),
        ("dots", "..".to_owned()),
        ("more dots", "....".to_owned()),
        ("1,000 dots", ".".repeat(1000)),
        ("NUL in it", good.replacen('.', ".\0", 1)),
        ("a line feed in it", good.replacen('.', ".\n", 1)),
        ("a header of nothing", format!(".{}.{signature}", base64(CLAIMS))),
        ("claims of nothing", forge(r#"{"alg":"HS256"}"#, "", secret, Algorithm::HS256)),
        ("claims that are a list", forge(r#"{"alg":"HS256"}"#, "[]", secret, Algorithm::HS256)),
        ("another's claims", {
            let claims = base64(r#"{"userId":1,"exp":4102444800}"#);
            format!("{}.{claims}.{signature}", good.split('.').next().unwrap())
        }),
        ("a token in a token", {
            let header = r#"{"alg":"HS256","cty":"JWT"}"#;
            forge(header, &format!("\"{good}\""), secret, Algorithm::HS256)
        }),
        ("a token within the claims", {
            forge(r#"{"alg":"HS256"}"#, &json!({ "jwt": good }).to_string(), secret, Algorithm::HS256)
        }),
        ("lists in lists", {
            let lists = format!("{}{}", "[".repeat(5000), "]".repeat(5000));
            let claims = format!(r#"{{"userId":7,"exp":4102444800,"topics":{lists}}}"#);
            forge(r#"{"alg":"HS256"}"#, &claims, secret, Algorithm::HS256)
        }),
    ] {
        forged.push((name.to_owned(), token));
    }
    // Claims that are signed, and still name nobody.
    for user in [
        r#""userId":null"#,
        r#""userId":"""#,
        r#""userId":[]"#,
        r#""userId":{}"#,
        r#""userId":true"#,
        r#""userId":1.5"#,
        r#""userId":"a\nb""#,
        r#""userId":"\u0000""#,
        r#""userId":7,"userId":1"#,
        r#""sub":7,"sub":1"#,
        r#""id":7"#,
    ] {
        let claims = format!(r#"{{{user},"exp":4102444800}}"#);
        forged.push((user.to_owned(), forge(r#"{"alg":"HS256"}"#, &claims, secret, Algorithm::HS256)));
    }
    let mut faults = Vec::new();
    for (name, token) in forged {
        let statuses = statuses(&demo, &token).await;
        if statuses.iter().any(|status| *status != 401) {
            faults.push(format!("{name}: {statuses:?}"));
        }
    }
    assert!(faults.is_empty(), "{faults:#?}");
    assert_eq!(demo.sessions(7).await, 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_huge_token_costs_a_refusal() {
    let demo = Demo::start().await;
    let before = demo.memory();
    let signed =
        |length: usize| sign(&json!({ "userId": 7, "exp": 4_102_444_800_u64, "jti": "x".repeat(length) }));
    for length in [1000, 20_000, 60_000, 90_000, 200_000, 1_000_000] {
        for (token, ok) in
            [(signed(length), true), (format!("{}x", signed(length)), false), ("a".repeat(length), false)]
        {
            let header = format!("Bearer {token}");
            let sent =
                reqwest::Client::new().get(demo.url("/resource/sse")).header("Authorization", header).send();
            // A head above the server's limit is refused while it is being written.
            let Ok(answer) = within("an answer", sent).await else { continue };
            let status = answer.status().as_u16();
            assert!(
                matches!((status, ok), (200, true) | (401, false) | (400 | 413 | 431, _)),
                "{length}: {status}"
            );
        }
    }
    demo.until_sessions(7, 0).await;
    let grown = demo.memory().saturating_sub(before);
    assert!(grown < 32 << 10, "{grown} KiB");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_kicked_token_is_refused_in_every_spelling() {
    let demo = Demo::start().await;
    let token = token(7);
    let mut socket = Socket::open(&demo, &token, &[], None).await.unwrap();
    assert_eq!(demo.api(Method::DELETE, "/api/online/7", None).await, (200, json!({ "closed": 1 })));
    assert_eq!(socket.close_code().await, 4409);
    let (message, signature) = token.rsplit_once('.').unwrap();
    let last = ALPHABET.iter().position(|letter| *letter == signature.as_bytes()[42]).unwrap();
    // 43 letters of 6 bits are two bits more than 32 bytes: a lax decoder reads four signatures as one.
    let mut spellings: Vec<String> = (1..4)
        .map(|bits| {
            format!(
                "{message}.{}{}",
                &signature[..42],
                char::from(ALPHABET[(last & !3) | ((last + bits) & 3)])
            )
        })
        .collect();
    let standard = token.replace('-', "+").replace('_', "/");
    spellings.extend([
        token.clone(),
        format!(" {token}"),
        format!("{token} "),
        format!("\t{token}"),
        format!("Bearer {token}"),
        format!("bearer {token}"),
        format!("BEARER {token}"),
        format!("Bearer  {token}"),
        format!("Bearer\t{token}"),
        format!("Bearer Bearer {token}"),
        format!("Bearer bearer {token}"),
        format!("Bearer%20{token}"),
        format!("{token}="),
        format!("{token}=="),
        format!("{token}."),
        format!(".{token}"),
        format!("{token}\0"),
        format!("{token}\r\n"),
        format!("{token}\u{a0}"),
        format!("\u{feff}{token}"),
        format!("\"{token}\""),
        token.replacen('.', "=.", 1),
        token.replacen('.', "==.", 1),
    ]);
    if standard != token {
        spellings.push(standard);
    }
    let mut faults = Vec::new();
    for spelling in &spellings {
        let statuses = statuses(&demo, spelling).await;
        // An event stream of a kicked login is told not to come back (204).
        if statuses.iter().any(|status| !matches!(status, 204 | 400 | 401)) {
            faults.push(format!("{spelling:?}: {statuses:?}"));
        }
    }
    assert!(faults.is_empty(), "{faults:#?}");
    assert_eq!(demo.sessions(7).await, 0);
    let login: Value = json!({ "closed": 0 });
    assert_eq!(demo.api(Method::DELETE, "/api/online/7", None).await, (200, login));
}
