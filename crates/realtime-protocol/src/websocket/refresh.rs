//! [`refresh`]: the renewal of a connection's login by its client.

use bytes::Bytes;
use realtime_core::{SessionHandle, auth::Handshake};

use super::{
    endpoint::Endpoint,
    protocol::{Protocol, TRANSPORT},
};

/// Checks a client's new token and renews its session's login. Returns the answer, a frame.
pub(crate) async fn refresh(endpoint: &Endpoint, session: &SessionHandle, token: &str) -> Bytes {
    let Some(authenticator) = &endpoint.authenticator else {
        return Protocol::refresh_refused("this connection's login cannot be refreshed");
    };
    let handshake = Handshake::renewal(TRANSPORT, token, session.principal());
    let principal = match authenticator.authenticate(&handshake).await {
        Ok(principal) => principal,
        Err(error) => {
            error.report();
            return Protocol::refresh_refused(error.answer());
        }
    };
    match endpoint.hub.renew(session, principal) {
        Ok(()) => Protocol::refreshed(session.expires_in()),
        Err(error) => Protocol::refresh_refused(&error.to_string()),
    }
}
