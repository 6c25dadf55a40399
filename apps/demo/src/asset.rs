//! [`Asset`]: a file of a page, which is part of the binary.

use actix_web::{
    HttpResponse,
    http::{
        StatusCode,
        header::{self, CacheControl, CacheDirective},
    },
};

use crate::api_error::ApiError;

/// A file of a page.
pub(crate) struct Asset {
    pub(crate) name: &'static str,
    pub(crate) text: &'static str,
}

/// The files of a folder, by name.
macro_rules! assets {
    ($folder:literal: $($name:literal),* $(,)?) => {
        &[$($crate::asset::Asset { name: $name, text: include_str!(concat!("../", $folder, "/", $name)) }),*]
    };
}

pub(crate) use assets;

/// Answers with the asset of this name, under a content security policy.
pub(crate) fn serve(assets: &[Asset], name: &str, policy: &'static str) -> Result<HttpResponse, ApiError> {
    let asset = assets.iter().find(|asset| asset.name == name);
    let asset =
        asset.ok_or_else(|| ApiError::new(StatusCode::NOT_FOUND, format_args!("no asset {name:?}")))?;
    let content_type = match name.rsplit('.').next() {
        Some("html") => "text/html; charset=utf-8",
        Some("css") => "text/css; charset=utf-8",
        Some("svg") => "image/svg+xml",
        _ => "text/javascript; charset=utf-8",
    };
    Ok(HttpResponse::Ok()
        .insert_header((header::CONTENT_TYPE, content_type))
        .insert_header((header::CONTENT_SECURITY_POLICY, policy))
        .insert_header((header::X_CONTENT_TYPE_OPTIONS, "nosniff"))
        // Addresses of a page can carry a token.
        .insert_header((header::REFERRER_POLICY, "no-referrer"))
        .insert_header(CacheControl(vec![CacheDirective::NoCache]))
        .body(asset.text))
}
