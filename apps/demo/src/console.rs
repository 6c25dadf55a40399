//! The console: a page for operators, at the internal address.
//!
//! Its files need no key. What it shows comes from `/api`, which does.

use actix_web::{
    HttpResponse,
    http::header,
    web::{self, Path, ServiceConfig},
};

use crate::{
    api_error::ApiError,
    asset::{self, Asset, assets},
};

/// Same-origin resources only, no inline code, no HTML from text, no framing.
const CONTENT_SECURITY_POLICY: &str = "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' data:; \
     connect-src 'self'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'; \
     require-trusted-types-for 'script'; trusted-types 'none'";

const ASSETS: &[Asset] = assets![
    "console":
    "api.js",
    "app.js",
    "chart.js",
    "controls.css",
    "counters.js",
    "dialog.js",
    "event-stream.js",
    "explain.js",
    "explanation.js",
    "favicon.svg",
    "format.js",
    "frame.css",
    "gate.js",
    "happening.js",
    "i18n.js",
    "index.html",
    "nodes.js",
    "overview.js",
    "patch.js",
    "polling.js",
    "publish.js",
    "sampler.js",
    "style.css",
    "trace.js",
    "ui.js",
    "user.js",
    "users.js",
    "views.css",
    "zh.js",
];

pub(crate) fn routes(services: &mut ServiceConfig) {
    services
        .service(web::resource("/console").get(without_slash).route(web::head().to(without_slash)))
        .service(web::resource("/console/").get(index).route(web::head().to(index)))
        .service(web::resource("/console/{name}").get(asset).route(web::head().to(asset)));
}

/// A relative address leads there behind a proxy's path prefix, too.
async fn without_slash() -> HttpResponse {
    HttpResponse::PermanentRedirect().insert_header((header::LOCATION, "console/")).finish()
}

async fn index() -> Result<HttpResponse, ApiError> {
    serve("index.html")
}

async fn asset(name: Path<String>) -> Result<HttpResponse, ApiError> {
    serve(&name)
}

fn serve(name: &str) -> Result<HttpResponse, ApiError> {
    asset::serve(ASSETS, name, CONTENT_SECURITY_POLICY)
}

#[cfg(test)]
mod tests {
    use std::{collections::BTreeSet, fs, path::PathBuf};

    use super::*;

    fn folder() -> PathBuf {
        concat!(env!("CARGO_MANIFEST_DIR"), "/console").into()
    }

    #[test]
    fn every_file_of_the_folder_is_served() {
        let mut files: Vec<_> = fs::read_dir(folder())
            .unwrap()
            .map(|file| file.unwrap().file_name().into_string().unwrap())
            .collect();
        files.sort();
        assert_eq!(files, ASSETS.iter().map(|asset| asset.name).collect::<Vec<_>>());
    }

    /// The texts in single quotes that follow `before`.
    fn quoted<'a>(text: &'a str, before: &'a str) -> impl Iterator<Item = String> + 'a {
        text.match_indices(before).filter_map(move |(at, _)| {
            // `t(` and not the end of another name.
            if text[..at].ends_with(|before: char| before.is_alphanumeric() || before == '.') {
                return None;
            }
            let end = text[at + before.len()..].find('\'')?;
            Some(text[at + before.len()..][..end].to_owned())
        })
    }

    #[test]
    fn every_text_of_the_scripts_has_a_translation() {
        let chinese = ASSETS.iter().find(|asset| asset.name == "zh.js").unwrap().text;
        let known: BTreeSet<_> = chinese
            .lines()
            .filter_map(|line| line.trim().rsplit_once(": '").map(|(key, _)| key))
            .chain(chinese.lines().filter_map(|line| line.trim().strip_suffix(':')))
            .map(|key| key.trim_matches('\'').to_owned())
            .collect();
        let scripts = ASSETS.iter().filter(|asset| asset.name.ends_with(".js"));
        let used: BTreeSet<_> = scripts.flat_map(|asset| quoted(asset.text, "t('")).collect();
        let missing: Vec<_> = used.difference(&known).collect();
        assert!(missing.is_empty(), "zh.js lacks {missing:#?}");
        assert!(used.len() > 100, "{used:?}");
    }
}
