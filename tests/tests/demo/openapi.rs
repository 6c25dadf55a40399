//! The OpenAPI document describes what the demo answers: each operation is called, and its answer is what is documented.

use std::collections::BTreeSet;

use jsonschema::Validator;
use realtime_tests::{API_KEY, Demo, token};
use reqwest::{Method, RequestBuilder, Response};
use serde_json::{Value, json};

/// The document, and the operations that were called.
struct Document {
    json: Value,
    called: BTreeSet<String>,
}

impl Document {
    /// Fetches the document, which needs no key.
    async fn fetch(url: &str) -> Self {
        let response = reqwest::get(url).await.unwrap();
        assert_eq!(response.status(), 200, "{url}");
        let json: Value = response.json().await.unwrap();
        assert!(json["openapi"].as_str().unwrap().starts_with("3.1."), "{}", json["openapi"]);
        Self { json, called: BTreeSet::new() }
    }

    /// All operations, as method and path.
    fn operations(&self) -> BTreeSet<String> {
        let paths = self.json["paths"].as_object().unwrap();
        paths
            .iter()
            .flat_map(|(path, item)| {
                item.as_object()
                    .unwrap()
                    .keys()
                    .map(move |method| format!("{} {path}", method.to_uppercase()))
            })
            .collect()
    }

    /// Checks that a response is what the document says of an operation.
    async fn check(&mut self, operation: &str, status: u16, response: Response) -> Value {
        self.called.insert(operation.to_owned());
        let (method, path) = operation.split_once(' ').unwrap();
        assert_eq!(response.status(), status, "{operation}");
        let described = &self.json["paths"][path][method.to_lowercase()]["responses"][status.to_string()];
        assert!(described.is_object(), "{operation} does not document {status}");
        let Some(content) = described["content"].as_object() else { return Value::Null };
        let (kind, content) = content.iter().next().unwrap();
        assert!(
            response.headers()["content-type"].to_str().unwrap().starts_with(kind),
            "{operation} {status}"
        );
        if kind != "application/json" {
            return Value::Null;
        }
        let body: Value = response.json().await.unwrap();
        self.check_value(&content["schema"], &body);
        body
    }

    /// Checks that a value is what a schema says.
    fn check_value(&self, schema: &Value, value: &Value) {
        let validator = self.validator(schema);
        let problems: Vec<_> = validator.iter_errors(value).map(|error| error.to_string()).collect();
        assert_eq!(problems, [""; 0], "{value}");
    }

    /// Validator of a schema that refers to others, strict about fields that are not documented.
    fn validator(&self, schema: &Value) -> Validator {
        let mut root = schema.clone();
        root["components"] = self.json["components"].clone();
        close(&mut root);
        jsonschema::draft202012::new(&root).unwrap()
    }
}

/// Has a schema, and all schemas in it, refuse fields that it does not name.
fn close(schema: &mut Value) {
    match schema {
        Value::Object(map) => {
            if map.contains_key("properties") && map.get("type") == Some(&json!("object")) {
                map.entry("additionalProperties").or_insert(json!(false));
            }
            map.values_mut().for_each(close);
        }
        Value::Array(list) => list.iter_mut().for_each(close),
        _ => {}
    }
}

async fn send(request: RequestBuilder) -> Response {
    request.send().await.unwrap()
}

