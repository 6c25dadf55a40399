//! Whether kicks are final, and what was published before one has come.

use super::{Book, archive::Archive};
use crate::audit::history::Record;

pub(super) fn check(_records: &[Record], _archive: &Archive, _book: &mut Book<'_>) {}
