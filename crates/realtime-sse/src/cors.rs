//! [`Cors`]: what pages of other origins may do here (Fetch standard, section 3.2).

use actix_web::{
    HttpResponse,
    http::header::{self, HeaderMap, HeaderName, HeaderValue},
};
use realtime_core::auth::{AllowedOrigins, Handshake, Page};

use crate::refusal::answer;

/// Access of the page that has made a request.
pub(crate) enum Cors {
    /// It needs no permission, or does not get it: its browser does not show it the response.
    None,
    /// A page of this origin reads the response, and may send cookies.
    Credentials(HeaderValue),
    /// Any page reads the response.
    Any,
}

/// Headers that pages may send: those of a login, and of a client that reconnects.
const REQUEST_HEADERS: &str = "authorization, cache-control, clientid, content-type, last-event-id";

/// Headers of responses that pages read, besides those that all do.
const RESPONSE_HEADERS: &str = "retry-after, x-realtime-cursor";

/// Seconds for which browsers remember an answer to a preflight request.
const MAX_AGE: &str = "600";

impl Cors {
    /// The access that a request has.
    ///
    /// # Errors
    /// A page that would use its visitor's cookies although it is not named.
    pub(crate) fn of(allowed: &AllowedOrigins, request: &Handshake) -> Result<Self, ForeignPage> {
        let page = allowed.page(request);
        // Pages of other origins send cookies if they ask for it, and for images always: any of them may be a login.
        let has_cookies = request.header("Cookie").is_some();
        match page {
            Page::Any(origin) if has_cookies && !allowed.trusts_cookies(request) => {
                Err(ForeignPage::of(Some(origin)))
            }
            Page::Foreign(origin) if has_cookies && !allowed.trusts_cookies(request) => {
                Err(ForeignPage::of(origin))
            }
            Page::Own => Ok(Self::None),
            Page::Trusted(origin) => Ok(HeaderValue::from_str(origin).map_or(Self::None, Self::Credentials)),
            Page::Any(_) => Ok(Self::Any),
            Page::Foreign(origin) => {
                tracing::debug!(origin, "a page of another origin cannot read the response");
                Ok(Self::None)
            }
        }
    }

    /// The response to a preflight request, for these methods of the resource.
    pub(crate) fn preflight(
        allowed: &AllowedOrigins,
        request: &Handshake,
        methods: &'static str,
    ) -> HttpResponse {
        if let Page::Foreign(origin) = allowed.page(request) {
            return ForeignPage::of(origin).refuse();
        }
        let mut response = HttpResponse::NoContent();
        response.insert_header((header::ALLOW, methods));
        if request.header("Access-Control-Request-Method").is_some() {
            response
                .insert_header((header::ACCESS_CONTROL_ALLOW_METHODS, methods))
                .insert_header((header::ACCESS_CONTROL_ALLOW_HEADERS, REQUEST_HEADERS))
                .insert_header((header::ACCESS_CONTROL_MAX_AGE, MAX_AGE));
        }
        response.finish()
    }

    /// Tells a browser what its page may do with the response.
    pub(crate) fn apply(self, headers: &mut HeaderMap) {
        let mut set = |name: HeaderName, value| headers.insert(name, value);
        let origin = match self {
            Self::None => None,
            Self::Credentials(origin) => {
                set(header::ACCESS_CONTROL_ALLOW_CREDENTIALS, HeaderValue::from_static("true"));
                Some(origin)
            }
            Self::Any => Some(HeaderValue::from_static("*")),
        };
        if let Some(origin) = origin {
            set(header::ACCESS_CONTROL_ALLOW_ORIGIN, origin);
            set(header::ACCESS_CONTROL_EXPOSE_HEADERS, HeaderValue::from_static(RESPONSE_HEADERS));
        }
        // Also without the others: a cache must not give one page's response to another page.
        headers.append(header::VARY, HeaderValue::from_static("Origin"));
    }
}

/// A page that is refused; its origin, if its browser tells.
pub(crate) struct ForeignPage(Option<String>);

impl ForeignPage {
    fn of(origin: Option<&str>) -> Self {
        Self(origin.map(str::to_owned))
    }

    /// The response to its request.
    pub(crate) fn refuse(self) -> HttpResponse {
        let Self(origin) = self;
        tracing::warn!(origin, "refused a page of another origin; sse.allowedOrigins can name it");
        let problem = match origin {
            Some(origin) => format!("origin {origin:?} is not allowed"),
            None => "pages of other sites are not allowed".to_owned(),
        };
        answer(403, 403, &problem)
    }
}