#[tokio::test(flavor = "multi_thread")]
async fn every_operation_answers_as_documented() {
    let demo = Demo::start().await;
    let mut document = Document::fetch(&demo.url("/api/openapi.json")).await;
    let http = reqwest::Client::new();
    let url = |path: &str| demo.url(path);
    let api = |method: Method, path: &str| http.request(method, url(path)).header("X-API-Key", API_KEY);
    let _open = (demo.socket(5).await, demo.stream(5).await);
    let login = token(5);

    let operation = "GET /api/openapi.json";
    document.check(operation, 200, send(http.get(url("/api/openapi.json"))).await).await;
    for probe in ["live", "ready"] {
        let path = format!("/health/{probe}");
        document.check(&format!("GET {path}"), 200, send(http.get(url(&path))).await).await;
    }

    let operation = "POST /api/publish";
    let publish = |body: Value| send(api(Method::POST, "/api/publish").json(&body));
    document.check(operation, 200, publish(json!({ "userIds": [5, "x"], "message": "a" })).await).await;
    let everything = json!({
        "userIds": null, "topics": ["news"], "broadcast": false, "message": "b", "event": "order", "transport": "sse",
        "idempotencyKey": "k", "ttl": 60_000, "collapseKey": "c", "retain": true, "confirm": 5_000,
    });
    document.check_value(&json!({ "$ref": "#/components/schemas/Publish" }), &everything);
    let answer = document.check(operation, 200, publish(everything).await).await;
    assert_eq!(answer["missing"], json!([]));
    let dropped = json!({ "broadcast": true, "message": "c", "dropOldest": { "class": "d", "keep": 2 } });
    document.check(operation, 200, publish(dropped).await).await;
    document.check(operation, 400, publish(json!({ "message": "nobody" })).await).await;
    document.check(operation, 401, send(http.post(url("/api/publish")).json(&json!({}))).await).await;

    let operation = "GET /api/online";
    let page =
        document.check(operation, 200, send(api(Method::GET, "/api/online?page=1&size=9")).await).await;
    assert_eq!(page["total"], 1);
    document.check(operation, 400, send(api(Method::GET, "/api/online?page=0")).await).await;
    document.check(operation, 401, send(http.get(url("/api/online"))).await).await;
    let operation = "GET /api/online/{userId}";
    let user = document.check(operation, 200, send(api(Method::GET, "/api/online/5")).await).await;
    assert_eq!(user["sessions"].as_array().unwrap().len(), 2);
    document.check(operation, 200, send(api(Method::GET, "/api/online/nobody")).await).await;
    document.check(operation, 401, send(http.get(url("/api/online/5"))).await).await;

    for path in ["/api/nodes", "/api/stats"] {
        let operation = format!("GET {path}");
        document.check(&operation, 200, send(api(Method::GET, path)).await).await;
        document.check(&operation, 401, send(http.get(url(path))).await).await;
    }
    let operation = "POST /api/trace";
    let trace = |body: Value| send(api(Method::POST, "/api/trace").json(&body));
    let mut happenings = trace(json!({ "userId": 5, "seconds": 60 })).await;
    document.check(operation, 200, trace(json!({ "topic": "news", "seconds": 1 })).await).await;
    document.check(operation, 400, trace(json!({})).await).await;
    document.check(operation, 401, send(http.post(url("/api/trace")).json(&json!({}))).await).await;
    document
        .check("POST /api/publish", 200, publish(json!({ "userIds": [5], "message": "traced" })).await)
        .await;
    let mut text = String::new();
    while !text.contains(r#""kind":"written""#) || !text.ends_with("\n\n") {
        text += str::from_utf8(&happenings.chunk().await.unwrap().unwrap()).unwrap();
    }
    for event in text.lines().filter_map(|line| line.strip_prefix("data:")) {
        let event: Value = serde_json::from_str(event).unwrap();
        document.check_value(&json!({ "$ref": "#/components/schemas/TraceEvent" }), &event);
    }

    let operation = "GET /api/explain/{userId}";
    let explanation = document.check(operation, 200, send(api(Method::GET, "/api/explain/5")).await).await;
    assert_eq!(explanation["sessions"].as_array().unwrap().len(), 2);
    document.check(operation, 400, send(api(Method::GET, "/api/explain/5?last=0")).await).await;
    document.check(operation, 401, send(http.get(url("/api/explain/5"))).await).await;

    let operation = "POST /auth/login";
    let sign_in = |password: &str| {
        let body = json!({ "username": "alice", "password": password, "clientId": "web" });
        send(http.post(url("/auth/login")).json(&body))
    };
    document.check(operation, 200, sign_in("demo").await).await;
    document.check(operation, 401, sign_in("wrong").await).await;
    document.check(operation, 400, send(http.post(url("/auth/login")).body("{}")).await).await;

    for path in ["/resource/ticket", "/resource/websocket/ticket", "/resource/sse/ticket"] {
        let operation = format!("POST {path}");
        document.check(&operation, 200, send(http.post(url(path)).bearer_auth(&login)).await).await;
        document.check(&operation, 401, send(http.post(url(path))).await).await;
        let in_address = format!("{path}?Authorization={login}");
        document.check(&operation, 400, send(http.post(url(&in_address))).await).await;
    }

    let path = "/resource/websocket";
    let operation = format!("GET {path}");
    document.check(&operation, 426, send(http.get(url(path)).bearer_auth(&login)).await).await;
    let upgrade = || {
        let request = http.get(url(path)).header("Connection", "Upgrade").header("Upgrade", "websocket");
        request.header("Sec-WebSocket-Version", "13").header("Sec-WebSocket-Key", "AAAAAAAAAAAAAAAAAAAAAA==")
    };
    document.check(&operation, 401, send(upgrade()).await).await;
    document.check(&operation, 101, send(upgrade().bearer_auth(&login)).await).await;

    let path = "/resource/sse";
    let operation = format!("GET {path}");
    document.check(&operation, 200, send(http.get(url(path)).bearer_auth(&login)).await).await;
    document.check(&operation, 401, send(http.get(url(path))).await).await;

    let operation = "POST /resource/sse/refresh";
    let mut stream = send(http.get(url("/resource/sse?hello=1")).bearer_auth(&login)).await;
    let mut text = String::new();
    while !text.contains("\"session\"") || !text.ends_with("\n\n") {
        text += str::from_utf8(&stream.chunk().await.unwrap().unwrap()).unwrap();
    }
    let hello = text.lines().find_map(|line| line.strip_prefix("data:")).unwrap();
    let session = serde_json::from_str::<Value>(hello).unwrap()["session"].as_str().unwrap().to_owned();
    let refresh = |session: &str, login: &str| {
        let path = format!("/resource/sse/refresh?session={session}");
        send(http.post(url(&path)).bearer_auth(login))
    };
    document.check(operation, 200, refresh(&session, &login).await).await;
    document.check(operation, 400, refresh("", &login).await).await;
    document.check(operation, 404, refresh(&session, &token(6)).await).await;

    for method in [Method::GET, Method::POST] {
        let operation = format!("{method} /resource/sse/close");
        let request = http.request(method, url("/resource/sse/close"));
        document.check(&operation, 200, send(request.bearer_auth(&login)).await).await;
    }

    let operation = "DELETE /api/online/{userId}";
    let body = json!({ "message": "bye" });
    document.check(operation, 200, send(api(Method::DELETE, "/api/online/5").json(&body)).await).await;
    document.check(operation, 400, send(api(Method::DELETE, "/api/online/5?sessionId=")).await).await;
    document.check(operation, 401, send(http.delete(url("/api/online/5"))).await).await;
    // Its login is over: the standard's answer for "do not come back".
    let kicked = send(http.get(url("/resource/sse")).bearer_auth(&login)).await;
    document.check("GET /resource/sse", 204, kicked).await;
    let explained = send(api(Method::GET, "/api/explain/5")).await;
    let explanation = document.check("GET /api/explain/{userId}", 200, explained).await;
    for known in ["closes", "refusals", "messages"] {
        assert!(!explanation[known].as_array().unwrap().is_empty(), "{known}: {explanation}");
    }

    assert_eq!(document.called, document.operations(), "each operation is called");
}

