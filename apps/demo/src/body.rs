//! [`Body`] and [`OptionalBody`]: a JSON request body with errors that name the field and the problem.

use actix_web::{FromRequest, HttpRequest, dev::Payload, web::Bytes};
use futures_util::future::LocalBoxFuture;
use serde::de::DeserializeOwned;

use crate::api_error::ApiError;

/// A JSON request body of any content type; extracting it fails with 400.
pub(crate) struct Body<T>(pub(crate) T);

/// The same, or nothing.
pub(crate) struct OptionalBody<T>(pub(crate) Option<T>);

impl<T: DeserializeOwned> FromRequest for Body<T> {
    type Error = ApiError;
    type Future = LocalBoxFuture<'static, Result<Self, ApiError>>;

    fn from_request(request: &HttpRequest, payload: &mut Payload) -> Self::Future {
        let bytes = read(request, payload);
        Box::pin(async move { Ok(Self(parse(&bytes.await?)?)) })
    }
}

impl<T: DeserializeOwned> FromRequest for OptionalBody<T> {
    type Error = ApiError;
    type Future = LocalBoxFuture<'static, Result<Self, ApiError>>;

    fn from_request(request: &HttpRequest, payload: &mut Payload) -> Self::Future {
        let bytes = read(request, payload);
        Box::pin(async move {
            let bytes = bytes.await?;
            Ok(Self(if bytes.trim_ascii().is_empty() { None } else { Some(parse(&bytes)?) }))
        })
    }
}

fn read(
    request: &HttpRequest,
    payload: &mut Payload,
) -> impl Future<Output = Result<Bytes, ApiError>> + use<> {
    let bytes = Bytes::from_request(request, payload);
    async move { bytes.await.map_err(|error| ApiError::bad_request(format_args!("body: {error}"))) }
}

fn parse<T: DeserializeOwned>(bytes: &[u8]) -> Result<T, ApiError> {
    if bytes.iter().find(|byte| !byte.is_ascii_whitespace()).is_some_and(|first| *first != b'{') {
        return Err(ApiError::bad_request("body: expected a JSON object"));
    }
    let mut json = serde_json::Deserializer::from_slice(bytes);
    let value = serde_path_to_error::deserialize(&mut json).map_err(|error| {
        let path = error.path().to_string();
        let place = if path == "." || path == "?" { "body" } else { &path };
        ApiError::bad_request(format_args!("{place}: {}", error.inner()))
    })?;
    json.end().map_err(|error| ApiError::bad_request(format_args!("body: {error}")))?;
    Ok(value)
}
