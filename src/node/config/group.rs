//! What a row of the table is made of.
//!
//! [`group!`] turns rows into a struct with its default and an implementation of [`Group`], by which the
//! rest of this module handles all structs alike, by the names of their keys. A section of the file may
//! be several structs in code; a struct never spans sections.

use super::kind::{Kind, Value};

/// Whether a running node takes a new value.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Reload {
    /// Taken over on SIGHUP.
    Live,
    /// Needs a restart; a change is reported and ignored.
    Restart,
}

/// What there is to say about a key.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Key {
    /// The section that holds it.
    pub section: &'static str,
    /// Its name, ending in its unit where it has one.
    pub name: &'static str,
    /// Its default as TOML.
    pub default: String,
    /// What it means, line by line.
    pub doc: &'static [&'static str],
    /// What it accepts.
    pub expectation: String,
    /// The words it accepts, when it accepts only some.
    pub words: Vec<&'static str>,
    /// Whether a running node takes a new value.
    pub reload: Reload,
    /// True for what is printed nowhere.
    pub secret: bool,
}

impl Key {
    /// The name with its section, as `--set` takes it.
    #[must_use]
    pub fn path(&self) -> String {
        format!("{}.{}", self.section, self.name)
    }
}

/// A struct of the table, handled by the names of its keys.
pub(super) trait Group {
    /// The section of the file that holds the keys.
    fn section(&self) -> &'static str;

    /// The keys, in the order of their definition.
    fn keys(&self) -> Vec<Key>;

    /// Takes a value. `None` when the key is not of this group, `Some(false)` when the value is refused.
    fn set(&mut self, name: &str, value: &Value) -> Option<bool>;

    /// The value; `None` when the key is not of this group.
    fn get(&self, name: &str) -> Option<Value>;
}

/// The kind itself. The type of its value, which a row states once, reaches the compiler this way.
pub(super) fn of<T, K: Kind<Value = T>>(kind: K) -> K {
    kind
}

/// Defines a struct of the table. A row reads
/// `"key_with_unit" Live|Restart field: Type = default, kind;` under its documentation.
macro_rules! group {
    (
        $(#[doc = $about:literal])+
        pub struct $name:ident in $section:literal {
            $(
                $(#[doc = $doc:literal])+
                $key:literal $reload:ident $field:ident: $type:ty = $default:expr, $kind:expr;
            )+
        }
    ) => {
        $(#[doc = $about])+
        #[derive(Clone, Debug, PartialEq, Eq)]
        pub struct $name {
            $($(#[doc = $doc])+ pub $field: $type,)+
        }

        impl Default for $name {
            fn default() -> Self {
                Self { $($field: $default,)+ }
            }
        }

        impl $crate::node::config::group::Group for $name {
            fn section(&self) -> &'static str {
                $section
            }

            fn keys(&self) -> Vec<$crate::node::config::group::Key> {
                let default = Self::default();
                vec![$($crate::node::config::group::Key {
                    section: $section,
                    name: $key,
                    default: of::<$type, _>($kind).write(&default.$field).to_string(),
                    doc: &[$($doc),+],
                    expectation: of::<$type, _>($kind).expectation(),
                    words: of::<$type, _>($kind).words(),
                    reload: $crate::node::config::group::Reload::$reload,
                    secret: of::<$type, _>($kind).is_secret(),
                }),+]
            }

            fn set(&mut self, name: &str, value: &Value) -> Option<bool> {
                match name {
                    $($key => Some(of::<$type, _>($kind).read(value).map(|value| self.$field = value).is_some()),)+
                    _ => None,
                }
            }

            fn get(&self, name: &str) -> Option<Value> {
                match name {
                    $($key => Some(of::<$type, _>($kind).write(&self.$field)),)+
                    _ => None,
                }
            }
        }
    };
}

pub(super) use group;
