//! [`Extensions`]: an application's own data, by type.

use std::{
    any::{Any, TypeId},
    fmt,
    sync::Arc,
};

/// Application data: at most one value of each type.
///
/// Middleware adds values to a request, which makes them available in its [`Handshake`](super::Handshake). An
/// authenticator adds values to the [`Principal`](super::Principal), which makes them available to every session of the
/// login. A clone has the same values.
#[derive(Clone, Default)]
pub struct Extensions(Option<Arc<Vec<Extension>>>);

#[derive(Clone)]
struct Extension {
    id: TypeId,
    name: &'static str,
    value: Arc<dyn Any + Send + Sync>,
}

impl Extensions {
    /// Creates an empty collection.
    pub const fn new() -> Self {
        Self(None)
    }

    /// Adds a value, replacing the one of the same type. Earlier clones keep their own values.
    pub fn insert<T: Send + Sync + 'static>(&mut self, value: T) {
        let extension =
            Extension { id: TypeId::of::<T>(), name: std::any::type_name::<T>(), value: Arc::new(value) };
        let all = Arc::make_mut(self.0.get_or_insert_default());
        match all.iter_mut().find(|known| known.id == extension.id) {
            Some(known) => *known = extension,
            None => all.push(extension),
        }
    }

    /// Returns the value of a type, if there is one.
    pub fn get<T: Send + Sync + 'static>(&self) -> Option<&T> {
        self.find::<T>()?.downcast_ref()
    }

    /// Returns the value of a type, to be kept, if there is one.
    pub fn get_shared<T: Send + Sync + 'static>(&self) -> Option<Arc<T>> {
        Arc::clone(self.find::<T>()?).downcast().ok()
    }

    /// Returns `true` if there is no value.
    pub fn is_empty(&self) -> bool {
        self.0.as_ref().is_none_or(|all| all.is_empty())
    }

    fn find<T: 'static>(&self) -> Option<&Arc<dyn Any + Send + Sync>> {
        let found = self.0.as_ref()?.iter().find(|extension| extension.id == TypeId::of::<T>())?;
        Some(&found.value)
    }
}

/// Equality by identity: two collections are equal if they share the same values, not merely equal ones.
impl PartialEq for Extensions {
    fn eq(&self, other: &Self) -> bool {
        match (&self.0, &other.0) {
            (None, None) => true,
            (Some(own), Some(other)) => {
                own.len() == other.len()
                    && own.iter().zip(&**other).all(|(own, other)| Arc::ptr_eq(&own.value, &other.value))
            }
            _ => false,
        }
    }
}

impl Eq for Extensions {}

/// Prints the types of the values.
impl fmt::Debug for Extensions {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_set()
            .entries(self.0.iter().flat_map(|all| all.iter()).map(|extension| extension.name))
            .finish()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn there_is_one_value_of_each_type_and_clones_keep_theirs() {
        let mut extensions = Extensions::new();
        assert_eq!(extensions.get::<u8>(), None);
        extensions.insert(1_u8);
        extensions.insert("text");
        let before = extensions.clone();
        assert_eq!(before, extensions);
        extensions.insert(2_u8);
        assert_eq!((extensions.get(), extensions.get()), (Some(&2_u8), Some(&"text")));
        assert_eq!(before.get(), Some(&1_u8));
        assert_ne!(before, extensions);
        assert_eq!(format!("{extensions:?}"), r#"{"u8", "&str"}"#);
    }
}