#[tokio::test(flavor = "multi_thread")]
async fn operation_ids_are_unique_and_each_address_describes_itself() {
    let demo = Demo::start_with(&[("REALTIME__SERVER__INTERNAL", "127.0.0.1:0")]).await;
    let public = Document::fetch(&demo.url("/api/openapi.json")).await;
    let mut internal = Document::fetch(&demo.api_url("/api/openapi.json")).await;
    let metrics = send(reqwest::Client::new().get(demo.api_url("/metrics"))).await;
    internal.check("GET /metrics", 200, metrics).await;
    assert!(!public.operations().contains("POST /api/publish"));
    assert!(internal.operations().contains("POST /api/publish"));
    assert!(!internal.operations().contains("POST /auth/login"));
    for Document { json, .. } in [&public, &internal] {
        let items = json["paths"].as_object().unwrap().values();
        let operations = items.flat_map(|item| item.as_object().unwrap().values());
        let ids: Vec<_> = operations.map(|operation| operation["operationId"].as_str().unwrap()).collect();
        assert_eq!(ids.iter().collect::<BTreeSet<_>>().len(), ids.len(), "{ids:?}");
        // What is referred to is there.
        let text = json.to_string();
        for reference in text.split("\"#/components/schemas/").skip(1) {
            let name = reference.split('"').next().unwrap();
            assert!(json["components"]["schemas"][name].is_object(), "{name}");
        }
    }
}
