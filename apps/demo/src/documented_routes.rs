//! Test: every route of the demo is in the document of its address, and nothing else is.

use std::{collections::BTreeSet, sync::Arc};

use actix_web::{
    App, HttpResponse,
    introspection::IntrospectionTree,
    test::{TestRequest, call_and_read_body_json, init_service},
    web::{self, Data, ServiceConfig},
};
use realtime_core::Hub;
use serde_json::Value;

use crate::{config::Config, internal, logins::Logins, openapi, server, state::State};

/// What the pages have for themselves, and what shows the routes here.
const UNDOCUMENTED: [&str; 7] =
    ["/", "/assets/", "/realtime.js", "/demo/", "/console", "/console/", "/routes"];

fn state(variables: &[(&str, &str)]) -> Data<State> {
    let variables = variables.iter().map(|(name, text)| ((*name).to_owned(), (*text).to_owned()));
    let config = Config::load(None, variables).unwrap();
    let logins = Arc::new(Logins::start(&config).unwrap());
    let hub = Hub::builder().start().unwrap();
    Data::new(State::new(config, hub, logins.clone(), Some(logins)))
}

/// The routes of an app and those of its document, each as method and path.
async fn routes(configure: impl FnOnce(&mut ServiceConfig)) -> (BTreeSet<String>, BTreeSet<String>) {
    let show = async |tree: Data<IntrospectionTree>| HttpResponse::Ok().body(tree.report_as_json());
    let app = App::new().configure(configure).service(web::resource("/routes").get(show));
    let app = init_service(app).await;
    let report: Vec<Value> =
        call_and_read_body_json(&app, TestRequest::get().uri("/routes").to_request()).await;
    let mut routes = BTreeSet::new();
    for route in &report {
        let path = route["full_path"].as_str().unwrap();
        let own = |prefix: &str| match prefix.strip_suffix('/') {
            Some(folder) if !folder.is_empty() => path.starts_with(prefix),
            _ => path == prefix,
        };
        if UNDOCUMENTED.iter().any(|prefix| own(prefix)) {
            continue;
        }
        // What browsers and supervisors may ask of every GET.
        let methods = route["methods"].as_array().unwrap().iter().map(|method| method.as_str().unwrap());
        routes.extend(
            methods
                .filter(|method| !["HEAD", "OPTIONS"].contains(method))
                .map(|method| format!("{method} {path}")),
        );
    }
    let document: Value =
        call_and_read_body_json(&app, TestRequest::get().uri(openapi::PATH).to_request()).await;
    let mut documented = BTreeSet::new();
    for (path, operations) in document["paths"].as_object().unwrap() {
        let methods = operations.as_object().unwrap().keys();
        documented.extend(methods.map(|method| format!("{} {path}", method.to_uppercase())));
    }
    (routes, documented)
}

#[actix_web::test]
async fn every_route_is_documented_at_its_address() {
    for variables in [
        &[][..],
        &[("REALTIME__SERVER__INTERNAL", "127.0.0.1:0"), ("REALTIME__AUTH__TICKETS", "false")],
        &[("REALTIME__SSE__ENABLED", "false"), ("REALTIME__WEBSOCKET__PATH", "/ws")],
    ] {
        let state = state(variables);
        let (routes, documented) = routes(server::routes(&state)).await;
        assert!(routes.contains("POST /auth/login"), "{routes:?}");
        assert_eq!(routes, documented, "{variables:?}");
    }
    let state = state(&[("REALTIME__SERVER__INTERNAL", "127.0.0.1:0")]);
    let (routes, documented) = routes(internal::routes(&state)).await;
    assert!(routes.contains("POST /api/publish"), "{routes:?}");
    assert_eq!(routes, documented);
}
