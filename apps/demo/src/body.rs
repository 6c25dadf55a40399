//! [`Body`] and [`OptionalBody`]: a JSON request body with errors that name the field and the problem.

use std::{
    cell::Cell,
    rc::Rc,
    sync::atomic::{AtomicUsize, Ordering},
    time::Duration,
};

use actix_web::{
    FromRequest, HttpRequest,
    dev::Payload,
    error::PayloadError,
    http::StatusCode,
    web::{Bytes, Data},
};
use futures_util::{StreamExt, future::LocalBoxFuture};
use realtime_core::wire::replace_lone_surrogates;
use serde::de::DeserializeOwned;
use tokio::time::timeout;

use crate::{api_error::ApiError, state::State};

/// A JSON request body of any content type; extracting it fails with 400, 408, 413 or, when there are too many, 503.
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

/// Time for a body to arrive.
const TIME: Duration = Duration::from_secs(30);

/// Bytes of all bodies that are arriving, and how many of the largest there is room for in any case.
const ALL: usize = 64 << 20;
const LARGEST: usize = 4;

/// Collects a body, within the limits of size (`PayloadConfig`), time and sum.
fn read(
    request: &HttpRequest,
    payload: &mut Payload,
) -> impl Future<Output = Result<Bytes, ApiError>> + use<> {
    let largest = request.app_data::<Data<State>>().map_or(0, |state| state.max_body);
    let most = ALL.max(largest.saturating_mul(LARGEST));
    static ARRIVING: AtomicUsize = AtomicUsize::new(0);
    let mut held = Held { bytes: 0, all: &ARRIVING };
    let is_full = Rc::new(Cell::new(false));
    let full = Rc::clone(&is_full);
    let counted = payload.take().map(move |chunk| {
        let chunk = chunk?;
        if held.add(chunk.len()) > most {
            full.set(true);
            return Err(PayloadError::Overflow);
        }
        Ok(chunk)
    });
    let bytes = Bytes::from_request(request, &mut Payload::Stream { payload: Box::pin(counted) });
    async move {
        let bytes = timeout(TIME, bytes)
            .await
            .map_err(|_| ApiError::new(StatusCode::REQUEST_TIMEOUT, "body: did not arrive in time"))?;
        bytes.map_err(|error| {
            if is_full.get() {
                let busy =
                    ApiError::new(StatusCode::SERVICE_UNAVAILABLE, "too many bodies at once; try again");
                return busy.retry_after(Duration::from_secs(1));
            }
            let too_large = error.as_response_error().status_code() == StatusCode::PAYLOAD_TOO_LARGE;
            let status = if too_large { StatusCode::PAYLOAD_TOO_LARGE } else { StatusCode::BAD_REQUEST };
            ApiError::new(status, format_args!("body: {error}"))
        })
    }
}

/// Bytes of a body that is arriving.
struct Held {
    bytes: usize,
    all: &'static AtomicUsize,
}

impl Held {
    /// Adds bytes, and returns those of all bodies.
    fn add(&mut self, bytes: usize) -> usize {
        self.bytes += bytes;
        self.all.fetch_add(bytes, Ordering::Relaxed) + bytes
    }
}

impl Drop for Held {
    fn drop(&mut self) {
        self.all.fetch_sub(self.bytes, Ordering::Relaxed);
    }
}

fn parse<T: DeserializeOwned>(bytes: &[u8]) -> Result<T, ApiError> {
    let text = str::from_utf8(bytes).map(replace_lone_surrogates);
    let bytes = text.as_ref().map_or(bytes, |text| text.as_bytes());
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
