//! The optional process-wide hub, the counterpart of RuoYi's static utilities.

use once_cell::sync::OnceCell;

use crate::Hub;

static HUB: OnceCell<Hub> = OnceCell::new();

/// Error of a second process-wide hub.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("a process-wide hub is already installed")]
pub struct AlreadyInstalled;

/// Makes `hub` the process-wide one, once.
///
/// # Errors
/// [`AlreadyInstalled`] on the second call; the first hub stays.
pub fn install(hub: Hub) -> Result<(), AlreadyInstalled> {
    HUB.set(hub).map_err(|_| AlreadyInstalled)
}

/// The process-wide hub, if one was installed.
pub fn hub() -> Option<&'static Hub> {
    HUB.get()
}
